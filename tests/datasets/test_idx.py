import gzip
import struct

import numpy as np
import pytest

from vipack.datasets.idx import read_idx
from vipack.errors import DataError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("array", [ARRAY, ARRAY[0, 0]], ids=["images", "labels"])
def test_the_array_comes_back(tmp_path, array, pack):
    (tmp_path / "f").write_bytes(pack(idx(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "f", array.ndim), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing, expected 00 00 08 03"),
        (b"PNG.", "starts with 50 4e 47 2e, expected 00 00 08 03"),
        (idx(ARRAY[0, 0]), "starts with 00 00 08 01, expected .* images and labels may be mixed up"),
        (b"\0\0\x0d\3" + idx(ARRAY)[4:], "starts with 00 00 0d 03"),
        (idx(ARRAY)[:10], "has 10 bytes, expected a whole header"),
        (idx(ARRAY)[:-1], r"has 39 bytes, expected 24 bytes after the header for shape \(2, 3, 4\)"),
        (idx(ARRAY) + b"x", "has 41 bytes, expected 24 bytes after the header"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(DataError, match=f"f: {message}"):
        read_idx(tmp_path / "f", 3)
