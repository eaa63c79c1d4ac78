"""Arrays in IDX files, the format that MNIST comes in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vipack.datasets.reading import PathLike, unzipped
from vipack.errors import DataError

__all__ = ["read_idx"]

_UNSIGNED_BYTE = 8


def read_idx(path: PathLike, num_dims: int) -> np.ndarray[Any, Any]:
    """The array of unsigned bytes in an IDX file, gzipped or not.

    The file holds two zero bytes, the type (8), the number of dimensions, their sizes as big-endian 32-bit integers,
    and the bytes, last dimension fastest.

    Args:
        num_dims: dimensions that the file must have: 3 for images, 1 for labels.

    Raises:
        DataError: missing, of another kind, truncated, or longer than it says.
    Source: http://yann.lecun.com/exdb/mnist/, "File formats".
    """
    content = unzipped(path)
    header = 4 + 4 * num_dims
    expected = bytes([0, 0, _UNSIGNED_BYTE, num_dims])
    if content[:4] != expected:
        raise DataError(
            f"{path}: starts with {content[:4].hex(' ') or 'nothing'}, expected {expected.hex(' ')} (IDX, unsigned bytes, "
            f"{num_dims} dimensions); images and labels may be mixed up, or this is no IDX file."
        )
    sizes = np.frombuffer(content[4:header], dtype=">u4").tolist() if len(content) >= header else []
    if not sizes or len(content) - header != math.prod(sizes):
        wanted = f"{math.prod(sizes)} bytes after the header for shape {tuple(sizes)}" if sizes else "a whole header"
        raise DataError(
            f"{path}: has {len(content)} bytes, expected {wanted}; it is truncated or damaged, fetch it again."
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(sizes)
