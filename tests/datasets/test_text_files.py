import csv
import gzip
import json
import sys

import numpy as np
import pandas as pd
import pytest

from vipack.datasets import TextRules, load_texts
from vipack.errors import DataError, DataWarning, MissingExtraError, UsageError

RULES = TextRules(stop_words=frozenset(), min_documents=1, max_fraction=1.0)
TEXTS = ["ape bee", "bee, cat\nand bee", 'the "dog"']
COUNTS = [[0, 1, 1, 0, 0, 0], [1, 0, 2, 1, 0, 0], [0, 0, 0, 0, 1, 1]]


@pytest.fixture
def save(tmp_path):
    def save(name, content):
        content = content.encode() if isinstance(content, str) else content
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return save


def rows(delimiter=","):
    import io

    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["id", "body"], *([f"t{i}", text] for i, text in enumerate(TEXTS))])
    return out.getvalue()


def test_a_folder_of_texts_is_read_with_its_folders(save, tmp_path):
    for name, text in zip(["b/x.txt", "b/y.txt", "c.txt", "note.md"], [*TEXTS, "left out"], strict=True):
        save(f"docs/{name}", text)
    corpus = load_texts(tmp_path / "docs", rules=RULES, licence="CC0")
    assert corpus.titles == ("b/x.txt", "b/y.txt", "c.txt")
    np.testing.assert_array_equal(corpus.counts[:, 1:].toarray(), np.array(COUNTS)[:, 1:])
    assert (corpus.name, corpus.licence) == ("docs", "CC0")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
def test_a_column_of_a_table_is_read(save, name):
    path = save(name, rows("\t" if "tsv" in name else ","))
    corpus = load_texts(path, field="body", title="id", rules=RULES)
    assert corpus.titles == ("t0", "t1", "t2")
    assert corpus.vocabulary == ("and", "ape", "bee", "cat", "dog", "the")
    np.testing.assert_array_equal(corpus.counts.toarray(), COUNTS)


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.jsonl.gz"])
def test_a_field_of_json_lines_is_read(save, name):
    lines = [json.dumps({"body": text, "id": f"t{i}"}) for i, text in enumerate(TEXTS)]
    corpus = load_texts(save(name, "\n".join([lines[0], "", *lines[1:], ""])), field="body", rules=RULES)
    assert corpus.titles == ("1", "3", "4")
    np.testing.assert_array_equal(corpus.counts.toarray(), COUNTS)


def test_texts_longer_than_the_csv_module_allows_are_read(save):
    before = csv.field_size_limit()
    path = save("t.csv", "body\n" + "ape " * 50_000 + "\nbee\n")
    assert load_texts(path, field="body", rules=RULES).num_tokens == 50_001
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty; expected at least one document"),
        ("t.csv", "id,body\n", "has a header but no rows"),
        ("t.csv", "id,text\n1,ape\n", "line 2: has no field 'body'; it has 'id', 'text'"),
        ("t.csv", 'id,body\n"1\n2",ape\n1,ape,bee\n', "line 4: 3 fields, expected the 2 of the header"),
        ("t.csv", "id,body\n1\n", "line 2: 1 fields, expected the 2"),
        ("t.csv", 'id,body\n1,"ape\n', "line 2: unexpected end of data"),
        ("t.csv", "body,body\n1,2\n", "line 1: a column occurs twice"),
        ("t.jsonl", "\n \n", "is empty"),
        ("t.jsonl", '{"body": "ape"}\n{"body": ape}\n', "line 2: is not JSON .* at character 10"),
        ("t.jsonl", '{"body": "ape"}\n["ape"]\n', "line 2: found a JSON list, expected an object"),
        ("t.jsonl", '{"body": "ape"}\n{"title": "x", "n": 1}\n', "line 2: has no field 'body'; it has 'title', 'n'"),
        ("t.jsonl", '{"body": null}\n', "line 1: field 'body' holds None, expected a text"),
        ("t.csv", b"id,body\n1,caf\xe9\n", r"is not UTF-8: byte 0xe9 at position 13 \(line 2\)"),
        ("t.xlsx", "PK", "files ending in '.xlsx' are not read"),
        ("t", "ape", "files ending in 'nothing' are not read"),
        ("t.gz", "ape", "are not read"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_line(save, name, content, message):
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        load_texts(save(name, content), field="body", rules=RULES)


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "no files"), (["a.md", "b.html", "c"], "only files with .html, .md, no suffix")],
)
def test_a_folder_without_texts_is_refused(tmp_path, save, names, message):
    (tmp_path / "docs").mkdir()
    for name in names:
        save(f"docs/{name}", "ape")
    with pytest.raises(DataError, match=f"docs: has no .txt files .{message}"):
        load_texts(tmp_path / "docs")


