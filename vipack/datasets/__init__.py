"""Named data sets, each with its source and licence, and loaders for data of one's own."""

from vipack.cache import cache_folder
from vipack.datasets.builtin import digits, eight_schools
from vipack.datasets.corpus import Corpus
from vipack.datasets.count_files import load_lda_c, load_matrix_market
from vipack.datasets.mnist_files import mnist
from vipack.datasets.standard_library import docstrings
from vipack.datasets.stopwords import stop_words_of
from vipack.datasets.tables import Images, Table
from vipack.datasets.text_files import load_texts
from vipack.datasets.words import TextRules, corpus_from_texts

__all__ = [
    "Corpus",
    "Images",
    "Table",
    "TextRules",
    "cache_folder",
    "corpus_from_texts",
    "digits",
    "docstrings",
    "eight_schools",
    "load_lda_c",
    "load_matrix_market",
    "load_texts",
    "mnist",
    "stop_words_of",
]
