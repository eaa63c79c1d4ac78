"""Fits side by side."""

import math

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal

import vipack as vi
from tests.diagnostics import gaussian

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 0.9], [0.0, 0.5]])
Y = X @ torch.tensor([1.0, -1.0]) + 0.5 * torch.randn(40, generator=torch.Generator().manual_seed(1))


def model(x, y):
    b = pyro.sample("b", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * b).sum(-1), 0.5), obs=y)


@pytest.fixture(scope="module")
def fits():
    loss = Trace_ELBO(num_particles=20, vectorize_particles=True, max_plate_nesting=1)
    guides = {"mean-field": AutoNormal, "full-rank": AutoMultivariateNormal, "point": AutoDelta}
    return {name: vi.fit(model, guide, data=(X, Y), steps=500, loss=loss) for name, guide in guides.items()}


@pytest.fixture(scope="module")
def table(fits):
    return vi.compare({name: fits[name] for name in ("mean-field", "full-rank")})


def test_the_columns(table):
    assert isinstance(table, pd.DataFrame)
    expected = (
        "rank", "elbo", "elbo_se", "elbo_diff", "diff_se", "diff_khat", "evidence", "evidence_se", "khat", "ess", "verdict",
        "certified", "copies", "seconds", "stopped",
    )  # fmt: skip
    assert tuple(table.columns) == expected
    assert table.index.name == "fit"
    assert table["verdict"].tolist()[0] == "TRUST"
    assert table["verdict"].tolist()[1] != "TRUST"
    assert (table["seconds"] > 0).all()


def test_the_best_comes_first(table):
    assert list(table.index) == ["full-rank", "mean-field"]
    assert table["rank"].tolist() == [0, 1]
    assert table["elbo"].is_monotonic_decreasing
    assert table.loc["full-rank", ["elbo_diff", "diff_se"]].tolist() == [0.0, 0.0]


def test_the_figures_are_those_of_the_fits(table, fits):
    for name in table.index:
        found = fits[name].diagnose()
        row = table.loc[name]
        assert (row["elbo"], row["elbo_se"]) == (found.elbo.value, found.elbo.se)
        assert (row["evidence"], row["khat"], row["ess"]) == (found.evidence.value, found.khat, found.ess)
        assert row["seconds"] == fits[name].seconds
        assert row["stopped"] == fits[name].stopped.reason.value


def test_differences_are_paired(table, fits):
    sets = [[fits[name].log_weights(4_000, seed=seed).numpy() for seed in range(4)] for name in table.index]
    best, other = map(np.concatenate, sets)
    below = best - other
    assert table.loc["mean-field", "elbo_diff"] == pytest.approx(below.mean())
    assert table.loc["mean-field", "diff_se"] == pytest.approx(below.std(ddof=1) / math.sqrt(16_000))


def test_the_difference_is_the_divergence_between_the_families(table):
    """The full-rank guide is exact, and the best mean-field one lacks -log(1 - rho**2) / 2 of the evidence."""
    precision = X.T.double() @ X.double() / 0.25 + torch.eye(2, dtype=torch.float64) / 4
    squared = float(precision[0, 1] ** 2 / (precision[0, 0] * precision[1, 1]))
    row = table.loc["mean-field"]
    assert row["elbo_diff"] == pytest.approx(-0.5 * math.log(1 - squared), abs=4 * row["diff_se"] + 0.01)


def test_one_fit_and_the_same_fit_twice(fits):
    assert len(vi.compare({"only": fits["full-rank"]})) == 1
    twice = vi.compare({"a": fits["full-rank"], "b": fits["full-rank"]})
    assert twice["elbo_diff"].tolist() == [0.0, 0.0]
    assert twice["diff_se"].tolist() == [0.0, 0.0]
    assert twice["diff_khat"].tolist() == [0.0, 0.0]


def test_a_point_guide_is_compared_without_a_verdict_in_its_favour(fits):
    table = vi.compare(fits, num_draws=500)
    assert table.loc["point", "verdict"] == "DISTRUST"
    assert np.isfinite(table["elbo"]).all()


