"""Topics as points in the plane: near where they use words alike."""

from __future__ import annotations

import numpy as np
from scipy.special import entr

__all__ = ["divergences", "plane"]


def divergences(topics: np.ndarray) -> np.ndarray:
    """``(K, K)``: Jensen-Shannon divergences between rows of probabilities, in nats, from 0 to log 2."""
    entropy = entr(topics).sum(1)
    result = np.zeros((len(topics), len(topics)))
    for k in range(len(topics) - 1):
        mean = entr((topics[k] + topics[k + 1 :]) / 2).sum(1)
        result[k, k + 1 :] = np.maximum(mean - (entropy[k] + entropy[k + 1 :]) / 2, 0)
    return result + result.T


def plane(squared: np.ndarray) -> tuple[np.ndarray, float]:
    """Classical multidimensional scaling to two dimensions.

    The square root of a Jensen-Shannon divergence is a Euclidean distance, which divergences are the squares of.

    Args:
        squared: ``(K, K)`` squared distances.

    Returns:
        ``(K, 2)`` points, and the fraction of the squared distances that they keep.
    """
    centred = squared - squared.mean(0) - squared.mean(1, keepdims=True) + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    order = np.argsort(-values)[:2]
    points = np.zeros((len(squared), 2))
    points[:, : len(order)] = vectors[:, order] * np.sqrt(np.maximum(values[order], 0))
    # An eigenvector's sign is arbitrary: the point farthest out has a positive coordinate.
    points *= np.where(points[np.abs(points).argmax(0), [0, 1]] < 0, -1, 1)
    total = np.maximum(values, 0).sum()
    return points, float(np.maximum(values[order], 0).sum() / total) if total > 0 else 1.0
