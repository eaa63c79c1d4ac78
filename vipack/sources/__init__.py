"""Rows that lie in files: each kind of file read in ranges of rows, in bounded memory."""

from vipack.sources.iterated import IteratedRows
from vipack.sources.opening import MOST_WHOLE, as_source, is_stored, stream
from vipack.sources.row_source import RowSource

__all__ = ["MOST_WHOLE", "IteratedRows", "RowSource", "as_source", "is_stored", "stream"]