def test_a_text_that_is_not_utf8_is_named(save, tmp_path):
    save("docs/good.txt", "ape")
    save("docs/bad.txt", b"ape\xff")
    with pytest.raises(DataError, match=r"bad.txt: is not UTF-8: byte 0xff at position 3"):
        load_texts(tmp_path / "docs")


def test_the_field_is_asked_for_with_the_names_there_are(save, tmp_path):
    with pytest.raises(UsageError, match=r"say which field of .*t.csv holds the texts; it has 'id', 'body'"):
        load_texts(save("t.csv", rows()))
    with pytest.raises(UsageError, match="is a folder"):
        load_texts(tmp_path, field="body")


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing: no such file"):
        load_texts(tmp_path / "nothing", field="body")


# --- metadata, encodings and long files


def test_other_columns_are_metadata_and_numbers_are_numbers(save):
    path = save("t.csv", 'year,text,party,note,id\n1999,ape bee,left,,07\n,bee,,"",8\n2007,cat,right,,9\n')
    metadata = load_texts(path, title="id", rules=RULES).metadata
    assert list(metadata.columns) == ["year", "party", "note"]
    assert metadata["year"].tolist()[::2] == [1999, 2007]
    assert metadata["year"].dtype == float
    assert metadata.isna().sum().to_dict() == {"year": 1, "party": 1, "note": 3}
    assert metadata["party"].tolist()[::2] == ["left", "right"]


def test_fields_that_some_lines_lack_are_missing_there(save):
    path = save("t.jsonl", '{"text": "ape", "id": 3, "year": 1}\n{"text": "bee", "id": 5, "tags": ["x"]}\n')
    corpus = load_texts(path, title="id", rules=RULES)
    assert corpus.titles == ("3", "5")
    assert corpus.metadata["year"].tolist()[0] == 1
    assert corpus.metadata["tags"].tolist()[1] == ["x"]
    assert corpus.metadata.isna().sum().to_dict() == {"year": 1, "tags": 1}


def test_documents_without_words_lose_their_metadata_too(save):
    path = save("t.jsonl", '{"text": "ape", "n": 1}\n{"text": "  ", "n": 2}\n{"text": "bee", "n": 3}\n')
    with pytest.warns(DataWarning, match="t.jsonl: 1 of 3 documents have no word left.*'2'"):
        corpus = load_texts(path, rules=RULES)
    assert corpus.metadata["n"].tolist() == [1, 3]


def test_the_beginnings_of_texts_are_kept_on_request(save, tmp_path):
    corpus = load_texts(save("t.csv", rows()), field="body", title="id", rules=RULES, keep_text=7)
    assert corpus.metadata.to_dict("list") == {"body": ["ape bee", "bee, ca", 'the "do']}
    save("docs/x.txt", "ape bee")
    assert load_texts(tmp_path / "docs", rules=RULES, keep_text=3).metadata["text"].tolist() == ["ape"]
    assert load_texts(tmp_path / "docs", rules=RULES).metadata is None
    with pytest.raises(UsageError, match="keep_text"):
        load_texts(tmp_path / "docs", keep_text=-1)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252", "utf-8-sig", "UTF8"])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.csv.gz", "docs/t.txt"])
