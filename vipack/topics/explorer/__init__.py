"""One page that shows a topic model: its map, words, documents and covariates."""

from vipack.topics.explorer.explore import Explorer, explore
from vipack.topics.explorer.pyldavis_inputs import to_pyldavis

__all__ = ["Explorer", "explore", "to_pyldavis"]
