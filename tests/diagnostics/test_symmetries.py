"""Copies that a posterior has by symmetry are counted exactly, and none is claimed where there is no symmetry."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import vipack as vi
from vipack.diagnostics.elsewhere import copies_of
from vipack.types import Verdict

GENERATOR = torch.Generator().manual_seed(0)
APART = torch.where(torch.rand(200, generator=GENERATOR) < 0.35, -6.0, 6.0) + torch.randn(200, generator=GENERATOR)
SQUARED = 4 + 0.5 * torch.randn(100, generator=GENERATOR)


def mixture(y):
    w = pyro.sample("w", dist.Beta(1.0, 1.0))
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample(
            "y", dist.MixtureSameFamily(dist.Categorical(torch.stack([w, 1 - w], -1)), dist.Normal(mu, 1.0)), obs=y
        )


def square(x):
    t = pyro.sample("t", dist.Normal(0.0, 5.0))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(t**2, 0.5), obs=x)


def four(y):
    w = pyro.sample("w", dist.Dirichlet(torch.ones(4)))
    with pyro.plate("component", 4):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 0.5))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.MixtureSameFamily(dist.Categorical(w), dist.Normal(mu, sigma)), obs=y)


def factors(y):
    loadings = pyro.sample("loadings", dist.Normal(0.0, torch.tensor([3.0, 1.0])).expand([3, 2]).to_event(2))
    with pyro.plate("row", len(y)):
        scores = pyro.sample("scores", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("y", dist.Normal(scores @ loadings.mT, 0.5).to_event(1), obs=y)


def rotated(y):
    loadings = pyro.sample("loadings", dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(3), loadings @ loadings.mT + 0.2 * torch.eye(3)), obs=y)


def near(name, value):
    """Close to a value of a site."""
    if name == "w":
        return dist.Dirichlet(2_000 * value)
    if name == "sigma":
        return dist.LogNormal(value.log(), 0.02)
    return dist.Normal(value, 0.05).to_event(value.dim() if name == "loadings" else 1 if name == "scores" else 0)


def copies_at(model, data, in_plate=(), **centres):
    """Of a guide that draws closely around given values, those of `in_plate` in their plate."""
    centres = {name: torch.as_tensor(value) for name, value in centres.items()}

    def guide(*_):
        for name in [name for name in centres if name not in in_plate]:
            distribution = near(name, centres[name])
            pyro.sample(name, distribution.to_event(1) if name == "mu" else distribution)
        if in_plate:
            with pyro.plate("component" if model is four else "row", len(centres[in_plate[0]])):
                for name in in_plate:
                    pyro.sample(name, near(name, centres[name]))

    fit = vi.fit(model, guide, data=data, steps=0)
    copies, why = copies_of(fit.posterior, fit.posterior.draws(1_000).latents, {})
    assert copies is not None, why
    return copies


def test_a_fit_of_two_components_stands_for_one_of_two_modes_and_the_evidence_has_log_2_more():
    right, left = (APART > 0).sum(), (APART < 0).sum()
    means, sds = (
        torch.stack([APART[APART > 0].mean(), APART[APART < 0].mean()]),
        torch.stack([right, left]).rsqrt(),
    )

    def guide(_):  # nearly exact, where no value can come from either component
        pyro.sample("w", dist.Beta(1.0 + right, 1.0 + left))
        pyro.sample("mu", dist.Normal(means, sds).to_event(1))

    fit = vi.fit(mixture, guide, data=APART, steps=0)
    diagnosis = fit.diagnose(1_000)
    assert diagnosis.verdict is Verdict.TRUST
    assert str(diagnosis).startswith("TRUST within one of 2 equal modes (relabelling of w, mu)")
    assert diagnosis.evidence.value - diagnosis.elbo.value - diagnosis.gap == pytest.approx(math.log(2))
    assert "within one of 2 equal modes" in fit.summary(100).columns.name
    assert "within one of 2 equal modes" in fit.summary(100).attrs["draws"]


def test_the_evidence_of_a_square_is_that_by_quadrature():
    t = torch.linspace(-3.0, 3.0, 60_001, dtype=torch.float64)
    log_p = dist.Normal(0.0, 5.0).log_prob(t) + dist.Normal(t[:, None] ** 2, 0.5).log_prob(SQUARED.double()).sum(1)
    exact = float(torch.logsumexp(log_p, 0) + math.log(1e-4))
    root = float(SQUARED.mean().sqrt())

    def guide(_):
        pyro.sample("t", dist.Normal(root, 0.05 / (2 * root)))

    diagnosis = vi.fit(square, guide, data=SQUARED, steps=0).diagnose(1_000)
    assert diagnosis.within == "within one of 2 equal modes (sign of t)"
    assert abs(diagnosis.evidence.value - exact) < 0.02


def test_four_components_have_24_labellings():
    y = torch.tensor([-12.0, -4.0, 4.0, 12.0]).repeat_interleave(torch.tensor([20, 40, 60, 80]))
    y = y + torch.randn(200, generator=GENERATOR)
    copies = copies_at(
        four, y, w=[0.1, 0.2, 0.3, 0.4], mu=[-12.0, -4.0, 4.0, 12.0], sigma=[1.0] * 4, in_plate=("mu", "sigma")
    )
    assert (copies.count, copies.sites) == (24, ("w", "mu", "sigma"))
    assert len(copies.moves) == 24


def test_the_signs_of_two_factors_make_four_copies():
    scores = torch.randn(20, 2, generator=GENERATOR)
    loadings = torch.tensor([[3.0, 0.0], [2.0, 1.0], [-1.0, 1.0]])
    copies = copies_at(factors, scores @ loadings.mT, loadings=loadings, scores=scores, in_plate=("scores",))
    assert (copies.count, copies.sites) == (4, ("loadings", "scores"))


def test_rotations_are_a_continuum_and_are_named():
    loadings = torch.tensor([[3.0, 0.0], [2.0, 1.0], [-1.0, 1.0]])
    copies = copies_at(rotated, torch.randn(20, 2, generator=GENERATOR) @ loadings.mT, loadings=loadings)
    assert copies.count == 1
    assert copies.broken.startswith("the posterior is unchanged by rotations of loadings")


def test_a_symmetry_of_the_prior_that_data_break_is_not_claimed():
    def ordered(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
        pyro.sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)

    assert copies_at(ordered, torch.tensor([-6.0, 6.0]), mu=[-6.0, 6.0]).count == 1


def test_draws_on_both_sides_of_a_symmetry_are_no_copy():
    def spread():
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.factor("nothing", torch.zeros(()))

    def guide():
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    fit = vi.fit(spread, guide, data=(), steps=0)
    diagnosis = fit.diagnose(1_000)
    assert (diagnosis.verdict, diagnosis.within) == (Verdict.TRUST, "")


def test_draws_that_hold_a_symmetric_region_in_part_are_not_certified():
    def square_near_zero(y):
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(t**2, 0.6), obs=y)

    def guide(_):
        pyro.sample("t", dist.Normal(0.7, 0.45))

    diagnosis = vi.fit(square_near_zero, guide, data=torch.tensor(0.6), steps=0).diagnose(1_000)
    assert diagnosis.verdict is Verdict.DISTRUST


def test_a_fit_of_one_mode_compares_with_one_of_both():
    def both(_):
        mixing = dist.Categorical(torch.ones(2))
        pyro.sample("t", dist.MixtureSameFamily(mixing, dist.Normal(torch.tensor([-2.0, 2.0]), 0.0125)))

    def one(_):
        pyro.sample("t", dist.Normal(2.0, 0.0125))

    fits = {
        name: vi.fit(square, guide, data=torch.full((100,), 4.0), steps=0)
        for name, guide in (("one", one), ("both", both))
    }
    table = vi.compare(fits, num_draws=1_000, repeats=1, chains=False)
    assert table["copies"].to_dict() == {"one": 2, "both": 1}
    assert abs(table.loc["one", "elbo"] - table.loc["both", "elbo"]) < 0.02
    assert abs(table.loc["one", "evidence"] - table.loc["both", "evidence"]) < 0.02


def test_no_symmetry_is_claimed_of_a_regression():
    x = torch.randn(50, 3, generator=GENERATOR)

    def regression(x, y):
        beta = pyro.sample("beta", dist.Normal(0.0, 5.0).expand([3]).to_event(1))
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)

    data = (x, x @ torch.tensor([1.0, -1.0, 2.0]) + torch.randn(50, generator=GENERATOR))

    def guide(*_):
        pyro.sample("beta", dist.Normal(torch.tensor([1.0, -1.0, 2.0]), 0.1).to_event(1))
        pyro.sample("sigma", dist.LogNormal(0.0, 0.1))

    fit = vi.fit(regression, guide, data=data, steps=0)
    copies, _ = copies_of(fit.posterior, fit.posterior.draws(1_000).latents, {})
    assert (copies.count, copies.broken) == (1, "")


def triangular(y):
    """Two factors with loadings in one vector, zero above the diagonal: the signs of both are free."""
    rows, columns = torch.tril_indices(4, 2)
    free = pyro.sample("loadings", dist.Normal(torch.zeros(7), 1.0).to_event(1))
    loadings = torch.zeros(4, 2).index_put((rows, columns), free)
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(4), loadings @ loadings.mT + 0.25 * torch.eye(4)), obs=y)


def test_modes_suggest_symmetries_that_no_regular_set_of_flips_holds():
    loadings = torch.tensor([[1.0, 0.0], [0.8, 0.5], [-0.6, 0.7], [0.5, -0.9]])
    generator = torch.Generator().manual_seed(4)
    noise = [torch.randn(200, size, generator=generator) for size in (2, 4)]
    y = noise[0] @ loadings.mT + 0.5 * noise[1]
    fit = vi.fit(triangular, data=y, seed=0)
    found = fit.diagnose()
    assert found.copies.count == 4, str(found)
    assert found.verdict is Verdict.TRUST
    both = vi.fit(triangular, data=y, seed=0, symmetric="all")
    signs = both.sample(2_000, seed=0)["loadings"][:, [0, 2]].sign()
    assert [
        float((signs == torch.tensor(pair)).all(1).double().mean()) for pair in itertools.product((1.0, -1.0), repeat=2)
    ] == pytest.approx([0.25] * 4, abs=0.04)


def test_components_that_are_kept_in_order_have_no_copies():
    def ordered(y):
        mu = pyro.sample("mu", dist.ImproperUniform(dist.constraints.ordered_vector, (), (2,)))
        pyro.factor("mu_prior", dist.Normal(0.0, 10.0).log_prob(mu).sum())
        w = pyro.sample("w", dist.Beta(1.0, 1.0))
        with pyro.plate("row", len(y)):
            share = dist.Categorical(torch.stack([w, 1 - w]))
            pyro.sample("y", dist.MixtureSameFamily(share, dist.Normal(mu, 1.0)), obs=y)

    found = vi.fit(ordered, data=APART, seed=0).diagnose()
    assert found.copies.count == 1, str(found)
    assert found.verdict is Verdict.TRUST