def test_other_encodings_are_read_when_named(save, tmp_path, name, encoding):
    texts = {"csv": "body\ncafé zoë\n", "json": '{"body": "café zoë"}\n', "txt": "café zoë"}
    path = save(name, next(text for kind, text in texts.items() if kind in name).encode(encoding))
    folder = name.endswith("txt")
    corpus = load_texts(
        path.parent if folder else path, field=None if folder else "body", rules=RULES, encoding=encoding
    )
    assert corpus.vocabulary == ("café", "zoë")


def test_a_bad_byte_far_into_a_file_is_named_by_position_and_line(save):
    line = '{"body": "naïve ape"}\n'.encode()
    for lines, ending in ((0, "t.jsonl"), (9_000, "t.jsonl"), (9_000, "t.jsonl.gz")):
        path = save(ending, line * lines + b'{"body": "caf\xe9"}\n')
        position = len(line) * lines + 13
        with pytest.raises(
            DataError, match=rf"byte 0xe9 at position {position} \(line {lines + 1}\).*encoding='latin-1'"
        ):
            load_texts(path, field="body")
    with pytest.raises(DataError, match=r"is not UTF-8: byte 0xc3 at position 13 \(line 1\)"):
        load_texts(save("t.jsonl", b'{"body": "caf\xc3'), field="body")


def test_an_encoding_that_is_none_is_refused(save):
    for encoding in ("latin", "hex", ""):
        with pytest.raises(UsageError, match="encoding: expected one of Python's"):
            load_texts(save("t.csv", rows()), field="body", encoding="x" + encoding if encoding != "hex" else "hex")


def test_a_damaged_gzip_file_is_named(save, tmp_path):
    path = save("t.csv.gz", rows() * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t.csv.gz: is a damaged or truncated gzip file"):
        load_texts(path, field="body", rules=RULES)


def test_a_parquet_file_is_read_with_its_types(tmp_path):
    pytest.importorskip("pyarrow")
    days = pd.to_datetime(["2001-01-01", "2002-01-01", "2003-01-01"])
    table = pd.DataFrame({"body": TEXTS, "id": ["x", "y", "z"], "day": days, "n": [1, 2, 3]})
    table.to_parquet(path := tmp_path / "t.parquet")
    corpus = load_texts(path, field="body", title="id", rules=RULES)
    assert corpus.titles == ("x", "y", "z")
    np.testing.assert_array_equal(corpus.counts.toarray(), COUNTS)
    assert corpus.metadata["n"].tolist() == [1, 2, 3]
    assert corpus.metadata["day"].tolist() == list(days)
    with pytest.raises(DataError, match=r"t.parquet: row 1: has no field 'boddy'; it has 'body', 'id', 'day', 'n'"):
        load_texts(path, field="boddy")
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"t.parquet: is not a readable Parquet file"):
        load_texts(path, field="body")


def test_a_parquet_file_names_the_extra_that_it_needs(save, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"t.parquet: .*pip install 'vipack\[data\]'"):
        load_texts(save("t.parquet", "PAR1"), field="body")


def test_a_folder_of_tables_says_that_one_may_be_named(save, tmp_path):
    save("docs/t.csv", rows())
    with pytest.raises(DataError, match=r"only files with .csv.*or give the path of one file"):
        load_texts(tmp_path / "docs")


@pytest.mark.parametrize(("separator", "name"), [(";", "t.csv"), ("\t", "t.csv"), (",", "t.tsv"), ("\t", "t.CSV")])
def test_tables_of_other_separators_are_read(save, name, separator):
    corpus = load_texts(save(name, rows(separator)), field="body", title="id", rules=RULES)
    assert corpus.titles == ("t0", "t1", "t2")
    np.testing.assert_array_equal(corpus.counts.toarray(), COUNTS)


def test_a_comma_in_the_header_is_the_separator_whatever_else_is_there(save):
    path = save("t.csv", "id,body;text\n1,ape;bee\n")
    assert load_texts(path, field="body;text", rules=RULES).vocabulary == ("ape", "bee")
