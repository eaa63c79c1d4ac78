import gzip

import pytest

from vipack.datasets.reading import existing_file, read_names, read_text, unzipped
from vipack.errors import DataError


def test_gzipped_and_plain_files_read_alike(tmp_path):
    (tmp_path / "plain").write_bytes(b"text")
    (tmp_path / "packed").write_bytes(gzip.compress(b"text"))
    assert unzipped(tmp_path / "plain") == unzipped(str(tmp_path / "packed")) == b"text"


def test_a_byte_order_mark_is_dropped(tmp_path):
    (tmp_path / "f").write_bytes("\ufeffcafé".encode())
    assert read_text(tmp_path / "f") == "café"


def test_bytes_that_are_not_utf8_are_named_by_position_and_line(tmp_path):
    (tmp_path / "f").write_bytes("one\ntwo caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"f: is not UTF-8: byte 0xe9 at position 11 \(line 2\).*iconv"):
        read_text(tmp_path / "f")


@pytest.mark.parametrize("cut", [slice(0, 30), slice(0, 12), slice(0, 3)])
def test_a_truncated_gzip_file_is_refused(tmp_path, cut):
    (tmp_path / "f.gz").write_bytes(gzip.compress(bytes(range(256)) * 4)[cut])
    with pytest.raises(DataError, match=r"f.gz: is a damaged or truncated gzip file.*fetch it again"):
        unzipped(tmp_path / "f.gz")


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nothing: no such file; check the path"):
        existing_file(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"is a folder, expected a file"):
        existing_file(tmp_path)


def test_names_come_from_a_sequence_or_a_file(tmp_path):
    (tmp_path / "f").write_text("ape\nbee \r\n\n")
    assert read_names("words", tmp_path / "f") == read_names("words", ["ape", "bee"]) == ("ape", "bee")


@pytest.mark.parametrize(
    ("text", "message"), [("", "f: is empty; expected the words"), ("ape\n\nbee", "f: line 2 is empty")]
)
def test_files_of_names_without_names_are_refused(tmp_path, text, message):
    (tmp_path / "f").write_text(text)
    with pytest.raises(DataError, match=message):
        read_names("words", tmp_path / "f")
