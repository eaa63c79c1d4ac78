"""The site's pages as a phone has them, and what they ask of a network: nothing."""

from pathlib import Path

import pytest

from tests.site.chromium import Chromium

SITE = Path(__file__).parents[2] / "build" / "site"
pytestmark = pytest.mark.slow  # `make site-check`

OUTSIDE = """[...document.querySelectorAll("script[src], link[rel=stylesheet], img, iframe[src]")]
    .map(e => e.src || e.href).filter(address => !/^(file:|data:|about:)/.test(address))"""


@pytest.fixture(scope="module")
def pages():
    found = sorted(SITE.rglob("*.html"))
    assert found, "make site"
    return [page for page in found if page.name != "404.html"]  # whose addresses begin at a server's root


def test_no_page_scrolls_sideways_on_a_phone_or_fetches_anything(pages):
    wide, fetching = {}, {}
    with Chromium() as chromium:
        chromium.resize(390)
        for page in pages:
            chromium.open(page)
            width = chromium.value("document.documentElement.scrollWidth")
            outside = chromium.value(OUTSIDE)
            outside += chromium.value(
                "performance.getEntriesByType('resource').map(e => e.name).filter(n => !/^(file|data):/.test(n))"
            )
            wide |= {page.name: width} if width > 390 else {}
            fetching |= {page.name: outside} if outside else {}
    assert wide == {}
    assert fetching == {}
