"""`vipack topics`, from files of texts to pages and tables."""

import sys

import numpy as np
import pandas as pd
import pytest

from vipack.cli import main, topic_fitting
from vipack.topics import LDA

THEMES = {
    "sea": "harbour ship sailor anchor wave tide",
    "law": "court judge verdict appeal lawyer trial",
    "farm": "wheat plough barn harvest cattle meadow",
}
FILES = ["corpus.csv", "documents.csv", "explorer.html", "model.pt", "top_words.csv", "topics.csv"]


def speeches(count=60):
    rng = np.random.default_rng(0)
    themes = [list(THEMES)[i % 3] for i in range(count)]
    texts = [" ".join(rng.choice(THEMES[theme].split(), 30)) for theme in themes]
    return pd.DataFrame({"name": [f"speech {i}" for i in range(count)], "theme": themes, "text": texts})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    speeches().to_csv("speeches.csv", index=False)
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Few steps, and no page."""
    monkeypatch.setattr(topic_fitting, "explore", lambda *_, **__: None)
    return ["--steps", "2", "--num-topics", "3", "--out", "out"]


def test_topics_tables_and_a_page_come_from_a_table_of_texts(folder, capsys):
    options = ["--num-topics", "3", "--title", "name", "--covariates", "theme", "--out", "out"]
    assert main(["topics", "speeches.csv", *options]) == 0
    shown = capsys.readouterr()
    assert sorted(path.name for path in (folder / "out").iterdir()) == FILES
    assert "60 documents, 18 words, 1,800 tokens" in shown.err
    assert "written to out: " + ", ".join(FILES) in shown.out

    words = pd.read_csv("out/top_words.csv")
    assert list(words.columns) == ["topic", "word", "mean", "lower", "upper"]
    assert ((words["lower"] <= words["mean"]) & (words["mean"] <= words["upper"])).all()
    best = words.groupby("topic").head(6).groupby("topic")["word"].apply(set)
    assert sorted(map(sorted, best)) == sorted(sorted(theme.split()) for theme in THEMES.values())
    topics = pd.read_csv("out/topics.csv", index_col=0)
    np.testing.assert_allclose(topics["share"], 1 / 3, atol=0.05)

    documents = pd.read_csv("out/documents.csv")
    assert list(documents.columns) == ["title", "theme", "topic 0", "topic 1", "topic 2"]
    assert documents["title"][7] == "speech 7"
    np.testing.assert_allclose(documents.iloc[:, 2:].sum(axis=1), 1, atol=1e-5)
    assert documents.groupby("theme").mean(numeric_only=True).max(axis=1).min() > 0.8
    figures = pd.read_csv("out/corpus.csv", index_col=0)["value"]
    assert figures[["documents", "tokens", "seed"]].tolist() == ["60", "1800", "0"]
    np.testing.assert_allclose(LDA.load("out/model.pt").shares_, documents.iloc[:, 2:].to_numpy(), atol=1e-5)

    page = (folder / "out" / "explorer.html").read_text(encoding="utf-8")
    assert "theme" in page
    assert speeches()["text"][0][:60] in page


def test_the_same_seed_gives_the_same_tables(folder, quick):
    tables = []
    for seed in ("1", "1", "2"):
        assert main(["topics", "speeches.csv", *quick, "--seed", seed, "--quiet"]) == 0
        tables.append((folder / "out" / "top_words.csv").read_text())
    assert tables[0] == tables[1] != tables[2]


def test_nothing_but_the_result_is_said_quietly(folder, quick, capsys):
    assert main(["topics", "speeches.csv", *quick, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_options_reach_the_words(folder, quick):
    (folder / "own.txt").write_text("Harbour\nship\n")
    texts = folder / "docs"
    texts.mkdir()
    for i in range(4):
        (texts / f"{i}.txt").write_text("Harbour ship über AI sea salt".upper(), encoding="latin-1")
    options = ["--encoding", "latin-1", "--stop-words", "own.txt,english", "--ngrams", "2", "--max-fraction", "1"]
    assert main(["topics", "docs", *quick, *options, "--min-letters", "2", "--max-words", "6"]) == 0
    words = set(pd.read_csv("out/top_words.csv")["word"])
    assert len(words) == 6
    assert words <= {"über", "ai", "sea", "salt", "über ai", "ai sea", "sea salt"}
    assert main(["topics", "docs", *quick, "--encoding", "latin-1", "--language", "none", "--max-fraction", "1"]) == 0
    assert "harbour" in set(pd.read_csv("out/top_words.csv")["word"])


def test_topics_that_no_text_is_about_are_named(folder, quick, monkeypatch, capsys):
    def fit(self, corpus):
        result = real(self, corpus)
        result.shares_ = np.eye(3)[[0, 2] * 30]
        return result

    real = LDA.fit
    monkeypatch.setattr(LDA, "fit", fit)
    assert main(["topics", "speeches.csv", *quick]) == 0
    assert "no text is mostly about topic 1; fewer topics (--num-topics) or another --seed" in capsys.readouterr().err


def test_the_page_is_opened_on_request(folder, quick, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(topic_fitting.webbrowser, "open", lambda address: bool(opened.append(address)))
    assert main(["topics", "speeches.csv", *quick, "--open"]) == 0
    assert opened == [(folder / "out" / "explorer.html").as_uri()]
    assert "no browser could be started" in capsys.readouterr().err


def test_documents_without_words_are_named_in_one_line(folder, quick, capsys):
    table = speeches()
    table.loc[[3, 5], "text"] = ["", "and 12 of"]
    table.to_csv("gaps.csv", index=False)
    assert main(["topics", "gaps.csv", *quick, "--title", "name"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warned == [
        "vipack: warning: gaps.csv: 2 of 60 documents have no word left and are left out, with their titles and metadata: "
        "'speech 3', 'speech 5'."
    ]
    documents = pd.read_csv("out/documents.csv")
    assert documents["title"].tolist()[3:5] == ["speech 4", "speech 6"]
    assert documents["theme"].tolist()[3:5] == ["law", "sea"]


@pytest.mark.parametrize(("options", "message"), [
    (["missing.csv"], "missing.csv: no such file; check the path"),
    (["speeches.csv", "--field", "body"], "speeches.csv: line 2: has no field 'body'; it has 'name', 'theme', 'text'"),
    (["names.csv"], "--field: say which field of names.csv holds the texts; it has 'name'"),
    (["speeches.csv", "--title", "date"], "has no field 'date'"),
    (["speeches.csv", "--covariates", "theme,year"], "--covariates theme,year: there is no column 'year' beside the texts; there are name, theme"),
    (["empty"], "empty: has no .txt files (no files)"),
    (["empty", "--field", "text"], "--field, --title: empty is a folder"),
    (["latin.csv"], "byte 0xe9 at position 8 (line 2) cannot be decoded; say how it is encoded, as --encoding latin-1"),
    (["speeches.csv", "--encoding", "klingon"], "--encoding: expected one of Python's"),
    (["short.csv"], "no words in 1 texts: a word has 3 letters or more, no digits or underscores, and is no stop word; see --min-letters and --stop-words"),
    (["speeches.csv", "--min-documents", "99"], "--min-documents 99, --max-fraction 0.5; loosen these limits"),
    (["speeches.csv", "--max-fraction", "2"], "expected a fraction above 0 and up to 1, found '2'"),
    (["speeches.csv", "--num-topics", "0"], "expected a positive whole number"),
    (["speeches.csv", "--stop-words", "german"], "--stop-words german: lists of languages other than English need stop-words"),
    (["speeches.xlsx"], "no such file"),
    (["speeches.csv", "--n-topics", "3"], "did you mean '--num-topics'?"),
])  # fmt: skip
def test_what_cannot_be_read_is_told_in_the_words_of_the_command_line(
    folder, quick, monkeypatch, capsys, options, message
):
    monkeypatch.setitem(sys.modules, "stop_words", None)
    (folder / "empty").mkdir()
    speeches()[["name"]].to_csv("names.csv", index=False)
    (folder / "latin.csv").write_bytes("text\ncaf\xe9\n".encode("latin-1"))
    (folder / "short.csv").write_text("text\nit is 12\n")
    assert main(["topics", *options, *quick]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("vipack: error: ")
    assert message in lines[-1]


def test_a_fit_that_is_interrupted_is_written_and_ends_with_130(folder, quick, monkeypatch):
    real = LDA.fit

    def interrupted(self, *arguments):
        result = real(self, *arguments)
        object.__setattr__(result.fit_.stopped, "reason", topic_fitting.StopReason.INTERRUPTED)
        return result

    monkeypatch.setattr(LDA, "fit", interrupted)
    assert main(["topics", "speeches.csv", *quick]) == 130
    assert (folder / "out" / "topics.csv").is_file()


def test_a_formula_gives_effects_with_intervals(folder, capsys):
    table = speeches()
    table["party"] = np.where(table["theme"] == "sea", "blue", "red")
    table.to_csv("parties.csv", index=False)
    options = ["--num-topics", "3", "--prevalence", "party", "--steps", "4", "--out", "out", "--quiet"]
    assert main(["topics", "parties.csv", *options]) == 0
    assert "effects.csv" in capsys.readouterr().out
    effects = pd.read_csv("out/effects.csv")
    assert list(effects.columns) == ["topic", "term", "mean", "sd", "lower", "upper"]
    assert len(effects) == 3
    assert effects["mean"].min() < -0.5  # of the topic of the sea
    assert main(["topics", "parties.csv", *options[:3], "era", *options[4:]]) == 2
    assert "'era' is no column of the covariates" in capsys.readouterr().err
