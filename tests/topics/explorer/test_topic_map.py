import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from vipack.topics.explorer.topic_map import divergences, plane


def test_divergences_are_scipys():
    topics = np.random.default_rng(0).dirichlet(np.full(30, 0.2), 6)
    topics[0, :10] = 0
    topics /= topics.sum(1, keepdims=True)
    expected = [[jensenshannon(p, q) ** 2 for q in topics] for p in topics]
    np.testing.assert_allclose(divergences(topics), expected, atol=1e-12)


def test_three_topics_lie_in_a_plane_with_their_distances():
    squared = divergences(np.random.default_rng(1).dirichlet(np.ones(9), 3))
    points, fraction = plane(squared)
    found = ((points[:, None] - points[None]) ** 2).sum(-1)
    np.testing.assert_allclose(found, squared, atol=1e-12)
    assert fraction == pytest.approx(1)


def test_square_roots_of_divergences_are_euclidean_distances():
    squared = divergences(np.random.default_rng(2).dirichlet(np.full(40, 0.1), 12))
    centred = squared - squared.mean(0) - squared.mean(1, keepdims=True) + squared.mean()
    assert np.linalg.eigvalsh(-centred).min() > -1e-12
    assert 0 < plane(squared)[1] < 1


@pytest.mark.parametrize("count", [1, 2])
def test_few_topics_have_points_too(count):
    points, fraction = plane(divergences(np.eye(4)[:count]))
    assert points.shape == (count, 2)
    assert fraction == pytest.approx(1)
    assert np.isfinite(points).all()


def test_equal_topics_lie_on_one_point():
    points, fraction = plane(divergences(np.full((4, 5), 0.2)))
    assert np.abs(points).max() < 1e-7
    assert np.isfinite(fraction)
