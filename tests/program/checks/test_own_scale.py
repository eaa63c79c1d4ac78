"""Programs that scale minibatches themselves, by poutine.scale(scale=N / len(x)): nothing is scaled twice, and nothing else."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib import gp
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.utils.data import DataLoader, TensorDataset

import vipack as vi
from vipack.errors import PlateError, ProgramWarning

N = 60
X = torch.linspace(0.0, 1.0, N)
Y = torch.sin(6 * X) + 0.1 * torch.randn(N, generator=torch.Generator().manual_seed(0))


def by_plate(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 0.5), obs=y)


def by_scale(x, y, total=N):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with poutine.scale(scale=total / len(x)):
        pyro.sample("y", dist.Normal(w * x, 0.5).to_event(1), obs=y)


def by_tensor(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with poutine.scale(scale=torch.tensor(N / len(x))):
        pyro.sample("y", dist.Normal(w * x, 0.5).to_event(1), obs=y)


def by_both(x, y, total=N):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)), poutine.scale(scale=total / len(x)):
        pyro.sample("y", dist.Normal(w * x, 0.5), obs=y)


def by_a_plate_of_all_rows(x, y):
    """Whose size says what the factor would."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", N, subsample_size=len(x)):
        pyro.sample("y", dist.Normal(w * x, 0.5), obs=y)


def in_two_plates(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with poutine.scale(scale=N / len(x)):
        with pyro.plate("lower", len(x)):
            pyro.sample("y", dist.Normal(w * x, 0.5), obs=y)
        with pyro.plate("upper", len(x)):
            pyro.sample("again", dist.Normal(0.0, 1.0), obs=x)


@pytest.mark.parametrize("batch_size", [1, 20, 25])
@pytest.mark.parametrize("model", [by_scale, by_tensor, by_both, by_a_plate_of_all_rows])
def test_the_losses_are_those_of_a_plate(model, batch_size):
    found, expected = (
        vi.fit(m, AutoNormal, data=(X, Y), batch_size=batch_size, steps=20) for m in (model, by_plate)
    )  # fmt: skip
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-5)
    assert torch.allclose(found.log_weights(20), expected.log_weights(20), rtol=1e-6)  # on all rows


@pytest.mark.parametrize("data", [TensorDataset(X, Y), DataLoader(TensorDataset(X, Y), batch_size=16)], ids=type)
def test_data_sets_and_loaders_too(data):
    size = {} if isinstance(data, DataLoader) else {"batch_size": 16}
    found, expected = (vi.fit(m, AutoNormal, data=data, steps=10, **size) for m in (by_scale, by_plate))
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-5)


def test_the_likelihood_of_rows_is_not_scaled():
    fit, expected = (vi.fit(m, AutoNormal, data=(X, Y), batch_size=20, steps=20) for m in (by_both, by_plate))
    one, other = (vi.diagnostics.loo(each, num_draws=200) for each in (fit, expected))
    assert one.elpds.tolist() == pytest.approx(other.elpds.tolist(), rel=1e-5)
    new = fit.predict(50, data=(X[:7], None))["y"]
    assert torch.equal(new, expected.predict(50, data=(X[:7], None))["y"])


def test_several_plates_of_the_rows_are_no_riddle_if_the_program_scales_them():
    assert vi.check(in_two_plates, AutoNormal, data=(X, Y), batch_size=20).ok


def test_a_fit_is_saved_and_loaded(tmp_path):
    fit = vi.fit(by_scale, AutoNormal, data=(X, Y), batch_size=20, steps=10)
    fit.save(tmp_path / "fit")
    loaded = vi.load(tmp_path / "fit", by_scale, AutoNormal)
    assert fit.resume(10).losses.tolist() == loaded.resume(10).losses.tolist()


# --- latents of rows


def local(scales, latent_too):
    def model(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        factor = N / len(x) if scales else 1.0
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=factor if latent_too else 1.0):
                z = pyro.sample("z", dist.Normal(w, 1.0))
            with poutine.scale(scale=factor):
                pyro.sample("y", dist.Normal(z * x, 0.5), obs=y)

    return model


