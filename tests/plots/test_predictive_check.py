import numpy as np
import pytest
import torch

from tests.plots import fits
from vipack import plots
from vipack.errors import UsageError


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_each_observed_site_has_a_panel_of_its_kind(render):
    axes = plots.predictive(fits.glm(), num_draws=20)
    assert [ax.get_title(loc="left") for ax in axes] == ["size", "count", "label"]
    assert labels(axes[0]) == ["20 replicated data sets", "observed"]
    assert labels(axes[1]) == labels(axes[2]) == ["observed", "20 replicates, 90%"]
    render(axes)


def test_measurements_have_a_density_for_each_replicated_data_set_and_the_observed():
    (ax,) = plots.predictive(fits.glm(), "size", num_draws=20)
    *replicated, observed, rug = ax.lines
    assert len(replicated) == 20
    assert observed.get_label() == "observed"
    assert all(np.isfinite(line.get_ydata()).all() for line in ax.lines)
    np.testing.assert_array_equal(rug.get_xdata(), fits.glm().posterior.observed["size"])


def test_counts_have_the_observed_shares_with_replicated_means():
    replicated = fits.glm().posterior.predictive(30, seed=4)["label"].numpy()
    (ax,) = plots.predictive(fits.glm(), "label", num_draws=30, seed=4)
    assert [bar.get_height() for bar in ax.patches] == [0.5, 0.5]
    (points,) = (line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(points.get_xdata(), [0, 1])
    np.testing.assert_allclose(points.get_ydata(), [1 - replicated.mean(), replicated.mean()], rtol=1e-5)


def test_masked_observations_are_left_out():
    (ax,) = plots.predictive(fits.masked(), num_draws=10)
    np.testing.assert_array_equal(ax.lines[-1].get_xdata(), [1, 2, 3, 4])
    assert ax.get_xlim()[1] < 100


def test_arrays_alone_are_enough(own_axes, render):
    rng = np.random.default_rng(0)
    mine = own_axes(2)
    drawn = {"x": rng.normal(size=(5, 30, 2)), "n": torch.tensor(rng.poisson(200, size=(5, 30))), "unseen": [1.0]}
    seen = {"x": rng.normal(size=(30, 2)), "n": rng.poisson(200, size=30).astype(np.uint8)}
    axes = plots.predictive(drawn, observed=seen, axes=mine)
    assert list(axes) == mine
    assert "bins of" in axes[1].get_xlabel()
    heights = [bar.get_height() for bar in axes[1].patches]
    assert sum(heights) == pytest.approx(1)
    render(axes)


@pytest.mark.parametrize(
    ("drawn", "seen"),
    [
        (np.random.default_rng(0).normal(size=(50, 1)), [0.3]),
        (np.zeros((4, 3)), [0.5, 0.5, 0.5]),
        (np.ones((1, 3)), [1, 1, 1]),
        (np.array([[True, False]]), [True, True]),
        ([1.5], 2.5),
    ],
    ids=["one observation", "constant", "one constant draw", "truth values", "scalars"],
)
def test_small_and_constant_data_are_drawn(drawn, seen, render):
    (ax,) = plots.predictive({"x": drawn}, observed={"x": seen})
    for line in ax.lines:
        assert np.isfinite(np.asarray(line.get_xydata(), dtype=float)).all()
    render(ax)


def test_an_unknown_site_is_refused_by_name_with_those_there_are():
    with pytest.raises(UsageError, match=r"no 'w' among the observed sites: 'size', 'count', 'label'"):
        plots.predictive(fits.glm(), "w")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": {"x": [1.0]}}, "observed: give the observed data"),
        ({"source": {"x": [1.0]}, "observed": {"y": [1.0]}}, "nothing to draw"),
        ({"source": {"x": [1.0]}, "observed": {"y": [1.0]}, "names": "x"}, "no 'x' among the sites observed and"),
        ({"source": {"x": [[np.nan]]}, "observed": {"x": [1.0]}}, "draws of 'x': NaN or infinity"),
        ({"source": {"x": [[1.0]]}, "observed": {"x": [np.inf]}}, "site 'x': NaN or infinity in the observed"),
        ({"source": {"x": [[1.0]]}, "observed": {"x": []}}, "site 'x': nothing is observed"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        plots.predictive(**arguments)


def test_a_fit_is_not_told_what_it_observed():
    with pytest.raises(UsageError, match="a fit knows its own observed data"):
        plots.predictive(fits.glm(), observed={"size": [1.0]})
