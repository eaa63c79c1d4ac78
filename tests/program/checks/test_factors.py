"""Programs that scale a ``pyro.factor`` by N/B in their own numbers: the loss is what Pyro computes, and a forgotten scale is told."""

import pyro
import pyro.distributions as dist
import pytest
from pyro.infer.autoguide import AutoNormal
from torch.utils.data import DataLoader, TensorDataset

import vipack as vi
from tests.program.checks.test_own_scale import X, Y, amortized, by_plate, local
from vipack.errors import PlateError

N = len(X)


def by_factor(x, y, total=N):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.factor("lik", total / len(x) * dist.Normal(w * x, 0.5).log_prob(y).sum())


def by_mean(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.factor("lik", N * dist.Normal(w * x, 0.5).log_prob(y).mean())


def by_rows(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.factor("lik", N / len(x) * dist.Normal(w * x, 0.5).log_prob(y))


def by_rows_unscaled(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.factor("lik", dist.Normal(w * x, 0.5).log_prob(y))


def beside_a_plate(x, y):
    """The half of each row's log density, twice."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    density = dist.Normal(w * x, 0.5).log_prob(y)
    with pyro.plate("data", len(x)):
        pyro.factor("one", density / 2)
    pyro.factor("other", N / len(x) * density.sum() / 2)


def with_a_penalty(x, y):
    """A factor of no rows beside it, which no batch changes."""
    w = pyro.sample("w", dist.Normal(0.0, 2.0))
    pyro.factor("penalty", dist.Normal(0.0, 1.0).log_prob(w) - dist.Normal(0.0, 2.0).log_prob(w))
    pyro.factor("lik", N / len(x) * dist.Normal(w * x, 0.5).log_prob(y).sum())


@pytest.mark.parametrize("batch_size", [1, 25])
@pytest.mark.parametrize("model", [by_factor, by_mean, by_rows, by_rows_unscaled, beside_a_plate, with_a_penalty])
def test_the_losses_are_those_of_a_plate(model, batch_size):
    check = vi.check(model, AutoNormal, data=(X, Y), batch_size=batch_size)
    assert check.ok
    assert not check.warnings
    found, expected = (
        vi.fit(m, AutoNormal, data=(X, Y), batch_size=batch_size, steps=10) for m in (model, by_plate)
    )  # fmt: skip
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-4)


@pytest.mark.parametrize("data", [TensorDataset(X, Y), DataLoader(TensorDataset(X, Y), batch_size=16)], ids=type)
def test_data_sets_and_loaders_too(data):
    size = {} if isinstance(data, DataLoader) else {"batch_size": 16}
    found, expected = (vi.fit(m, AutoNormal, data=data, steps=10, **size) for m in (by_factor, by_plate))
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-4)


@pytest.mark.parametrize("guide", [AutoNormal, amortized(False)], ids=["automatic", "amortized"])
def test_a_factor_of_latents_of_rows(guide):
    def model(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(w, 1.0))
        pyro.factor("lik", N / len(x) * dist.Normal(z * x, 0.5).log_prob(y).sum())

    found = vi.fit(model, guide, data=(X, Y), batch_size=20, steps=10)
    expected = vi.fit(local(False, False), guide, data=(X, Y), batch_size=20, steps=10)
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-4)


def forgotten(x, y):
    by_factor(x, y, len(x))


def constant(x, y):
    by_factor(x, y, 3.0 * len(x))


def forgotten_beside_a_plate(x, y):
    by_plate(x, y)
    pyro.factor("lik", dist.Normal(0.0, 1.0).log_prob(x).sum())


def not_of_rows(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.factor("lik", N / len(x) * dist.Normal(w, 0.5).log_prob(y.sum()))


@pytest.mark.parametrize("model", [forgotten, constant, forgotten_beside_a_plate, not_of_rows])
@pytest.mark.parametrize("batch_size", [1, 20])
def test_a_factor_that_forgot_the_scale_is_told(model, batch_size):
    if model is not_of_rows and batch_size == 1:
        return
    (error,) = vi.check(model, AutoNormal, data=(X, Y), batch_size=batch_size).errors
    assert isinstance(error, PlateError)
    assert "factor 'lik'" in str(error)
    assert "60 / len(x) * log_p.sum()" in str(error)


def test_a_plate_that_scales_by_itself_is_warned_of_a_factor_that_scales_too():
    def twice(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", N, subsample_size=len(x)):
            pyro.factor("lik", N / len(x) * dist.Normal(w * x, 0.5).log_prob(y))

    (warning,) = vi.check(twice, AutoNormal, data=(X, Y), batch_size=20).warnings
    assert "'lik'" in str(warning)


def test_a_fit_by_factors_is_saved_and_loaded(tmp_path):
    fit = vi.fit(by_rows, AutoNormal, data=(X, Y), batch_size=20, steps=10)
    fit.save(tmp_path / "fit")
    assert vi.load(tmp_path / "fit", by_rows, AutoNormal).resume(10).losses.tolist() == fit.resume(10).losses.tolist()
