import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from tests.plots import fits
from vipack import plots
from vipack.errors import UsageError


def falling(level: float, start: float, steps: int = 1_000) -> np.ndarray:
    return level + start * np.exp(-np.arange(steps) / 50) + np.random.default_rng(0).normal(size=steps)


def test_a_fit_is_drawn_with_its_losses_their_mean_and_why_it_stopped(render):
    fit = fits.glm()
    ax = plots.losses(fit, window=5)
    assert isinstance(ax, Axes)
    raw, mean = ax.lines[:2]
    np.testing.assert_array_equal(raw.get_xdata(), np.arange(1, 31))
    np.testing.assert_array_equal(raw.get_ydata(), fit.losses)
    np.testing.assert_allclose(mean.get_ydata()[10], fit.losses[8:13].mean())
    np.testing.assert_allclose(mean.get_ydata()[0], fit.losses[:3].mean())
    assert str(fit.stopped) in ax.get_title(loc="left")
    render(ax)


def test_labels_name_the_unit_and_the_window():
    ax = plots.losses(falling(30, 100), window=25)
    assert ax.get_xlabel() == "step"
    assert "nats" in ax.get_ylabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["each step", "mean of 25 steps"]


def test_given_axes_are_used(own_axes):
    (ax,) = own_axes()
    assert plots.losses(falling(30, 100), ax) is ax


@pytest.mark.parametrize("level", [30.0, -1_200.0, 5e5])
def test_the_scale_shows_where_the_loss_settles(level):
    ax = plots.losses(falling(level, 3_000))
    low, high = ax.get_ylim()
    assert ax.get_yscale() == "linear"
    assert low < level - 2
    assert level + 2 < high < level + 1_000


def test_orders_of_magnitude_need_a_logarithmic_scale_on_which_all_is_seen(render):
    losses = 30 + 1e6 * np.exp(-np.arange(2_000) / 200)
    ax = plots.losses(losses)
    low, high = ax.get_ylim()
    assert ax.get_yscale() == "symlog"
    assert low <= losses.min()
    assert high >= losses[200:].max()
    render(ax)


def test_the_last_mean_is_written_beside_the_curve():
    ax = plots.losses(np.full(100, -1234.5))
    assert [text.get_text() for text in ax.texts] == ["−1,234 nats"]


def test_gaps_are_not_bridged(render):
    values = falling(30, 100, steps=200)
    values[[50, 51, 120]] = [np.nan, np.inf, -np.inf]
    ax = plots.losses(values, window=11)
    for line in ax.lines[:2]:
        assert list(np.flatnonzero(np.isnan(line.get_ydata()))) == [50, 51, 120]
    np.testing.assert_allclose(ax.lines[1].get_ydata()[49], np.mean(np.r_[values[44:50], values[52:55]]))
    render(ax)


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0, 3.0], np.array([5, 4, 3]), torch.tensor([5.0, 4.0])])
def test_short_constant_and_whole_losses_are_drawn(values, render):
    ax = plots.losses(values)
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), np.asarray(values, dtype=float))
    render(ax)


@pytest.mark.parametrize("values", [[], [np.nan, np.inf], [[1.0, 2.0]], ["a"], None])
def test_what_is_no_loss_is_refused(values):
    with pytest.raises(UsageError, match="losses: expected"):
        plots.losses(values)


@pytest.mark.parametrize("window", [0, -1, 4])
def test_window_out_of_range_is_refused(window):
    with pytest.raises(UsageError, match=r"window: expected 1 to 3 steps, found"):
        plots.losses([3.0, 2.0, 1.0], window=window)


def test_axes_of_another_kind_are_refused():
    with pytest.raises(UsageError, match="ax: expected a matplotlib Axes, found str"):
        plots.losses([1.0], "here")
