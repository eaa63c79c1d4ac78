"""Posterior predictive p-values: features that the model makes, and features that it does not."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import vipack as vi
from vipack.diagnostics import predictive_pvalues

N = 40


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", N):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def exact(y):
    pyro.sample("mu", dist.Normal(y.sum() / (N + 0.01), (N + 0.01) ** -0.5))


def fit_to(y):
    return vi.fit(model, exact, data=torch.as_tensor(y, dtype=torch.float32), steps=0)


STANDARD = np.random.default_rng(0).normal(size=N)


def test_data_of_the_model_have_middling_p_values():
    table = predictive_pvalues(fit_to(STANDARD))
    assert table.index.tolist() == [("y", "mean"), ("y", "sd"), ("y", "min"), ("y", "max")]
    assert table["p"].between(0.02, 0.98).all()
    assert table.loc[("y", "mean"), "observed"] == pytest.approx(STANDARD.mean(), abs=1e-6)
    assert table.loc[("y", "mean"), "p"] == pytest.approx(0.5, abs=4 * 0.5 / 1_000**0.5)  # the mean is fitted exactly


def test_the_predicted_moments_are_those_of_the_predictive_distribution():
    row = predictive_pvalues(fit_to(STANDARD), num_draws=4_000).loc[("y", "mean")]
    assert row["sd"] == pytest.approx((2 / N) ** 0.5, rel=0.06)  # noise of the mean, and of mu


@pytest.mark.parametrize(
    ("change", "statistic", "low"),
    [(lambda y: 3 * y, "sd", True), (lambda y: 0.3 * y, "sd", False), (lambda y: np.append(y[1:], 9.0), "max", True)],
    ids=["too wide", "too narrow", "an outlier"],
)
def test_what_the_model_does_not_make_is_shown(change, statistic, low):
    p = predictive_pvalues(fit_to(change(STANDARD))).loc[("y", statistic), "p"]
    assert p < 0.001 if low else p > 0.999


def test_ties_count_half():
    table = predictive_pvalues(fit_to(STANDARD), {"nothing": lambda y: 0.0})
    assert table.loc[("y", "nothing"), "p"] == 0.5


def test_masked_values_take_no_part():
    def masked(y, seen):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", N):
            pyro.sample("y", dist.Normal(mu, 1.0).mask(seen), obs=y)

    def guide(y, seen):
        pyro.sample("mu", dist.Normal(0.0, 0.2))

    y = torch.as_tensor(np.append(STANDARD[1:], 1e6), dtype=torch.float32)
    seen = torch.arange(N) < N - 1
    table = predictive_pvalues(vi.fit(masked, guide, data=(y, seen), steps=0))
    assert table.loc[("y", "max"), "observed"] < 10


@pytest.mark.parametrize(
    ("statistics", "words"),
    [
        ({}, "statistics: expected a dict"),
        ([np.mean], "statistics: expected a dict"),
        ({"bad": lambda y: y}, r"statistics\['bad'\]: raised TypeError"),
    ],
)
def test_bad_statistics_are_named(statistics, words):
    with pytest.raises(vi.errors.UsageError, match=words):
        predictive_pvalues(fit_to(STANDARD), statistics, num_draws=5)


def test_a_model_that_observes_nothing_is_named():
    def factored():
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("likelihood", torch.zeros(()))

    def guide():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(vi.errors.UsageError, match="observes nothing"):
        predictive_pvalues(vi.fit(factored, guide, data=(), steps=0))
    with pytest.raises(vi.errors.UsageError, match="expected a Posterior or a Fit, found int"):
        predictive_pvalues(3)
