"""A corpus whose topics are known."""

from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse

from tests.plots.conftest import leaves_pyplot_alone, own_axes, render

__all__ = ["leaves_pyplot_alone", "own_axes", "planted", "render"]


class Planted(NamedTuple):
    """Counts drawn from a topic model, with what they were drawn from."""

    counts: scipy.sparse.csr_array
    topics: np.ndarray
    shares: np.ndarray


@pytest.fixture(scope="session")
def planted():
    """120 documents of 60 words from 3 topics over 40 words, one document empty."""
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(40, 0.1), 3)
    shares = rng.dirichlet(np.full(3, 0.4), 120)
    lengths = rng.poisson(60, 120)
    lengths[5] = 0
    counts = np.stack([rng.multinomial(n, theta @ topics) for n, theta in zip(lengths, shares, strict=True)])
    return Planted(scipy.sparse.csr_array(counts.astype(np.float32)), topics, shares)
