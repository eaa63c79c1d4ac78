"""Numbers that go wrong in the middle of a run: the site and step are named and the best finite state is kept."""

import functools
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints
from torch.utils.data import TensorDataset

import vipack as vi
from vipack.errors import DivergenceWarning, ModelError, NonFiniteError, SupportError
from vipack.types import StopReason

X = torch.full((10,), 5.0)
ADAM = pyro.optim.Adam({"lr": 0.01})
SGD = functools.partial(torch.optim.SGD, lr=1e12)


def normal(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def cliff(x):
    """The data pull w to 5, but beyond 1.5 the mean is NaN."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w + 0 * torch.sqrt(1.5 - w), 1.0), obs=x)


def singular(x):
    """Beyond 1.5 the covariance is not positive definite, and its Cholesky factor raises."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    covariance = torch.eye(len(x)) + (w > 1.5) * torch.ones(len(x), len(x)) * -2.0
    pyro.sample("x", dist.MultivariateNormal(w.expand(len(x)), covariance), obs=x)


def steep(x):
    """Beyond 1.5 the loss is finite and its gradient is not."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    edge = torch.sqrt(torch.where(w > 1.5, 0.0 * w, 1.0 + 0.0 * w))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w + 0.0 * edge, 1.0), obs=x)


def narrow(x):
    """The guide draws w almost exactly."""
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1e-4))


def shrinking(x):
    """The scale of the guide falls to zero, since nothing constrains it and the model is nearly flat."""
    scale = pyro.param("scale", torch.tensor(1.0))
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(5.0)), scale))


def sharp(x):
    w = pyro.sample("w", dist.Normal(5.0, 1e-3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1e-3), obs=x)


def diverged(model, guide, steps, **options):
    with pytest.warns(DivergenceWarning) as caught:
        fit = vi.fit(model, guide, data=X, steps=steps, **options)
    assert len(caught) == 1, [str(w.message) for w in caught]
    assert fit.stopped.reason is StopReason.DIVERGED
    assert all(bool(value.isfinite().all()) for value in fit.params.values())
    assert f"at step {fit.steps + 1} " in fit.stopped.detail
    assert fit.stopped.detail in str(caught[0].message)
    assert "lower the learning rate or clip gradients" in str(caught[0].message)
    return fit


@pytest.mark.parametrize("engine", ["eager", "traced"])
@pytest.mark.parametrize("validate", [True, False], ids=["validating", "not validating"])
@pytest.mark.parametrize(
    ("model", "words"),
    [
        (cliff, ("model site 'x'", "loc is [nan")),
        (singular, ("after site 'w'", 'pyro.sample("x"', "positive-definite")),
        (steep, ("gradient of parameter 'loc'", "clip gradients")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_best_finite_state_is_kept(model, words, validate, engine):
    with pyro.validation_enabled(validate):
        fit = diverged(model, narrow, 400, optim=ADAM, engine=engine)
        before = vi.fit(model, narrow, data=X, steps=100, optim=ADAM, engine=engine)
    for word in words:
        assert word in fit.stopped.detail, fit.stopped.detail
    assert 120 < fit.steps < 200  # Adam moves by at most its rate a step
    assert "the parameters are those of step 100" in fit.stopped.detail
    assert torch.equal(fit.params["loc"], before.params["loc"])
    assert torch.equal(torch.tensor(fit.losses[:100]), torch.tensor(before.losses))


@pytest.mark.parametrize("num_steps", [1, 7])
def test_every_loss_is_told_once_wherever_a_call_of_the_engine_ends(num_steps):
    ends = {"callbacks": vi.Every(num_steps, lambda progress: None), "optim": ADAM}
    found, expected = (diverged(cliff, narrow, 400, engine=tier, **ends) for tier in ("traced", "eager"))
    assert len(found.losses) == len(expected.losses) == found.steps
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)


@pytest.mark.parametrize("validate", [True, False], ids=["validating", "not validating"])
def test_a_huge_learning_rate_goes_back_to_the_start(validate):
    with pyro.validation_enabled(validate):
        fit = diverged(normal, AutoNormal, 50, optim=SGD)
        start = vi.fit(normal, AutoNormal, data=X, steps=0, optim=SGD)
    assert re.search("site '(w|w_unconstrained|x)'|parameter 'AutoNormal", fit.stopped.detail)
    assert "those of step 0" in fit.stopped.detail
    assert all(torch.equal(value, start.params[name]) for name, value in fit.params.items())


@pytest.mark.parametrize("validate", [True, False], ids=["validating", "not validating"])
def test_an_unconstrained_scale_that_turns_negative_is_named(validate):
    with pyro.validation_enabled(validate):
        fit = diverged(sharp, shrinking, 400, optim=pyro.optim.Adam({"lr": 0.05}))
    assert "guide site 'w'" in fit.stopped.detail
    assert "its scale is [-" in fit.stopped.detail


def test_a_diverged_fit_can_be_used(tmp_path):
    fit = diverged(cliff, narrow, 400, optim=ADAM)
    assert fit.sample(10)["w"].isfinite().all()
    fit.save(tmp_path / "fit")
    assert vi.load(tmp_path / "fit", cliff, narrow, optim=ADAM).stopped == fit.stopped


def test_the_first_step_has_nothing_to_go_back_to():
    def draws_differ(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.sqrt(w - 3.0), 1.0, validate_args=False), obs=x)

    def sometimes_finite(x):
        """Finite at the preflight's draw alone: its first draw of the generator is the largest."""
        loc = pyro.param("loc", torch.tensor(0.0), constraint=constraints.real)
        calls.append(1)
        pyro.sample("w", dist.Normal(loc + (4.0 if len(calls) <= 3 else 0.0), 1e-3))

    calls: list[int] = []
    with pytest.raises(NonFiniteError, match=r"step 1: .*model site 'x'.*start elsewhere"):
        vi.fit(draws_differ, sometimes_finite, data=X, steps=5)


def stored(values, **options):
    """In a Dataset, of which the preflight sees one batch."""
    return {"data": TensorDataset(values), "batch_size": 5, "steps": 60, "seed": 0, **options}


def test_nan_in_an_unseen_row_of_a_dataset_is_named():
    values = torch.ones(100)
    values[-1] = float("nan")
    with pytest.raises(vi.errors.DataError, match=r"'x' has 1 NaN or infinite value.*observed site 'x'.*impute"):
        vi.fit(normal, AutoNormal, **stored(values))


def test_a_value_outside_the_support_in_an_unseen_row_is_named():
    def coin(x):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(p), obs=x)

    values = torch.ones(100)
    values[-1] = 2.0
    with pytest.raises(
        SupportError, match=r"site 'x': observed value\(s\) \[2\] \(1 of 5, .* are outside the support .* correct"
    ):
        vi.fit(coin, AutoNormal, **stored(values))


def test_a_model_that_raises_in_the_middle_is_quoted():
    def moody(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        if w.item() > 1.5:
            raise LookupError("too far")
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    with pytest.raises(
        ModelError, match=r"LookupError after site 'w', at test_divergence.py:\d+: .raise LookupError.*too far"
    ):
        vi.fit(moody, narrow, data=X, steps=400, optim=ADAM)
