import numpy as np
import pytest
import torch

from tests.plots import fits
from vipack import plots
from vipack.diagnostics import diagnose, importance
from vipack.errors import UsageError

LOG_WEIGHTS = 1.2 * np.random.default_rng(0).normal(size=1_000)


def lines(ax) -> dict:
    return {str(line.get_label()): line for line in ax.lines}


@pytest.mark.parametrize("factor", [1.0, 4.0], ids=["light tail", "weights that are cut"])
def test_title_tells_khat_and_ess_of_diagnostics(factor, render):
    judged = importance(factor * LOG_WEIGHTS)
    ax = plots.khat(factor * LOG_WEIGHTS)
    assert ax.get_title(loc="left") == f"k-hat {judged.khat:.2f}"
    assert ax.get_title(loc="right") == f"ESS {judged.ess:,.0f} of 1,000 draws"
    render(ax)


def test_draws_tail_fit_and_limit_are_drawn():
    drawn = lines(plots.khat(LOG_WEIGHTS))
    khat = importance(LOG_WEIGHTS).khat
    assert list(drawn) == ["draws", "largest 95", f"fitted Pareto, k = {khat:.2f}", "limit, k = 0.7"]
    weights = np.exp(LOG_WEIGHTS)
    everything = np.r_[drawn["draws"].get_xdata(), drawn["largest 95"].get_xdata()]
    np.testing.assert_allclose(everything, np.sort(weights / weights.mean()))
    shares = drawn["largest 95"].get_ydata()
    np.testing.assert_allclose(shares, (np.arange(95)[::-1] + 0.5) / 1_000)


def test_the_fit_falls_faster_than_the_limit_where_the_guide_is_good():
    good, bad = lines(plots.khat(0.3 * LOG_WEIGHTS)), lines(plots.khat(4 * LOG_WEIGHTS))
    for drawn, faster in ((good, True), (bad, False)):
        fit, limit = (line for label, line in drawn.items() if "k = " in label)
        at = min(len(fit.get_ydata()), len(limit.get_ydata())) - 1
        assert (fit.get_ydata()[at] < limit.get_ydata()[at]) == faster


def test_a_fit_is_drawn_with_the_figures_of_its_verdict(render):
    fit = fits.glm()
    found = diagnose(fit.posterior, num_draws=500, seed=2, chains=False, modes=False)
    ax = plots.khat(fit, num_draws=500, seed=2)
    assert ax.get_title(loc="left") == f"k-hat {found.khat:.2f}"
    assert ax.get_title(loc="right") == f"ESS {found.ess:,.0f} of 500 draws"
    drawn = lines(ax)
    assert {"fitted Pareto", "of 3 more sets"} <= set(drawn)
    assert not [label for label in drawn if "k = " in label and "limit" not in label]  # one k-hat: the title's
    render(ax)


def test_where_each_row_has_its_own_weights_there_is_a_khat_for_each(render):
    fit = fits.rows()
    table = fit.posterior.draws(500, seed=0).row_log_weights
    ax = plots.khat(fit, num_draws=500, seed=0)
    drawn = lines(ax)
    points = {}
    for label in ("below 0.7", "0.7 or above"):
        points.update(zip(drawn[label].get_xdata(), drawn[label].get_ydata(), strict=True))
    expected = [importance(table[:, row]).khat for row in range(9)]
    np.testing.assert_allclose([points[row] for row in range(9)], expected)
    assert ax.get_title(loc="right") == "9 rows"
    render(ax)


def test_of_many_rows_500_are_shown_and_it_is_said():
    ax = plots.khat(np.random.default_rng(0).normal(size=(30, 1_000)))
    assert ax.get_title(loc="right") == "500 of 1,000 rows"


@pytest.mark.parametrize(
    "log_weights",
    [np.zeros(100), np.zeros(1), np.arange(5), torch.tensor([0.0, -np.inf, np.nan] * 20), -1e4 * np.arange(100.0)],
    ids=["constant", "one draw", "few", "forbidden draws", "one draw outweighs all"],
)
def test_weights_without_a_tail_are_drawn_and_it_is_said(log_weights, render):
    ax = plots.khat(log_weights)
    assert ax.get_title(loc="left") == "no tail to fit"
    render(ax)


def test_rows_without_weights_are_left_out(render):
    table = np.random.default_rng(0).normal(size=(100, 3))
    table[:, 1] = -np.inf
    ax = plots.khat(table)
    assert sum(len(lines(ax)[label].get_xdata()) for label in ("below 0.7", "0.7 or above")) == 2
    render(ax)


def test_given_axes_are_used(own_axes):
    (ax,) = own_axes()
    assert plots.khat(LOG_WEIGHTS, ax) is ax
    assert "importance weight" in ax.get_xlabel()


@pytest.mark.parametrize("values", [[], [-np.inf], [np.nan], [np.inf, 0.0], 3.0, np.zeros((2, 2, 2))])
def test_what_are_no_weights_is_refused(values):
    with pytest.raises(UsageError, match=r"log weights: expected shape \(S,\)"):
        plots.khat(values)
