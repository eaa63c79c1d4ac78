"""The page without a browser: it stands alone, holds what it is to hold, and texts stay texts."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from tests.topics.models import random_model
from vipack.datasets import Corpus
from vipack.errors import ShapeError, SignatureError, UsageError
from vipack.topics import explore
from vipack.topics.word_scores import LAMBDAS, frex

HOSTILE = '</script><img src=x onerror="document.title=1"><!--<script>'


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def content_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html, re.S).group(1))


def pairs(flat):
    return list(zip(flat[::2], flat[1::2], strict=True))


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def page(model):
    return explore(*model)


def test_the_page_is_written_where_it_is_asked_for(model, page, tmp_path):
    explore(*model, path=tmp_path / "topics.html")
    assert (tmp_path / "topics.html").read_text(encoding="utf-8") == page.html
    assert page.write(str(tmp_path / "again.html")) == tmp_path / "again.html"
    with pytest.raises(UsageError, match="nowhere does not exist"):
        explore(*model, path=tmp_path / "nowhere" / "topics.html")


def test_the_page_fetches_nothing(page):
    for tag, attributes in Elements(page.html).elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert "src" not in attributes
        assert not str(attributes.get("href", "#")).startswith(("http", "//"))
        assert not [name for name in attributes if name.startswith("on")]
    code = re.sub(re.escape("http://www.w3.org/2000/svg"), "", page.html)  # the name of a namespace
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(|innerHTML", code)


def test_the_policy_allows_the_pages_own_script_and_style_only(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page.html).group(1)
    assert "default-src 'none'" in policy
    for kind, tag in (("script", "script"), ("style", "style")):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page.html, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_hostile_texts_stay_texts():
    topics, theta, corpus = random_model(vocabulary=[f"{HOSTILE}{i}" for i in range(60)], titles=[HOSTILE] * 40)
    corpus = Corpus(HOSTILE, corpus.counts, corpus.vocabulary, corpus.titles, HOSTILE, HOSTILE)
    given = {"names": [HOSTILE] * 5, "texts": [HOSTILE] * 40, "covariates": {HOSTILE: [HOSTILE] * 40}}
    effects = pd.DataFrame({"topic": [0], "term": [HOSTILE], "mean": [0.0], "lower": [-1.0], "upper": [1.0]})
    page = explore(topics, theta, corpus, effects=effects, **given)
    plain = explore(
        topics, theta, random_model()[2], effects=effects, names=list("abcde"), covariates={"x": ["y"] * 40}
    )
    tags = [tag for tag, _ in Elements(page.html).elements]
    assert "img" not in tags
    assert tags.count("script") == [tag for tag, _ in Elements(plain.html).elements].count("script") == 2
    assert HOSTILE not in page.html
    content = content_of(page)
    assert content["words"]["text"][0].startswith(HOSTILE)
    for values in (content["documents"]["titles"], content["documents"]["texts"], content["covariates"][0]["levels"]):
        assert set(values) == {HOSTILE}
    assert page._repr_html_().count("<") == 2  # the frame, whose page is an attribute


def test_every_script_and_style_is_in_the_package():
    folder = resources.files("vipack.topics.explorer") / "page"
    text = explore(*random_model()).html
    files = [file for file in folder.iterdir() if file.name.endswith((".js", ".css"))]
    assert len(files) == 9
    assert all(file.read_text(encoding="utf-8").strip() in text for file in files)


def test_a_topic_has_the_words_of_every_stop_of_the_slider():
    topics, theta, corpus = random_model(num_words=400, num_documents=200)
    content = content_of(explore(topics, theta, corpus))
    counts = np.asarray(corpus.counts.sum(axis=0))
    used = np.flatnonzero(counts)
    marginal = counts[used] / counts.sum()
    exclusive = frex(topics[:, used])
    for k, topic in enumerate(content["topics"]):
        words = [content["words"]["text"][i] for i in topic["words"]]
        probability = topics[k, used]
        for weight in LAMBDAS:
            score = probability**weight * (probability / marginal) ** (1 - weight)
            assert {corpus.vocabulary[used[i]] for i in np.argsort(-score)[:30]} <= set(words)
        best = [content["words"]["text"][i] for i in topic["frex"]]
        assert best == [corpus.vocabulary[used[i]] for i in np.lexsort((used, -exclusive[k]))[:30]]
        np.testing.assert_allclose(
            np.exp(topic["logs"]), topics[k, [corpus.vocabulary.index(w) for w in words]], rtol=1e-4
        )


def test_shares_are_those_of_the_model(model, page):
    _, theta, corpus = model
    content = content_of(page)
    assert sum(topic["share"] for topic in content["topics"]) == pytest.approx(1, abs=1e-4)
    for d, flat in enumerate(content["documents"]["topics"]):
        assert all(abs(theta[d, k] - share / 1000) <= 5e-4 for k, share in pairs(flat))
        assert {k for k, _ in pairs(flat)} >= set(np.flatnonzero(theta[d] > 0.0055))
    for k, topic in enumerate(content["topics"]):
        assert topic["documents"] == np.argsort(-theta[:, k])[:12].tolist()
        assert all(k in dict(pairs(content["documents"]["topics"][d])) for d in topic["documents"])
    for flat in content["words"]["topics"]:
        assert sum(share for _, share in pairs(flat)) == pytest.approx(100, abs=3)
    assert content["words"]["counts"] == [int(n) for n in corpus.counts.sum(axis=0) if n]


def test_names_titles_and_texts_are_the_given_ones(model):
    given = {"names": list("abcde"), "titles": [f"title {i}" for i in range(40)], "texts": ["one\n two " * 500] * 40}
    page = explore(*model, **given)
    content = content_of(page)
    assert [topic["name"] for topic in content["topics"]] == given["names"]
    assert content["documents"]["titles"] == given["titles"]
    assert content["documents"]["texts"][0].startswith("one two one")
    assert len(content["documents"]["texts"][0]) <= 800
    assert page.left_out[-1] == "Texts are cut after 800 characters."
    assert "Texts are cut after 800 characters." in page.html


def test_a_large_model_makes_a_page_under_three_megabytes():
    rng = np.random.default_rng(0)
    num_topics, num_words, num_documents, length = 50, 10_000, 12_000, 60
    topics = rng.dirichlet(np.full(num_words, 0.05), num_topics)
    theta = rng.dirichlet(np.full(num_topics, 0.1), num_documents)
    words = rng.integers(num_words, size=num_documents * length)
    rows = np.repeat(np.arange(num_documents), length)
    counts = scipy.sparse.coo_array((np.ones(len(words)), (rows, words)), shape=(num_documents, num_words))
    titles = [f"The title of a document with an umlaut ü, number {i}" for i in range(num_documents)]
    corpus = Corpus("large", counts, tuple(f"word{i}" for i in range(num_words)), tuple(titles), "", "")
    page = explore(topics, theta, corpus, texts=['<p class="quote">Ünicode text.</p> ' * 40] * num_documents)
    assert len(page.html.encode()) < 3_000_000
    assert len(content_of(page)["documents"]["titles"]) == 10_000
    assert any("10,000 of 12,000 documents" in said for said in page.left_out)
    assert any("those of documents that show no topic best after" in said for said in page.left_out)
    numbers = content_of(page)["documents"]["numbers"]
    for k, topic in enumerate(content_of(page)["topics"]):
        assert [numbers[d] for d in topic["documents"]] == np.argsort(-theta[:, k])[:12].tolist()


def test_sparse_topics_tensors_and_empty_documents_have_pages():
    topics, theta, corpus = random_model()
    emptied = corpus.counts.toarray()
    emptied[7] = 0
    sparse = np.where(topics > 0.02, topics, 0)
    sparse /= sparse.sum(1, keepdims=True)
    titles = ["half a \ud83d pair", *corpus.titles[1:]]
    given = Corpus("random", emptied, corpus.vocabulary, titles, "", "")
    content = content_of(explore(torch.tensor(sparse), torch.tensor(theta), given))
    assert content["documents"]["titles"][0] == "half a ? pair"
    assert content["documents"]["lengths"][7] == 0
    assert all(7 not in topic["documents"] for topic in content["topics"])


@pytest.mark.parametrize("count", [1, 2])
def test_one_topic_or_two_have_pages(count):
    content = content_of(explore(*random_model(count)))
    assert len(content["topics"]) == count
    assert np.isfinite([topic["point"] for topic in content["topics"]]).all()


def test_covariates_are_mean_shares_with_standard_errors(model):
    topics, theta, corpus = model
    group = np.array(["a", "b"])[np.arange(40) % 2].astype(object)
    group[0] = None
    (covariate,) = content_of(explore(topics, theta, corpus, covariates=pd.DataFrame({"group": group})))["covariates"]
    assert (covariate["levels"], covariate["counts"], covariate["missing"]) == (["a", "b"], [19, 20], 1)
    np.testing.assert_allclose(covariate["means"][1], theta[1::2].mean(0), atol=1e-4)
    np.testing.assert_allclose(covariate["errors"][1], theta[1::2].std(0, ddof=1) / np.sqrt(20), atol=1e-4)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"topics": np.ones((5, 60))}, UsageError, r"topics: row 0 sums to 60.*topics / topics.sum"),
        ({"topics": np.full((5, 59), 1 / 59)}, ShapeError, r"topics: shape \(5, 59\), expected \(K, 60\)"),
        ({"theta": np.full((40, 4), 0.25)}, ShapeError, r"theta: shape \(40, 4\), expected \(40, 5\)"),
        ({"theta": np.full((3, 40, 5), 0.2)}, ShapeError, "pass the mean over draws"),
        ({"theta": np.log(np.full((40, 5), 0.2))}, UsageError, "theta.*pass exp of logs"),
        ({"names": ["a"]}, UsageError, "names: expected 5, one for each topic, found 1"),
        ({"titles": "abc"}, UsageError, "titles: expected 40, one for each document, found one text"),
        ({"texts": ["a"] * 41}, UsageError, "texts: expected 40"),
        ({"covariates": [1, 2]}, UsageError, "covariates: expected a DataFrame, a Series or a dict"),
        ({"covariates": {"x": [1, 2]}}, ShapeError, r"covariates: 'x' has shape \(2,\), expected \(40,\)"),
        (
            {"covariates": pd.DataFrame(columns=["topic", "term", "mean", "lower", "upper"])},
            UsageError,
            "pass effects=table",
        ),
        ({"effects": {"topic": [0]}}, UsageError, "effects: expected a DataFrame"),
        ({"title": "x"}, SignatureError, "explore takes no argument 'title'; did you mean 'titles'?"),
    ],
)
def test_what_does_not_fit_is_refused(model, given, error, message):
    with pytest.raises(error, match=message):
        explore(**{**dict(zip(("topics", "theta", "corpus"), model, strict=True)), **given})
