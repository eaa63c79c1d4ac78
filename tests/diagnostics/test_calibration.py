"""Tests of calibration on places whose distribution is known."""

import numpy as np
import pytest
from scipy import stats

from vipack.diagnostics.calibration import calibration

RNG = np.random.default_rng(0)


def of(places):
    return calibration(("theta",), places[:, None])


def posterior_places(shift=0.0, factor=1.0, count=200, rng=RNG):
    """Where true values fall in a normal guide that is moved by so many posterior sds and has its sd multiplied."""
    return stats.norm.cdf((rng.normal(size=count) - shift) / factor)


def test_the_p_values_are_uniform_for_the_posterior_itself():
    found = [of(posterior_places()) for _ in range(400)]
    for values in ([each.bias[0] for each in found], [each.spread[0] for each in found]):
        assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 400))
        assert np.mean(np.array(values) < 0.5) == pytest.approx(0.5, abs=0.12)  # a walk of 200 steps is coarse


@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_a_shift_is_called_bias(shift):
    assert of(posterior_places(shift)).biased == ("theta",)


@pytest.mark.parametrize(
    ("factor", "misjudged"), [(1.0, {}), (0.5, {"theta": "too narrow"}), (2.0, {"theta": "too wide"})]
)
def test_a_scale_is_called_spread_and_no_bias(factor, misjudged):
    found = of(posterior_places(factor=factor))
    assert found.misjudged == misjudged
    assert not found.biased
    assert found.calibrated is (not misjudged)


def test_the_symmetry_test_agrees_with_random_signs():
    """Its p-value by 20,000 walks of fair coins."""
    places = posterior_places(0.15)
    centred = places - 0.5
    signs = np.sign(centred)[np.argsort(-np.abs(centred))]
    walks = np.abs(RNG.choice([-1.0, 1.0], size=(20_000, 200)).cumsum(1)).max(1)
    expected = np.mean(walks >= np.abs(signs.cumsum()).max())
    assert of(places).bias[0] == pytest.approx(expected, abs=0.05)  # the limit of long walks


def test_many_elements_raise_no_more_alarms_than_one():
    found = [calibration(tuple(map(str, range(20))), RNG.random((200, 20))) for _ in range(100)]
    assert sum(not each.calibrated for each in found) <= 9  # 2 expected


def test_the_histogram_counts_every_fit_once():
    found = of(posterior_places())
    assert found.histogram("theta").sum() == 200
    assert len(found.histogram("theta", bins=7)) == 7


def test_the_text_says_what_is_wrong_where():
    assert str(of(posterior_places())).startswith("calibrated: 200 fits")
    text = str(of(posterior_places(0.6, 0.5)))
    assert text.startswith("NOT calibrated")
    assert "theta: the mean is biased" in text
    assert "theta: the spread is too narrow" in text