def amortized(scales):
    def guide(x, y):
        pyro.sample("w", dist.Normal(pyro.param("w_loc", torch.tensor(0.1)), 0.3))
        with pyro.plate("data", len(x)), poutine.scale(scale=N / len(x) if scales else 1.0):
            pyro.sample("z", dist.Normal(pyro.param("slope", torch.tensor(0.5)) * y, 0.4))

    return guide


@pytest.mark.parametrize("guide_scales", [False, True])
@pytest.mark.parametrize("latent_too", [False, True])
def test_log_q_of_latents_of_rows_is_scaled_with_log_p(guide_scales, latent_too):
    found = vi.fit(local(True, latent_too), amortized(guide_scales), data=(X, Y), batch_size=20, steps=20)
    expected = vi.fit(local(False, False), amortized(False), data=(X, Y), batch_size=20, steps=20)
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-5)


def test_an_automatic_guide_of_latents_of_rows():
    found, expected = (
        vi.fit(local(scales, scales), AutoNormal, data=(X, Y), batch_size=20, steps=20) for scales in (True, False)
    )
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-5)


# --- what is wrong is caught


def whole_model(x, y):
    poutine.scale(by_scale, scale=N / len(x))(x, y, len(x))


def mean_of_the_batch(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with poutine.scale(scale=N / len(x)):
        pyro.sample("y", dist.Normal(w * x.mean(), 0.5), obs=y.mean())


def constant(x, y):
    by_scale(x, y, 3.0 * len(x))


def one_of_two(x, y):
    by_scale(x, y)
    pyro.sample("x", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1), obs=x)


