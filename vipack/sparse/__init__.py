"""Counts of which few are not zero: passes over their rows in C++, and distributions of bags of words.

Imports the engine's native room for its cache, and its graphs' room for operators that captured steps are made of.
"""

from vipack.sparse.bag_of_words import BagOfWords
from vipack.sparse.log_linear_bag_of_words import LogLinearBagOfWords

__all__ = ["BagOfWords", "LogLinearBagOfWords"]
