"""Every private name is taken away in turn: a fit still ends with the right answer, and says what is missing."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.compat import aten, dispatch, inductor, names, pytree
from vipack.compat.messengers import settings_now
from vipack.compat.names import PrivateName, registered
from vipack.engine.compiled import build, compiler
from vipack.engine.guards import surroundings
from vipack.engine.interpreter.rules.table import RULES
from vipack.errors import EngineWarning, GuideError, PlateError, UsageError

assert vi.fit  # imports the rooms that use private names
assert vi.SVI
NAMES = registered()
USED = [name for name in NAMES if not name.startswith("aten.")]  # operators are nodes of a graph, or are not
STEPS = 250
OTHER_DRAWS = {"ELBO._guess_max_plate_nesting"}  # without it the first step draws once more, to count the plates
X = torch.tensor([0.3, 1.9, -0.4, 2.2, 1.1, 0.8, 1.7, 0.2])


def model(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    pyro.sample("z", dist.Normal(loc, scale))


def fitted(engine, **options):
    loss = Trace_ELBO(num_particles=16, vectorize_particles=True)
    return vi.fit(model, guide, data=X, loss=loss, steps=STEPS, seed=3, engine=engine, progress=False, **options)


def steps_of(kind, num_steps=12, **options):
    """Losses, and what the store holds at the end."""
    pyro.clear_param_store()
    pyro.set_rng_seed(3)
    svi = kind(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "clip_norm": 5.0}), Trace_ELBO(), **options)
    losses = [svi.step(X) for _ in range(num_steps)]
    return svi, losses, {name: value.detach().clone() for name, value in pyro.get_param_store().items()}


def assert_exact(fit):
    """The posterior is known: normal, with these two."""
    assert float(fit.params["loc"]) == pytest.approx(float(X.sum()) / (len(X) + 1), abs=0.03)
    assert float(fit.params["scale"]) == pytest.approx(1 / math.sqrt(len(X) + 1), abs=0.03)


@pytest.fixture(scope="module")
def eager():
    """What Pyro's own steps give: with the exact posterior's mean and standard deviation, and single steps."""
    fit, (_, losses, params) = fitted("eager"), steps_of(pyro.infer.SVI)
    assert_exact(fit)
    return fit, losses, params


@pytest.fixture
def take_away(monkeypatch):
    """Let a release of torch or Pyro have no such name."""

    def take(*gone):
        look = PrivateName._look
        monkeypatch.setattr(PrivateName, "_look", lambda self: self.name not in gone and look(self))
        monkeypatch.setattr(
            names, "_PRESENT", {name: found for name, found in names._PRESENT.items() if name not in gone}
        )
        monkeypatch.setattr(surroundings, "_settings", settings_now())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        yield take


def test_all_are_there():
    assert [name for name, private in NAMES.items() if not private.there] == []
    assert len(NAMES) > 80


@pytest.mark.parametrize("name", USED)
def test_a_fit_ends_with_the_same_answer(name, eager, take_away):
    take_away(name)
    fit = fitted("traced")
    assert_exact(fit)
    if name not in OTHER_DRAWS:
        np.testing.assert_allclose(fit.losses, eager[0].losses, rtol=1e-4)
    if NAMES[name].stops == "graphs":
        assert fit.engine.steps == {"eager": STEPS}
        assert fit.engine.reason == f"eager: {NAMES[name].message}"
    else:
        assert fit.engine.tier == "traced"


SWITCHES = ("graphs", "single steps")  # off; what is done another way in a fit is done so in single steps too


@pytest.mark.parametrize(
    "name", [n if NAMES[n].stops in SWITCHES else pytest.param(n, marks=pytest.mark.slow) for n in USED]
)
def test_single_steps_are_pyros(name, eager, take_away):
    take_away(name)
    svi, losses, params = steps_of(vi.SVI, engine="traced")
    np.testing.assert_allclose(losses, eager[1], rtol=1e-4)
    for key, value in eager[2].items():
        torch.testing.assert_close(params[key], value, rtol=1e-4, atol=1e-5)
    if NAMES[name].stops in SWITCHES:
        assert svi.engine.steps == {"eager": len(losses)}
        assert svi.engine.reason == f"eager: {NAMES[name].message}"
    else:
        assert svi.engine.tier == "traced"


# --- what is compiled


class _Ended:
    """A process that has ended."""

    def __init__(self, code):
        self.code = code

    def poll(self, *, wait):
        return self.code


@pytest.fixture
def compiling_here(monkeypatch, tmp_path):
    """Compilations run in this process, and find nothing that was compiled before."""
    monkeypatch.setenv("VIPACK_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "start_compiling", lambda work: _Ended(build.main([str(work)])))
    compiler.start_interpreter.cache_clear()
    yield
    compiler.start_interpreter.cache_clear()


@pytest.mark.parametrize("name", [n for n, private in NAMES.items() if private.stops in ("compiled", "native")])
@pytest.mark.usefixtures("compiling_here")
def test_what_cannot_be_compiled_runs_as_a_graph(name, eager, take_away, monkeypatch):
    def no_kernels(path, *, vectorized, flags):
        inductor.require(inductor.BUILDER, inductor.BUILD_OPTIONS, inductor.PICK_ISA, inductor.NO_ISA)
        raise RuntimeError("there is no compiler here")

    monkeypatch.setattr(build, "compile_cpp", no_kernels)  # which would take most of the time
    take_away(name)
    engine = "interpreted" if NAMES[name].stops == "native" else "compiled"
    fit = fitted(engine)
    assert fit.engine.tier == "traced"
    np.testing.assert_allclose(fit.losses, eager[0].losses, rtol=1e-4)
    if name != inductor.ARTIFACT.name:  # which is for steps that are not understood as a plan
        assert f"compiling failed: {NAMES[name].message}" in fit.engine.reason


def test_an_artifact_is_refused_with_the_name(take_away, tmp_path):
    take_away(inductor.ARTIFACT.name)
    with pytest.raises(inductor.MissingNameError, match=r"no torch\._inductor\.CompiledArtifact: no loop is compiled"):
        inductor.load_artifact(tmp_path)


@pytest.mark.slow
def test_a_loop_is_the_same_without_what_makes_it_faster(eager, take_away, monkeypatch, tmp_path):
    monkeypatch.setenv("VIPACK_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "start_compiling", lambda work: _Ended(build.main([str(work)])))
    take_away(*(n.name for n in (inductor.REUSE, inductor.FILL_ORDER, inductor.LOWERINGS, inductor.CONFIG)))
    fit = fitted("compiled")
    assert fit.engine.tier == "compiled"
    np.testing.assert_allclose(fit.losses, eager[0].losses, rtol=1e-4)


# --- where the name itself is what a program uses


def test_an_operator_that_is_gone_is_no_node_of_a_graph():
    gone = aten._operator("_no_such_operator.default")
    private = names._ALL.pop("aten._no_such_operator.default")
    with pytest.warns(EngineWarning, match=r"has no aten\._no_such_operator\.default: the interpreter calls"):
        assert not private.there
    assert gone not in {aten.SOFTMAX: 1}
    with pytest.raises(NotImplementedError, match=r"no aten\._no_such"):
        gone(X)


def test_an_operator_that_no_kernel_knows_by_name_is_the_librarys(monkeypatch):
    def weighted(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(torch.softmax(z, -1)[0], 1.0), obs=x)

    monkeypatch.delitem(RULES, aten.SOFTMAX)
    fit = vi.fit(weighted, AutoNormal, data=X, steps=20, seed=0, engine="interpreted", progress=False)
    expected = vi.fit(weighted, AutoNormal, data=X, steps=20, seed=0, engine="eager", progress=False)
    assert fit.engine.tier == "interpreted"
    np.testing.assert_allclose(fit.losses, expected.losses, rtol=1e-4)


def scaled(rows):
    def program(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with rows(x):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return program


@pytest.mark.parametrize(
    "rows",
    [
        lambda x: pyro.plate("rows", len(x)),
        lambda x: pyro.plate("rows", 64, subsample_size=len(x)),
    ],
    ids=["len(x)", "N, len(x)"],
)
def test_minibatches_are_scaled_without_the_plates_own_choice(rows, take_away):
    data = torch.linspace(-1.0, 3.0, 64)
    options = {"data": data, "batch_size": 16, "steps": 20, "seed": 1, "engine": "eager", "progress": False}
    expected = vi.fit(scaled(rows), guide, **options)
    take_away("SubsampleMessenger._subsample")
    found = vi.fit(scaled(rows), guide, **options)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)


def test_rows_that_a_plate_hands_out_are_the_batchs(take_away):
    """A program that looks something up by row gets the rows of the batch, not some of Pyro's choice."""
    offsets = torch.arange(64.0)

    def program(x):
        with pyro.plate("rows", 64, subsample_size=len(x)) as rows:
            pyro.sample("x", dist.Normal(offsets[rows], 1.0), obs=x)
        pyro.sample("z", dist.Normal(0.0, 1.0))

    take_away("SubsampleMessenger._subsample")
    fit = vi.fit(program, guide, data=offsets, batch_size=16, steps=10, seed=1, engine="eager", progress=False)
    assert (fit.losses < 64 * 1.0 + 10).all()  # another row is off by 20 or so, which is 200 nats


