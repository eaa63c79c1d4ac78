"""Where fits disagree, in posterior sds."""

import math

import pyro
import pyro.distributions as dist
import pytest

import vipack as vi
from tests.diagnostics.gaussian import DATA, fit_of, model, off_by
from vipack.diagnostics import disagreement


@pytest.fixture(scope="module")
def table():
    return disagreement({"exact": fit_of(), "moved": fit_of(0.8), "narrow": fit_of(0.0, 0.5)})


def test_the_gap_is_in_posterior_sds_and_the_furthest_comes_first(table):
    first = table.iloc[0]
    assert table.index[0] == "z[0]"
    assert first["mean_gap"] == pytest.approx(0.8, abs=4 * first["gap_se"] + 0.03)
    assert first["highest"] == "moved"
    assert first["sd_ratio"] == pytest.approx(2.0, rel=0.06)
    assert (first["narrowest"], first["widest"]) == ("narrow", first["widest"])
    assert first["gap_se"] == pytest.approx(math.sqrt(2 / 4_000), rel=0.4)


def test_where_the_fits_agree_gaps_are_noise(table):
    rest = table.iloc[1:]
    assert len(rest) == 4
    assert (rest["mean_gap"] < 5 * rest["gap_se"] + 1e-9).all()
    assert (rest["sd_ratio"] < 1.06).all()


def test_weights_take_the_disagreement_away():
    found = disagreement({"exact": fit_of(), "moved": fit_of(0.5)}, weighted=True)
    assert (found["mean_gap"] < 5 * found["gap_se"] + 1e-9).all()


def test_two_guides_of_one_elbo_are_told_apart():
    """Moved to either side: the same ELBO, means a whole sd apart."""
    fits = {"left": fit_of(-0.5), "right": fit_of(0.5)}
    table = vi.compare(fits, chains=False, modes=False)
    assert abs(table["elbo_diff"]).max() < 4 * table["diff_se"].max()
    gap = disagreement(fits).loc["z[0]"]
    assert gap["mean_gap"] == pytest.approx(1.0, abs=0.1)
    assert (gap["lowest"], gap["highest"]) == ("left", "right")


def test_what_cannot_be_compared_is_named():
    with pytest.raises(vi.errors.UsageError, match="at least two to compare, found 1"):
        disagreement({"only": fit_of()})
    with pytest.raises(vi.errors.UsageError, match="expected a dict"):
        disagreement([fit_of(), fit_of()])

    def other(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, 1.0).expand([5]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    fits = {"a": vi.fit(other, guide, data=DATA, steps=0), "b": vi.fit(model, off_by(), data=DATA, steps=0)}
    with pytest.raises(vi.errors.UsageError, match="no latent or deterministic element in common"):
        disagreement(fits)
