import numpy as np
import pytest
import torch

from tests.plots import fits
from vipack import plots
from vipack.errors import UsageError


def titles(axes) -> list[str]:
    return [ax.get_title(loc="left") for ax in axes]


def test_a_fit_has_a_panel_for_each_scalar_of_its_latents(render):
    axes = plots.posterior(fits.glm(), num_draws=200)
    assert titles(axes) == ["w[0]", "w[1]", "w[2]", "scale"]
    render(axes)


def test_panels_show_mean_and_90_percent_interval_of_the_draws():
    draws = fits.glm().sample(400, seed=7)["scale"].numpy()
    (ax,) = plots.posterior(fits.glm().posterior, "scale", num_draws=400, seed=7)
    interval, mean = (
        next(line for line in ax.lines if line.get_label() == label) for label in ("90% interval", "mean")
    )
    np.testing.assert_allclose(interval.get_xdata(), np.quantile(draws, [0.05, 0.95]))
    np.testing.assert_allclose(mean.get_xdata(), [draws.mean()])
    assert ax.get_xlabel().startswith(f"mean {draws.mean():.3g}, 90% ")


def test_deterministic_sites_are_drawn_when_named():
    axes = plots.posterior(fits.glm(), ["scale", "rate"], num_draws=50)
    assert len(axes) == 1
    labels = [text.get_text() for text in axes[0].get_yticklabels()]
    assert labels[:2] == ["scale", "rate[0]"]
    assert len(labels) == 41


def test_many_scalars_share_a_forest_of_means_and_intervals(render):
    values = np.random.default_rng(0).normal(np.arange(20), 1, size=(300, 20))
    (ax,) = plots.posterior({"theta": values})
    mean = next(line for line in ax.lines if line.get_label() == "mean")
    np.testing.assert_allclose(mean.get_xdata(), values.mean(0))
    (wide, narrow) = (np.array([segment[:, 0] for segment in lines.get_segments()]) for lines in ax.collections)
    np.testing.assert_allclose(wide.T, np.quantile(values, [0.05, 0.95], axis=0))
    np.testing.assert_allclose(narrow.T, np.quantile(values, [0.25, 0.75], axis=0))
    assert ax.yaxis_inverted()  # the first on top
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["90% interval", "50% interval", "mean"]
    render(ax)


def test_too_many_scalars_are_thinned_evenly_and_it_is_said():
    (ax,) = plots.posterior({"z": np.random.default_rng(0).normal(size=(20, 100, 16))})
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert len(labels) == 60
    assert (labels[0], labels[-1]) == ("z[0, 0]", "z[99, 15]")
    assert "60 of 1,600 elements" in ax.get_xlabel()


@pytest.mark.parametrize(
    ("values", "summary"),
    [
        (np.array([2.0]), "one draw, 2"),
        (np.full(50, 3.5), "always 3.5"),
        (np.zeros(50), "always 0"),
        (torch.full((9,), -1), "always −1"),
        (np.array([0, 1, 1, 3]), "mean 1.25, 90% 0.15 to 2.7"),
        (np.array([True, False, True]), "mean 0.667, 90% 0.1 to 1"),
        (torch.tensor([0.5, 1.5], dtype=torch.bfloat16), "mean 1, 90% 0.55 to 1.45"),
    ],
)
def test_one_draw_constant_whole_and_truth_valued_draws(values, summary, render):
    (ax,) = plots.posterior({"x": values})
    assert ax.get_xlabel() == summary
    render(ax)


def test_whole_numbers_are_bars_of_their_frequencies():
    (ax,) = plots.posterior({"n": np.array([0, 0, 1, 3])})
    assert [bar.get_height() for bar in ax.patches] == [0.5, 0.25, 0, 0.25]
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches] == pytest.approx([0, 1, 2, 3])


def test_a_point_estimate_is_drawn_as_a_line(render):
    axes = plots.posterior(fits.point(), num_draws=20)
    assert axes[0].get_xlabel().startswith("always ")
    render(axes)


def test_given_axes_are_used(own_axes):
    mine = own_axes(2)
    axes = plots.posterior({"a": np.arange(5.0), "b": np.arange(5.0)}, axes=mine)
    assert list(axes) == mine
    (one,) = own_axes()
    assert plots.posterior({"a": np.random.default_rng(0).normal(size=(9, 30))}, axes=one)[0] is one


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_axes_is_refused(own_axes, count):
    with pytest.raises(UsageError, match=f"axes: expected 2 matplotlib Axes, one for each panel, found {count}"):
        plots.posterior({"a": np.arange(5.0), "b": np.arange(5.0)}, axes=own_axes(count))


def test_an_unknown_site_is_refused_by_name_with_those_there_are():
    with pytest.raises(UsageError, match=r"no 'sigma' among the sites of the posterior: 'w', 'scale', 'rate'"):
        plots.posterior(fits.glm(), ["sigma"])
    with pytest.raises(UsageError, match=r"no 'b' among the draws given: 'a'"):
        plots.posterior({"a": [1.0]}, "b")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "nothing to draw"),
        ({"a": []}, r"draws of 'a': expected shape \(S, \.\.\.\)"),
        ({"a": 3.0}, r"draws of 'a': expected shape \(S, \.\.\.\)"),
        ({"a": ["x"]}, "draws of 'a': expected an array of numbers"),
        ({"a": [1.0, np.nan]}, "draws of 'a': NaN or infinity in 1 of 2"),
        (3, "expected a Posterior or a Fit, found int"),
    ],
)
def test_what_cannot_be_drawn_is_refused(source, message):
    with pytest.raises(UsageError, match=message):
        plots.posterior(source)


@pytest.mark.parametrize("num_draws", [0, -1, 1.5, True])
def test_the_number_of_draws_is_a_positive_integer(num_draws):
    for plot in (plots.posterior, plots.predictive, plots.khat):
        with pytest.raises(UsageError, match="num_draws: expected a positive integer"):
            plot(fits.glm(), num_draws=num_draws)
