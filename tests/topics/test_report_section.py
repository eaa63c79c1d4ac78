"""Topics on a fit's page: their words, the link to the explorer, and what cannot be written."""

import re

import pytest

from tests.topics.models import random_model
from vipack.errors import UsageError
from vipack.topics import LDA


@pytest.fixture(scope="module")
def model():
    _, _, corpus = random_model(num_topics=3, num_words=20, num_documents=30)
    return LDA(num_topics=3, steps=5, progress=False).fit(corpus)


def test_a_page_begins_with_the_topics(model, tmp_path):
    model.fit_.diagnose(50, progress=False)
    text = model.report(tmp_path / "lda.html", explorer="explorer.html", num_draws=20).read_text()
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert titles[:3] == ["Verdict", "Topics", "Posterior"]
    assert '<a href="explorer.html">' in text
    for words in model.top_words(10):
        assert " ".join(words) in text
    assert "3 topics of 30 documents by LDA" in text


def test_topics_without_a_fit_have_no_page(model, tmp_path):
    model.save(tmp_path / "lda.topics")
    with pytest.raises(UsageError, match="no fit behind these topics"):
        LDA.load(tmp_path / "lda.topics").report(tmp_path / "lda.html")