def test_a_seed_decides_the_table(fits):
    pd.testing.assert_frame_equal(vi.compare(fits, num_draws=200, seed=3), vi.compare(fits, num_draws=200, seed=3))
    assert (
        vi.compare(fits, num_draws=200, seed=4).loc["mean-field", "elbo"]
        != vi.compare(fits, num_draws=200).loc["mean-field", "elbo"]
    )


def test_fits_of_different_data_are_warned_about(fits):
    other = vi.fit(model, AutoNormal, data=(X, Y + 1), steps=5)
    with pytest.warns(vi.errors.DataWarning, match=r"'full-rank' and 'other' saw different data"):
        vi.compare({"full-rank": fits["full-rank"], "other": other}, num_draws=100)


def test_the_same_data_in_batches_or_from_numpy_are_the_same(fits):
    batches = vi.fit(model, AutoNormal, data=(X, Y), batch_size=10, steps=5)
    arrays = vi.fit(model, AutoNormal, data=(X.numpy(), Y.numpy()), steps=5)
    vi.compare({"full-rank": fits["full-rank"], "batches": batches, "arrays": arrays}, num_draws=100)


@pytest.mark.parametrize(
    ("fits", "words"),
    [
        ({}, "expected a dict of at least one"),
        ([1, 2], "expected a dict"),
        ({"a": 3}, r"fits\['a'\]: expected a Fit, found int"),
    ],
)
def test_what_cannot_be_compared_is_named(fits, words):
    with pytest.raises(vi.errors.UsageError, match=words):
        vi.compare(fits)


# --- paired standard errors, on guides whose distance is known


def test_the_evidence_of_each_fit_is_the_models(table):
    assert np.ptp(table["evidence"]) < 5 * table["evidence_se"].max() + 0.01


def test_pairing_takes_out_the_noise_that_guides_share():
    fits = {"exact": gaussian.fit_of(factor=1.2), "moved": gaussian.fit_of(shift=0.2, factor=1.2)}
    row = vi.compare(fits, chains=False, modes=False).iloc[1]
    unpaired = math.hypot(row["elbo_se"], row["elbo_se"])
    assert row["diff_se"] < 0.8 * unpaired
    expected = gaussian.divergence(0.2, 1.2) - gaussian.divergence(0.0, 1.2)
    assert row["elbo_diff"] == pytest.approx(expected, abs=4 * row["diff_se"])


def test_differences_that_few_draws_decide_have_a_high_khat():
    """Under a Student-t guide of 1.5 degrees of freedom z**2, and with it log q - log p, has a tail of shape 2 / 1.5."""

    def normal():
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("nothing", torch.zeros(()))

    guides = {
        "exact": dist.Normal(0.0, 1.0),
        "moved": dist.Normal(0.3, 1.1),
        "heavy": dist.StudentT(1.5, 0.0, 1.0),
    }
    fits = {name: vi.fit(normal, lambda q=q: pyro.sample("z", q), data=(), steps=0) for name, q in guides.items()}
    found = vi.compare(fits, chains=False, modes=False)["diff_khat"]
    assert list(found.index) == ["exact", "moved", "heavy"]
    assert found["exact"] == 0
    assert found["moved"] < 0.5
    assert found["heavy"] == pytest.approx(2 / 1.5, abs=4 * (1 + 2 / 1.5) / math.sqrt(3 * math.sqrt(16_000)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"), [((0.0, 1.1), (0.3, 1.1)), ((0.0, 1.3), (0.0, 0.8)), ((0.4, 0.9), (-0.4, 1.1))]
)
def test_paired_errors_cover_the_true_difference_at_their_rate(one, other):
    fits = {"one": gaussian.fit_of(*one), "other": gaussian.fit_of(*other)}
    expected = gaussian.divergence(*other) - gaussian.divergence(*one)  # nats, of ELBO
    covered = []
    for seed in range(300):
        table = vi.compare(fits, num_draws=500, repeats=1, seed=seed, chains=False, modes=False)
        row = table.iloc[1]
        found = row["elbo_diff"] if table.index[1] == "other" else -row["elbo_diff"]
        covered.append(abs(found - expected) < 1.96 * row["diff_se"])
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 300))