def test_a_plate_as_large_as_the_data_names_the_cure(take_away):
    take_away("SubsampleMessenger._subsample")
    with pytest.raises(PlateError, match=r"pyro\.plate\('rows', len\(x\)\)"):
        vi.fit(
            scaled(lambda x: pyro.plate("rows", 64)),
            guide,
            data=torch.zeros(64),
            batch_size=16,
            steps=10,
            progress=False,
        )


def test_a_module_that_cannot_be_lent_to_is_refused_by_name(take_away):
    net = torch.nn.Linear(1, 1)

    def amortised(x):
        pyro.module("net", net)
        pyro.sample("z", dist.Normal(net(x[:1, None]).squeeze(), 1.0))

    take_away("nn.Module._parameters")
    with pytest.raises(UsageError, match=r"no nn\.Module\._parameters.*'(weight|bias)'"):
        vi.fit(model, amortised, data=X, steps=5, progress=False)


def test_our_guides_say_what_they_stand_on(take_away):
    take_away("AutoGuide._setup_prototype")
    with pytest.raises((UsageError, GuideError), match=r"no AutoGuide\._setup_prototype.*a guide of Pyro's"):
        vi.fit(model, vi.guides.Flow, data=X, steps=5, progress=False)


def test_containers_are_flattened_without_torch(take_away):
    tree = {"a": [torch.ones(1), (torch.zeros(2), 3.0)], "b": ()}
    take_away("torch.utils._pytree")
    leaves, spec = pytree.tree_flatten(tree)
    assert len(leaves) == 3
    again = pytree.tree_unflatten(leaves, spec)
    assert again["a"][0] is tree["a"][0]
    assert again["a"][1] == tree["a"][1]
    assert again["b"] == ()
    assert pytree.tree_map(lambda x, y: x + y, {"a": 1}, {"a": 2}) == {"a": 3}


