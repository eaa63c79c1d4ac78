"""`vipack topics --stream`: the same answer from the disk."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from tests.cli.test_topic_fitting import FILES, THEMES, speeches
from vipack.cli import main, topic_streaming
from vipack.datasets import TextRules, counts_on_disk, load_texts
from vipack.datasets.counts_on_disk import count_on_disk
from vipack.errors import DataWarning
from vipack.topics import LDA


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    speeches(300).to_csv("speeches.csv", index=False)
    monkeypatch.setattr(topic_streaming, "_BATCH", 64)
    return tmp_path


def test_topics_tables_and_a_page_come_from_the_disk(folder, capsys):
    options = ["--num-topics", "3", "--title", "name", "--covariates", "theme", "--out", "out", "--stream"]
    assert main(["topics", "speeches.csv", *options]) == 0
    shown = capsys.readouterr()
    assert sorted(path.name for path in (folder / "out").iterdir()) == FILES
    assert "300 documents, 18 words, 9,000 tokens" in shown.err
    assert re.search(r"pass \d+ of 40, bound -\d", shown.err)
    best = pd.read_csv("out/top_words.csv").groupby("topic").head(6).groupby("topic")["word"].apply(set)
    assert sorted(map(sorted, best)) == sorted(sorted(theme.split()) for theme in THEMES.values())
    documents = pd.read_csv("out/documents.csv")
    assert list(documents.columns) == ["title", "theme", "topic 0", "topic 1", "topic 2"]
    assert documents["title"].tolist() == speeches(300)["name"].tolist()
    assert documents.groupby("theme").mean(numeric_only=True).max(axis=1).min() > 0.8
    loaded = LDA.load("out/model.pt")
    corpus = load_texts("speeches.csv", title="name")
    assert loaded.vocabulary_ == corpus.vocabulary
    np.testing.assert_allclose(loaded.transform(corpus), documents.iloc[:, 2:].to_numpy(), atol=1e-5)
    page = (folder / "out" / "explorer.html").read_text(encoding="utf-8")
    assert speeches(300)["text"][0][:60] in page


def test_counts_on_the_disk_are_those_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(counts_on_disk, "_AT_ONCE", 7)
    monkeypatch.setattr(counts_on_disk, "_NEIGHBOURS", 4)
    generator = np.random.default_rng(0)
    words = [f"w{'x' * i}" for i in range(3, 40)]
    texts = [" ".join(generator.choice(words, int(n), p=np.arange(37.0) / 666)) for n in generator.poisson(6, 100)]
    texts[3], texts[99] = "1 2 3", ""
    rules = TextRules(min_documents=3, max_fraction=0.4, max_words=20, ngrams=(1, 2))
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with pytest.warns(DataWarning, match="no word left"):
        corpus = load_texts(path, rules=rules)
    stored = count_on_disk(texts, tmp_path, rules)
    assert stored.vocabulary == corpus.vocabulary
    assert stored.num_tokens == corpus.num_tokens
    assert [str(text + 1) for text in stored.kept] == list(corpus.titles)
    np.testing.assert_array_equal(stored.rows(np.arange(stored.num_documents)).toarray(), corpus.counts.toarray())
    some = np.array([5, 3, 4, 50])
    np.testing.assert_array_equal(stored.rows(some).toarray(), corpus.counts[some].toarray())
    batches = [batch.toarray() for batch in stored.batches(30, generator)]
    assert sorted(map(tuple, np.concatenate(batches))) == sorted(map(tuple, corpus.counts.toarray()))
    assert sum(len(batch) for batch in batches) == stored.num_documents


def test_what_streams_cannot_do_is_said(folder, capsys):
    assert main(["topics", "speeches.csv", "--stream", "--prevalence", "theme", "--out", "out"]) == 2
    assert "--prevalence needs all texts in memory" in capsys.readouterr().err
    assert main(["topics", "speeches.csv", "--stream", "--max-fraction", "0.01", "--out", "out"]) == 2
    assert "loosen these limits" in capsys.readouterr().err
    assert not list((folder / "out").iterdir())


def test_rows_with_other_fields_lose_none(folder, capsys):
    rows = [{"text": text, **({"year": i} if i > 20 else {})} for i, text in enumerate(speeches(60)["text"])]
    rows.insert(5, {"text": "1 2"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--stream", "--steps", "2", "--num-topics", "3", "--out", "out", "--quiet"]
    assert main(["topics", "rows.jsonl", *options]) == 0
    documents = pd.read_csv("out/documents.csv")
    assert documents["title"].tolist() == [i for i in range(1, 62) if i != 6]
    assert documents["year"].dropna().tolist() == list(range(21, 60))
    assert capsys.readouterr().err == "vipack: warning: rows.jsonl: 1 of 61 texts have no word left and are left out.\n"
