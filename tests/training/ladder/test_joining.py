"""Modes that matter end in one guide, with the masses that they have; copies on request."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import vipack as vi
from vipack.errors import UsageError


def two_bumps():
    """Normal bumps at -10 and 90 of different widths, with 70% and 30% of the mass."""
    prior = dist.Normal(torch.zeros(2, dtype=torch.float64), 50.0).to_event(1)
    z = pyro.sample("z", prior)
    first = dist.Normal(torch.tensor([-10.0, 0.0]).double(), torch.tensor([1.0, 2.0]).double()).to_event(1).log_prob(z)
    second = dist.Normal(torch.tensor([90.0, 5.0]).double(), 0.7).to_event(1).log_prob(z)
    pyro.factor("bumps", torch.logaddexp(first + math.log(0.7), second + math.log(0.3)) - prior.log_prob(z))


def square(x):
    t = pyro.sample("t", dist.Normal(0.0, 5.0))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(t**2, 0.5), obs=x)


def weighted(y):
    """Two components whose weights are simplex probabilities."""
    w = pyro.sample("w", dist.Dirichlet(torch.ones(2)))
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.MixtureSameFamily(dist.Categorical(w), dist.Normal(mu, 1.0)), obs=y)


X = torch.full((50,), 4.0, dtype=torch.float64)


def test_two_modes_that_are_no_copies_are_joined_with_their_masses(tmp_path):
    fit = vi.fit(two_bumps, data=())
    assert [stage.kept for stage in fit.stages if stage.name == "mixture"] == [True]
    assert abs(fit.elbo().value) < 0.01  # the log evidence is 0
    assert abs(float((fit.sample(4_000)["z"][:, 0] > 40).double().mean()) - 0.3) < 0.03
    assert fit.posterior.ends is not None
    fit.save(tmp_path / "fit")
    again = vi.load(tmp_path / "fit", two_bumps)
    assert again.elbo(seed=1) == fit.elbo(seed=1)


def test_one_mode_needs_no_mixture():
    def one():
        pyro.sample("z", dist.Normal(torch.tensor(3.0).double(), 1.0))
        pyro.factor("nothing", torch.zeros(()))

    assert "mixture" not in [stage.name for stage in vi.fit(one, data=()).stages]


@pytest.mark.parametrize(
    ("model", "data", "site"),
    [(square, X, "t"), (weighted, torch.cat([X[:20] - 10, X[:30]]) + torch.linspace(-1, 1, 50).double(), "mu")],
)
def test_copies_are_joined_on_request_and_gain_the_log_of_their_number(model, data, site, tmp_path):
    one, both = vi.fit(model, data=data), vi.fit(model, data=data, symmetric="all")
    assert abs(both.elbo().value - one.elbo().value - math.log(2)) < 0.02
    side = both.sample(2_000)[site].reshape(2_000, -1)[:, 0]
    assert abs(float((side > side.mean()).double().mean()) - 0.5) < 0.05
    both.save(tmp_path / "fit")
    assert vi.load(tmp_path / "fit", model).elbo(seed=1) == both.elbo(seed=1)


def test_copies_are_refused_of_a_guide_of_the_users():
    with pytest.raises(UsageError, match="only a fit without a guide"):
        vi.fit(square, data=X, steps=10, symmetric="all")
    with pytest.raises(UsageError, match='expected "one" or "all"'):
        vi.fit(square, data=X, symmetric="both")


@pytest.mark.slow
def test_a_mixture_of_modes_that_are_no_normals_is_trained():
    """Its draws have no mirror images."""

    def skewed():
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 60.0).to_event(1))
        left, right = dist.Gumbel(-20.0, 1.0), dist.Gumbel(20.0, 2.0)
        bumps = torch.stack([left.log_prob(z).sum(-1), right.log_prob(z).sum(-1)]).logsumexp(0)
        pyro.factor("bumps", bumps - dist.Normal(0.0, 60.0).log_prob(z).sum(-1))

    fit = vi.fit(skewed, data=(), seed=0, progress=False)
    (stage,) = [stage for stage in fit.stages if stage.name == "mixture"]
    assert stage.kept, str(fit.stages)
    assert stage.steps > 0
    assert float((fit.sample(4_000)["z"][:, 0] < 0).double().mean()) == pytest.approx(0.5, abs=0.05)