def test_modes_see_operations():
    class Seen(dispatch.Operations):
        def operation(self, function, args, kwargs):
            seen.append(function)
            return super().operation(function, args, kwargs)

    seen = []
    with Seen():
        torch.ones(2) + 1
    assert seen


# --- the probes


def test_a_name_is_missed_where_it_is_really_gone(monkeypatch):
    monkeypatch.setattr(names, "_PRESENT", {})
    monkeypatch.delattr("torch.distributions.normal._standard_normal")
    with pytest.warns(
        EngineWarning, match=r"torch 2\S+ has no .*_standard_normal: draws under vmap are made one by one"
    ):
        assert not NAMES["torch.distributions.utils._standard_normal"].there
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert not NAMES["torch.distributions.utils._standard_normal"].there


def test_probes_change_nothing(monkeypatch):
    monkeypatch.setattr(names, "_PRESENT", {})
    pyro.clear_param_store()
    state = torch.get_rng_state()
    seen = []
    with pyro.poutine.trace() as trace, torch.inference_mode(), pyro.plate("around", 3):
        seen = [name for name, private in NAMES.items() if not private.there]
    assert seen == []
    assert torch.equal(state, torch.get_rng_state())
    assert dict(pyro.get_param_store()) == {}
    assert set(trace.trace.nodes) <= {"_INPUT", "_RETURN", "around"}


def test_probes_see_through_what_stands_around(monkeypatch):
    monkeypatch.setattr(names, "_PRESENT", {})

    def look(x):
        assert [name for name, private in NAMES.items() if not private.there] == []
        return x

    torch.vmap(look)(torch.zeros(2))


def test_import_probes_nothing():
    """What a probe costs is paid where the name is used."""
    code = "import vipack, sys; vipack.fit; from vipack.compat import names; print(sorted(names._PRESENT))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(eval(found.stdout)) <= 3, found.stdout
