"""The site's own search, in a folder without a server or a network, answers what people ask most."""

import csv
import json
import time
from pathlib import Path

import pytest

from tests.site.chromium import Chromium

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
with (ROOT / "docs" / "site" / "questions.csv").open(encoding="utf-8") as file:
    QUESTIONS = list(csv.DictReader(file))

pytestmark = pytest.mark.slow  # `make site-check`


@pytest.fixture(scope="module")
def page():
    assert (SITE / "index.html").exists(), "make site"
    with Chromium() as chromium:
        chromium.open(SITE / "index.html")
        chromium.value("document.querySelector('label[for=__search]').click()")
        chromium.wait("!document.querySelector('.md-search-result__meta').innerText.includes('Initializing')")
        yield chromium


def results(page, query):
    """Addresses of the first page of results, best first."""
    page.value("document.querySelector('.md-search-result__list').replaceChildren()")
    page.value(
        "(box => { box.focus(); box.value = " + json.dumps(query) + "; box.dispatchEvent(new Event('input', {bubbles: true}));"
        " box.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true})); })(document.querySelector('.md-search__input'))"
    )  # fmt: skip
    links, before = None, None
    while not links or links != before:  # the search goes on in a worker, which does not say when it is done
        time.sleep(0.2)
        before = links
        links = page.value("[...document.querySelectorAll('.md-search-result__item > a')].map(a => a.href)")
    return links


def test_at_least_thirty_questions_with_the_threads_that_ask_them():
    assert len(QUESTIONS) >= 30
    assert all(each["asked at"].startswith("https://") for each in QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: each["query"])
def test_the_first_page_of_results_has_a_page_that_answers(page, question):
    addresses = results(page, question["query"])[:10]
    wanted = [name.partition("#")[::2] for name in question["pages"].split()]  # of a page, or of a section of it
    assert any(
        f"/{name}.html" in address and word in address.partition("#")[2]
        for name, word in wanted
        for address in addresses
    ), addresses


def test_searching_asks_nothing_of_a_network(page):
    assert (
        page.value("performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('file:'))")
        == []
    )
