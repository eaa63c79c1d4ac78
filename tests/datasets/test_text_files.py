import csv
import gzip
import json

import numpy as np
import pytest

from vipack.datasets import TextRules, load_texts
from vipack.errors import DataError, UsageError

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
        ("t.csv", "body,body\n1,2\n", "line 1: a column stands twice"),
        ("t.jsonl", "\n \n", "is empty"),
        ("t.jsonl", '{"body": "ape"}\n{"body": ape}\n', "line 2: is not JSON .* at character 10"),
        ("t.jsonl", '{"body": "ape"}\n["ape"]\n', "line 2: found a JSON list, expected an object"),
        ("t.jsonl", '{"body": "ape"}\n{"title": "x", "n": 1}\n', "line 2: has no field 'body'; it has 'title', 'n'"),
        ("t.jsonl", '{"body": null}\n', "line 1: field 'body' holds None, expected a text"),
        ("t.csv", b"id,body\n1,caf\xe9\n", r"is not UTF-8: byte 0xe9 at position 13 \(line 2\)"),
        ("t.parquet", "PAR1", "files ending in '.parquet' are not read"),
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
