"""The page in a browser without a screen: what its address asks for is open, and a reader's clicks and keys open it too."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from tests.browser import document_of
from tests.topics.models import random_model
from vipack.topics import explore
from vipack.topics.word_scores import frex

HOSTILE = '</script><img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def model():
    words = [HOSTILE, "naïve", *(f"word{i}" for i in range(2, 120))]
    return random_model(num_words=120, vocabulary=words, titles=[f"{HOSTILE} title {i}" for i in range(40)])


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "page.html"
    effects = pd.DataFrame({"topic": [3], "term": ["age"], "mean": [0.1], "lower": [-0.05], "upper": [0.25]})
    explore(*model, path=path, covariates={"group": ["a", "b"] * 20, "year": np.arange(40)}, effects=effects)
    return path


def content_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))


def words_of(document, content):
    """The words of the open topic, as they stand."""
    return [content["words"]["text"][int(i)] for i in re.findall(r'<tr data-word="(\d+)"', document)]


def section_of(document, element):
    """The text of the section with this id, without its tags."""
    inner = re.search(rf'<section[^>]* id="{element}"[^>]*>(.*?)</section>', document, re.S).group(1)
    return re.sub(r"<[^>]*>", " ", inner)


def by_relevance(model, k, weight, count=30):
    topics, _, corpus = model
    counts = np.asarray(corpus.counts.sum(axis=0))
    used = np.flatnonzero(counts)
    score = topics[k, used] * (counts[used] / counts.sum()) ** (weight - 1)
    return [corpus.vocabulary[used[i]] for i in np.argsort(-score)[:count]]


def test_an_address_opens_topic_slider_word_and_document(page, model):
    document = document_of(page, "#topic=3&lambda=.4&word=word7&document=12&covariate=year")
    content = content_of(page)
    assert re.search(r'id="topic-number">Topic 3 ·', document)
    assert words_of(document, content) == by_relevance(model, 3, 0.4)
    assert re.search(r'id="word-heading"[^>]*>word7<', document)
    shown = section_of(document, "document-card")
    assert "Document 12" in shown
    share = model[1][12].max()
    assert f"{100 * share:.0f}%" in shown
    assert re.search(r'id="effects-card"[^>]*aria-labelledby="effects-heading">', document)  # not hidden
    assert "+10.0" in section_of(document, "effects-card")
    assert re.search(r"<caption[^>]*>Topic 3: [^<]* by year</caption>", document)


def test_frex_is_an_order_of_words(page, model):
    topics, _, corpus = model
    used = np.flatnonzero(corpus.counts.sum(axis=0))
    best = np.argsort(-frex(topics[:, used])[1], kind="stable")[:30]
    document = document_of(page, "#topic=1&order=frex")
    assert words_of(document, content_of(page)) == [corpus.vocabulary[used[i]] for i in best]


def test_hostile_words_and_titles_stay_texts(page):
    document = document_of(
        page, "#word=%3C%2Fscript%3E%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D1%22%3E&document=0"
    )
    assert "<title>Topics of random</title>" in document
    assert "<img" not in re.sub(r'<script type="application/json".*?</script>', "", document, flags=re.S)
    assert re.search(r'id="word-heading"[^>]*>&lt;/script&gt;&lt;img', document)
    assert re.search(r'id="document-heading"[^>]*>&lt;/script&gt;&lt;img', document)


def test_what_an_address_asks_for_in_vain_is_said(page):
    document = document_of(page, "#topic=77&word=nowhere&document=-1&lambda=5")
    notice = re.search(r'id="notice"[^>]*>([^<]*)<', document).group(1)
    assert notice == "This page does not have: topic 77, lambda 5, word nowhere, document -1."


def test_a_reader_searches_moves_the_slider_and_opens_documents(page, model):
    script = """
    const say = (...words) => document.body.append(Object.assign(document.createElement("pre"), { className: "log", textContent: words.join("|") }));
    const type = (text) => { const field = document.getElementById("search"); field.value = text; field.dispatchEvent(new Event("input")); };
    const hits = () => [...document.querySelectorAll(".hit .text")].map((hit) => hit.textContent);
    type("NAIVE"); say("hits", ...hits());
    document.getElementById("search-form").requestSubmit();
    say("word", document.getElementById("word-heading").textContent, document.activeElement.id, document.getElementById("hits").hidden);
    type("title 31"); document.querySelector(".hit").click();
    say("document", document.querySelector("#document-card .quiet").textContent, document.getElementById("word-card").hidden, document.activeElement.id);
    document.querySelector("#document-card .close").click();
    say("closed", document.getElementById("document-card").hidden, document.getElementById("status").textContent);
    document.querySelector('#topics li:nth-child(2) button').click();
    const slider = document.getElementById("lambda"); slider.value = 0.2; slider.dispatchEvent(new Event("input"));
    say("slider", document.getElementById("lambda-value").textContent, location.hash);
    document.querySelector("#best button").click();
    say("best", document.querySelector("#document-card .quiet").textContent);
    document.querySelector("#words .word").click();
    say("clicked", document.getElementById("word-heading").textContent === document.querySelector("#words .word").textContent);
    const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    document.querySelector("#best button").focus(); press("/"); type("word1"); press("ArrowDown"); press("ArrowDown");
    say("keys", document.activeElement.textContent === document.querySelectorAll(".hit")[1].textContent);
    press("Escape"); say("escaped", document.activeElement.id, document.getElementById("hits").hidden);
    type("zzz"); say("none", document.getElementById("hits").textContent, document.getElementById("status").textContent);
    """
    _, theta, _ = model
    document = document_of(page, script=script)
    said = dict(re.findall(r'<pre class="log">([^|]*)\|(.*?)</pre>', document, re.S))
    content = content_of(page)
    order = np.argsort([-topic["share"] for topic in content["topics"]], kind="stable")
    second = int(order[1])
    assert said["hits"] == "naïve"
    assert said["word"] == "naïve|word-heading|true"
    assert said["document"].startswith("Document 31, 50 tokens|true|document-heading")
    assert said["closed"] == "true|Closed the document"
    assert said["slider"] == f"0.20|#topic={second}&amp;lambda=0.2"
    assert said["best"].startswith(f"Document {np.argmax(theta[:, second])},")
    assert said["clicked"] == "true"
    assert said["keys"] == "true"
    assert said["escaped"] == "search|true"
    assert said["none"] == "“zzz” is in no word or title on this page.|Nothing found"
    assert words_of(document, content) == by_relevance(model, second, 0.2)


def test_a_reader_steps_sorts_and_chooses(page, model):
    script = """
    const say = (...words) => document.body.append(Object.assign(document.createElement("pre"), { className: "log", textContent: words.join("|") }));
    const open = () => document.getElementById("topic-number").textContent.split(" ")[1];
    const first = () => document.querySelector("#topics .number").textContent;
    say("start", open(), first());
    document.getElementById("next").click(); say("next", open());
    document.getElementById("previous").click(); document.getElementById("previous").click(); say("previous", open());
    const choose = (id, value) => { const field = document.getElementById(id); field.value = value; field.dispatchEvent(new Event("change")); };
    choose("sort", "number"); say("sorted", first());
    document.querySelector('#map [data-topic="4"]').dispatchEvent(new MouseEvent("click", { bubbles: true })); say("map", open());
    document.querySelector("#near button").click(); say("near", open(), document.activeElement.id);
    choose("covariate", "1"); say("covariate", document.querySelectorAll("#covariates .plot .dot").length, location.hash.split("&").at(-1));
    const frex = document.querySelector("input[value=frex]"); frex.checked = true; frex.dispatchEvent(new Event("change"));
    say("frex", document.getElementById("lambda").disabled, location.hash.includes("order=frex"));
    location.hash = "#topic=1&document=3"; dispatchEvent(new Event("hashchange")); say("hash", open(), document.getElementById("document-card").hidden);
    document.getElementById("map-reset").click(); say("reset", document.getElementById("document-card").hidden);
    """
    document = document_of(page, script=script)
    said = dict(re.findall(r'<pre class="log">([^|]*)\|(.*?)</pre>', document, re.S))
    topics = content_of(page)["topics"]
    order = [str(k) for k in np.argsort([-topic["share"] for topic in topics], kind="stable")]
    assert said["start"] == f"{order[0]}|{order[0]}"
    assert (said["next"], said["previous"]) == (order[1], order[-1])
    assert (said["sorted"], said["map"]) == ("0", "4")
    assert said["near"] == f"{topics[4]['near'][0]}|topic-heading"
    assert said["covariate"] == "8|covariate=year"
    assert said["frex"] == "true|true"
    assert (said["hash"], said["reset"]) == ("1|false", "true")


def test_documents_keep_their_numbers_where_some_are_left_out(model, tmp_path, monkeypatch):
    monkeypatch.setattr("vipack.topics.explorer.document_data._MOST", 15)
    monkeypatch.setattr("vipack.topics.explorer.document_data._BEST", 2)
    explore(*model, path=tmp_path / "page.html")
    numbers = content_of(tmp_path / "page.html")["documents"]["numbers"]
    assert len(numbers) == 15
    shown = section_of(document_of(tmp_path / "page.html", f"#document={numbers[7]}"), "document-card")
    assert f"Document {numbers[7]}," in shown
    assert f"title {numbers[7]} " in f"{shown} "
    missing = next(d for d in range(40) if d not in numbers)
    assert f"document {missing}." in document_of(tmp_path / "page.html", f"#document={missing}")


def test_topics_words_and_documents_are_for_keys_and_screen_readers(page):
    document = document_of(page, "#topic=2")
    assert re.search(r'<button type="button" class="topic-button"[^>]*aria-current="true"', document)
    assert document.count('aria-current="true"') == 1
    assert 'role="img" aria-labelledby="map-heading" aria-describedby="map-caption"' in document
    assert '<div id="status" class="hidden" role="status" aria-live="polite">' in document
    controls = re.findall(r"<(?:input|select)[^>]*>", document)
    labelled = set(re.findall(r'<label[^>]*for="(\w+)"', document))
    within = re.findall(r"<label[^>]*>(?:(?!</label>).)*?<(?:input|select)[^>]*>", document, re.S)
    assert len(within) + sum(f'id="{name}"' in control for name in labelled for control in controls) == len(controls)
    assert not re.findall(r'tabindex="[1-9]', document)
    ids = re.findall(r' id="([^"]+)"', document)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-(?:labelledby|describedby|controls)="([^"]+)"', document)) <= {
        *ids, "word-heading", "document-heading",
    }  # fmt: skip
