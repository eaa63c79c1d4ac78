"""Names that do not exist: options as other libraries call them, misspellings, and what the package does not have."""

import functools
import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from tests.public_interface import public_names, rooms
from vipack.errors import CheckpointWarning, DataWarning, DivergenceWarning, SignatureError, TrustWarning, UsageError

X = torch.linspace(-1.0, 1.0, 12)


def model(x, unused=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


@pytest.fixture(scope="module")
def fit():
    return vi.fit(model, AutoNormal, data=X, steps=2)


FIT = {
    "lr": "optim=pyro.optim.Adam({'lr': 0.5})", "learning_rate": "optim=pyro.optim.Adam({'lr': 0.5})",
    "optimizer": "optim=", "num_steps": "steps=0.5", "n_iter": "steps=", "max_steps": "steps=", "n": "steps=",
    "num_epochs": "epochs=", "max_epochs": "epochs=", "n_epochs": "epochs=", "batchsize": "batch_size=",
    "minibatch_size": "batch_size=", "random_state": "seed=", "rng_key": "seed=", "random_seed": "seed=",
    "num_particles": "Trace_ELBO(num_particles=", "elbo": "loss=", "tol": "stop=vipack.Converged()", "patience": "Converged()",
    "progressbar": "progress=", "progress_bar": "progress=", "verbose": "progress=", "jit": "engine=", "use_gpu": "device='cuda'",
    "num_samples": "fit.sample(", "draws": "fit.sample(", "model_args": "data=(x, y)", "obs": "data=", "n_restarts": "restarts=",
    "init_loc_fn": "functools.partial(AutoNormal, init_loc_fn=", "method": "guide=", "shuffle": "data=DataLoader(",
    "stesp": "did you mean 'steps'?", "batch_szie": "did you mean 'batch_size'?", "Seed": "did you mean 'seed'?",
    "nonsense": "it takes model, guide, data",
}  # fmt: skip


@pytest.mark.parametrize("name", FIT)
def test_an_option_of_fit(name):
    with pytest.raises(SignatureError, match=rf"fit takes no argument '{name}'") as caught:
        vi.fit(model, AutoNormal, data=X, **{name: 0.5})
    assert FIT[name] in str(caught.value)
    assert isinstance(caught.value, TypeError)


OTHERS = {
    "check": (lambda fit: vi.check(model, AutoNormal, data=X, batchsize=3), "check takes no argument 'batchsize'; write batch_size=3"),
    "load": (lambda fit: vi.load("run.fit", model, AutoNormal, lr=0.1), "Adam({'lr': 0.1})"),
    "compare": (lambda fit: vi.compare({"a": fit}, num_samples=9), "num_draws=9"),
    "sample": (lambda fit: fit.sample(num_samples=9), "Fit.sample takes no argument 'num_samples'; write num_draws=9"),
    "predict": (lambda fit: fit.predict(x=X), "data=(x, y)"),
    "diagnose": (lambda fit: fit.diagnose(draws=9), "num_draws=9"),
    "summary": (lambda fit: fit.summary(n_samples=9), "num_draws=9"),
    "elbo": (lambda fit: fit.elbo(num_particles=9), "num_draws=9"),
    "to_arviz": (lambda fit: fit.to_arviz(num_draw=9), "did you mean 'num_draws'?"),
    "resume": (lambda fit: fit.resume(n_steps=9), "steps=9"),
    "save": (lambda fit: fit.save("run.fit", datas=False), "did you mean 'data'?"),
    "loo": (lambda fit: vi.diagnostics.loo(fit, n_samples=9), "num_draws=9"),
    "SVI": (lambda fit: vi.SVI(model, AutoNormal(model), pyro.optim.Adam({}), Trace_ELBO(), num_particles=9), "SVI takes no"),
    "data by position": (lambda fit: vi.fit(model, AutoNormal, X), "give the data by keyword"),
    "no data": (lambda fit: vi.fit(model), "() for a model that takes none"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions(name, fit):
    call, words = OTHERS[name]
    with pytest.raises(SignatureError) as caught:
        call(fit)
    assert words in str(caught.value)


CONSTRUCTORS = {
    "Converged": (lambda: vi.Converged(tol=0.1), "Converged takes no argument 'tol'; write tolerance=0.1"),
    "TimeLimit": (lambda: vi.TimeLimit(second=60), "TimeLimit takes no argument 'second'; did you mean 'seconds'?"),
    "Every": (lambda: vi.Every(print, every=10), "Every takes no argument 'every'; write num_steps=10"),
    "Checkpoint": (lambda: vi.Checkpoint("run.fit", every=10), "Checkpoint takes no argument 'every'; write every_steps=10"),
    "missing": (lambda: vi.TimeLimit(), "TimeLimit: missing a required argument: 'seconds'"),
    "Flow": (lambda: vi.guides.Flow(model, n_layers=4), "Flow takes no argument 'n_layers'; write num_layers=4"),
    "Flow's size": (lambda: vi.guides.Flow(model, hidden_dim=4), "write hidden=(32, 32)"),
    "Flow of a fit": (lambda: vi.fit(model, functools.partial(vi.guides.Flow, num_layer=4), data=X), "did you mean 'num_layers'?"),
    "Mixture": (lambda: vi.guides.Mixture(model, n_components=4), "write components=[AutoNormal, AutoNormal]"),
    "Structured": (lambda: vi.guides.Structured(model, init_loc=4), "did you mean 'init_loc_fn'?"),
    "Whitened": (lambda: vi.guides.Whitened(model, locs=X), "did you mean 'loc'?"),
    "Amortized": (lambda: vi.guides.Amortized(model, net=None), "did you mean 'network'?"),
    "from_laplace": (lambda: vi.guides.from_laplace(model, (X,), steps=4), "from_laplace takes no argument 'steps'; write num_steps=4"),
    "StickingTheLanding": (lambda: vi.objectives.StickingTheLanding(n_particles=4), "write num_particles=4"),
    "ImportanceWeighted": (lambda: vi.objectives.ImportanceWeighted(num_samples=4), "write num_particles=4"),
    "BetaELBO": (lambda: vi.objectives.BetaELBO(kl_weight=4.0), "BetaELBO takes no argument 'kl_weight'; write beta=4.0"),
    "Table": (lambda: vi.datasets.Table("a", column={}), "did you mean 'columns'?"),
    "mnist": (lambda: vi.datasets.mnist(train=False), "mnist takes no argument 'train'; write split='train'"),
    "load_texts": (lambda: vi.datasets.load_texts("folder", licens="mine"), "did you mean 'licence'?"),
    "losses": (lambda: vi.plots.losses(X, windw=3), "losses takes no argument 'windw'; did you mean 'window'?"),
    "plots": (lambda: vi.plots.posterior({}, var_names=["w"]), "write names="),
    "importance": (lambda: vi.diagnostics.importance(logweights=X), "did you mean 'log_weights'?"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_constructors_guides_objectives_datasets_and_plots(name):
    call, words = CONSTRUCTORS[name]
    with pytest.raises(SignatureError) as caught:
        call()
    assert words in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert "\n" not in str(caught.value)


def test_every_public_callable_names_what_it_does_not_take():
    """All but results, which users do not make, and ``scan``, which runs inside programs."""
    made_by_vipack = (
        vi.Fit,
        vi.diagnostics.Calibration,
        vi.diagnostics.Diagnosis,
        vi.diagnostics.Importance,
        vi.diagnostics.Loo,
    )
    rooms = (vi, vi.guides, vi.objectives, vi.datasets, vi.diagnostics, vi.plots)
    public = {getattr(room, name) for room in rooms for name in room.__all__ if callable(getattr(room, name))}
    for what in public - {*made_by_vipack, vi.scan, vi.datasets.cache_folder, vi.diagnostics.Verdict}:
        with pytest.raises(SignatureError, match=f"{what.__name__} takes no argument 'qqq'"):
            what(qqq=1)


ATTRIBUTES = {
    "fitt": "did you mean 'fit'?", "compar": "did you mean 'compare'?", "Converge": "did you mean 'Converged'?",
    "loo": "it is vipack.diagnostics.loo", "Flow": "it is vipack.guides.Flow", "AutoNormal": "from pyro.infer.autoguide import AutoNormal",
    "Trace_ELBO": "from pyro.infer import Trace_ELBO", "nothing_like_it": "it has SVI, CapturedELBO, Checkpoint",
}  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_the_package_does_not_have(name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'") as caught:
        getattr(vi, name)
    assert ATTRIBUTES[name] in str(caught.value)
    assert not hasattr(vi, name)


@pytest.mark.slow
def test_type_checkers_find_them_too(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import vipack as vi\nvi.fitt\nvi.fit(print, data=(), lr=0.1)\nvi.fit(print, data=())\n")
    found = subprocess.run(
        [sys.executable, "-m", "mypy", str(script)], capture_output=True, text=True, check=False
    ).stdout
    assert 'no attribute "fitt"' in found
    assert 'argument "lr"' in found
    assert "Found 2 errors" in found


@pytest.mark.slow
def test_a_strict_type_checker_knows_every_public_name(tmp_path):
    lines = ["import vipack as vi", ""]
    for room in rooms():
        lines += [f"print({room.replace('vipack', 'vi', 1)}.{each.name})" for each in public_names(room)]
    lines += [
        "",
        "def plain(source: vi.Fit, path: str) -> vi.diagnostics.Diagnosis:",
        "    source.report(path)",
        "    return source.diagnose()",
    ]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(script)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "Success: no issues found in 1 source file" in said, said
    script.write_text("\n".join([*lines, "vi.topics.LDDA", "vi.fit(print, data=(), stepps=3)"]) + "\n")
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert 'no attribute "LDDA"' in said
    assert '"stepps"' in said


def test_a_fit_is_not_saved_into_a_folder_that_is_not_there(fit, tmp_path):
    with pytest.raises(UsageError, match=r"folder .*missing.* does not exist; make it first.*mkdir"):
        fit.save(tmp_path / "missing" / "run.fit")
    with pytest.raises(UsageError, match=r"is a folder; name a file in it"):
        fit.save(tmp_path)


# --- warnings point at the user's line


def unused(x, y):
    model(x)


def steep(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w + 0 * torch.sqrt(1.5 - w), 1.0), obs=x)


def with_factor(x):
    model(x)
    pyro.factor("more", torch.zeros(()))


def interrupted(folder):
    (folder / ".run.fit.999999999.tmp").touch()
    vi.fit(model, AutoNormal, data=X, steps=2, checkpoint=folder / "run.fit")


def two_data_sets():
    fits = {name: vi.fit(model, AutoNormal, data=data, steps=2) for name, data in (("a", X), ("b", 2 * X))}
    return vi.compare(fits, num_draws=100, chains=False, modes=False)


WARNINGS = {
    "check": (DataWarning, lambda folder: vi.fit(unused, AutoNormal, data=(X, 2 * X), steps=1)),
    "ladder": (DataWarning, lambda folder: vi.fit(unused, data=(X, 2 * X), batch_size=6, stop=vi.TimeLimit(0.1))),
    "restarts": (DataWarning, lambda folder: vi.fit(unused, AutoNormal, data=(X, 2 * X), steps=2, restarts=2)),
    "divergence": (DivergenceWarning, lambda folder: vi.fit(steep, AutoNormal, data=X + 5, steps=400, optim=pyro.optim.Adam({"lr": 0.05}))),
    "checkpoint": (CheckpointWarning, interrupted),
    "compare": (DataWarning, lambda folder: two_data_sets()),
    "loo": (TrustWarning, lambda folder: vi.diagnostics.loo(vi.fit(with_factor, AutoNormal, data=X, steps=1), num_draws=100)),
}  # fmt: skip


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_points_at_the_users_line(name, tmp_path):
    category, call = WARNINGS[name]
    with pytest.warns(category) as caught:
        call(tmp_path)
    ours = [warning for warning in caught if issubclass(warning.category, vi.errors.VipackWarning)]
    assert {warning.filename for warning in ours} == {__file__}
