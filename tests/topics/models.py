"""Topic models whose arrays are known."""

import numpy as np
import scipy.sparse

from vipack.datasets import Corpus


def random_model(num_topics=5, num_words=60, num_documents=40, *, seed=0, vocabulary=None, titles=None):
    """Topics, shares of documents, and a corpus drawn from them."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(num_words, 0.1), num_topics)
    theta = rng.dirichlet(np.full(num_topics, 0.3), num_documents)
    mixed = theta @ topics
    counts = scipy.sparse.csr_array(np.stack([rng.multinomial(50, row / row.sum()) for row in mixed]))
    words = [f"word{i}" for i in range(num_words)] if vocabulary is None else vocabulary
    named = [f"document {i}" for i in range(num_documents)] if titles is None else titles
    return topics, theta, Corpus("random", counts, tuple(words), tuple(named), "random numbers", "CC0")