def latents_in_no_plate(x, y):
    with poutine.scale(scale=N / len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
        pyro.sample("y", dist.Normal(z, 0.5).to_event(1), obs=y)


WRONG = {
    "of other data": (lambda x, y: by_scale(x, y, 100), ("'y'", "by 5 in", "N/B is 3", "poutine.scale(scale=60 / len(x))")),
    "of other data, in a plate": (lambda x, y: by_both(x, y, 100), ("'y'", "by 5 in", "N/B is 3", "poutine.scale(scale=60 /")),
    "upside down": (lambda x, y: by_scale(x, y, len(x) ** 2 / N), ("'y'", "0.333", "N/B is 3")),
    "constant": (constant, ("'y'", "by 3 whatever the number", "poutine.scale(scale=60 / len(x))")),
    "around the prior": (whole_model, ("'w' is scaled by N/B = 3", "around the statements of the rows alone")),
    "of a mean": (mean_of_the_batch, ("'y'", "not the sum", "no mean")),
    "of one site of two": (one_of_two, ("'x' changes with the minibatch", "not scaled by N/B = 3", "same poutine.scale")),
    "of latents in no plate": (latents_in_no_plate, ("latent site 'z'", "pyro.plate")),
    "no factor": (lambda x, y: by_scale(x, y, len(x)), ("'y'", "in no plate")),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_factor_is_named(name):
    model, words = WRONG[name]
    check = vi.check(model, AutoNormal, data=(X, Y), batch_size=20)
    assert [type(error) for error in check.errors] == [PlateError], str(check)
    for word in words:
        assert word in str(check.errors[0])


def test_a_constant_factor_beside_a_plate_that_scales_is_warned_of():
    check = vi.check(lambda x, y: by_both(x, y, 3.0 * len(x)), AutoNormal, data=(X, Y), batch_size=20)
    assert check.ok
    assert [type(warning) for warning in check.warnings] == [ProgramWarning]
    assert "twice" in str(check.warnings[0])


def test_a_factor_that_changes_by_itself_is_the_users_own():
    calls = []

    def annealed(x, y):
        calls.append(1)
        poutine.scale(by_plate, scale=min(1.0, 0.1 + 0.01 * len(calls)))(x, y)

    assert vi.check(annealed, AutoNormal, data=(X, Y), batch_size=20).ok


# --- pyro.contrib.gp


def sparse_process(likelihood=None):
    torch.manual_seed(0)
    kernel = gp.kernels.RBF(input_dim=1, lengthscale=torch.tensor(0.3))
    return gp.models.VariationalSparseGP(
        X, Y, kernel, Xu=torch.linspace(0.0, 1.0, 6), likelihood=likelihood or gp.likelihoods.Gaussian(torch.tensor(0.1)),
        num_data=N, whiten=True, jitter=1e-4,
    )  # fmt: skip


def programs_of(process):
    def model(x, y):
        process.set_data(x, y)
        return process.model()

    return model, lambda x, y: process.guide()


def test_a_sparse_variational_process_is_trained_on_batches():
    process = sparse_process()
    model, guide = programs_of(process)
    check = vi.check(model, guide, data=(X, Y), batch_size=20)
    assert check.ok
    assert not check.warnings
    fit = vi.fit(model, guide, data=(X, Y), batch_size=20, steps=300, optim=pyro.optim.Adam({"lr": 0.02}))
    found = fit.elbo(500)
    fit.to_pyro()
    process.set_data(X, Y)
    losses = torch.tensor([Trace_ELBO().loss(process.model, process.guide) for _ in range(500)])
    assert abs(found.value + losses.mean()) < 4 * (found.se**2 + losses.var() / 500) ** 0.5
    pyro.clear_param_store()


@pytest.mark.parametrize("likelihood", [gp.likelihoods.Binary, lambda: gp.likelihoods.MultiClass(3)])
def test_likelihoods_that_draw_by_themselves_are_trained(likelihood):
    process = sparse_process(likelihood())
    labels = (Y > 0).float()
    if not isinstance(process.likelihood, gp.likelihoods.Binary):
        process.latent_shape = torch.Size([3])
        process.u_loc = torch.nn.Parameter(torch.zeros(3, 6))
        process.u_scale_tril = pyro.nn.PyroParam(torch.eye(6).repeat(3, 1, 1), dist.constraints.lower_cholesky)
    model, guide = programs_of(process)
    fit = vi.fit(model, guide, data=(X, labels), batch_size=20, steps=10)
    assert all(value.isfinite().all() for value in fit.params.values())


@pytest.mark.parametrize("make", [
    lambda kernel: gp.models.GPRegression(X, Y, kernel, noise=torch.tensor(0.1)),
    lambda kernel: gp.models.SparseGPRegression(X, Y, kernel, Xu=torch.linspace(0.0, 1.0, 6), noise=torch.tensor(0.1)),
    lambda kernel: gp.models.VariationalGP(X, Y, kernel, gp.likelihoods.Gaussian(torch.tensor(0.1)), jitter=1e-3),
], ids=["GPRegression", "SparseGPRegression", "VariationalGP"])  # fmt: skip
def test_models_of_all_rows_are_trained_as_in_pyro_and_refused_in_batches(make):
    torch.manual_seed(0)
    process = make(gp.kernels.RBF(input_dim=1, lengthscale=torch.tensor(0.3)))
    model, guide = programs_of(process)
    fit = vi.fit(model, guide, data=(X, Y), steps=1, optim=pyro.optim.Adam({"lr": 0.0}))
    pyro.clear_param_store()
    losses = [Trace_ELBO().loss(process.model, process.guide) for _ in range(200)]
    assert abs(fit.losses[0] - torch.tensor(losses).mean()) <= 5 * torch.tensor(losses).std() + 1e-2
    assert not vi.check(model, guide, data=(X, Y), batch_size=20).ok
    pyro.clear_param_store()


def test_the_drop_in_takes_the_steps_of_pyro_on_the_same_batches():
    runs = []
    for kind in (pyro.infer.SVI, vi.SVI):
        pyro.clear_param_store()
        process = sparse_process()
        svi = kind(process.model, process.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
        pyro.set_rng_seed(1)
        losses = []
        for i in range(30):
            rows = torch.arange(i % 3, N, 3)
            process.set_data(X[rows], Y[rows])
            losses.append(svi.step())
        runs.append(losses)
    assert runs[0] == pytest.approx(runs[1], rel=1e-4, abs=1e-3)
    pyro.clear_param_store()
