"""A fit's page in a browser without a screen: what it shows, on a screen, a phone, in the dark and to a screen reader."""

import itertools
import re

import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import vipack as vi
from tests.browser import document_of, measured
from tests.report.programs import Autoencoder, schools
from vipack.diagnostics.grounds import last_grounds
from vipack.errors import UsageError

DRAWS = 500
SECTIONS = [
    "Verdict", "Posterior", "Predictive check", "Model", "Training", "Importance weights", "Code", "Versions and seeds",
]  # fmt: skip


@pytest.fixture(scope="module")
def fit():
    data = vi.datasets.eight_schools().columns
    fitted = vi.fit(schools, AutoMultivariateNormal, data=data, steps=300, seed=3, engine="eager", progress=False)
    fitted.diagnose(DRAWS, progress=False)
    return fitted


@pytest.fixture(scope="module")
def page(fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "fit.html"
    assert fit.report(path, title="Schools <i>& more</i>", num_draws=200) == path
    return path


@pytest.fixture(scope="module")
def vae_page(tmp_path_factory):
    x = torch.bernoulli(torch.full((120, 16), 0.3), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    vae = Autoencoder()
    fitted = vi.fit(
        vae.model, vae.guide, data=x, batch_size=40, steps=300, validation=0.2, engine="eager", progress=False
    )
    fitted.diagnose(100, progress=False)
    path = tmp_path_factory.mktemp("report") / "vae.html"
    fitted.report(path, num_draws=50)
    return path


def test_the_page_is_small_and_fetches_nothing(page, vae_page):
    for each in (page, vae_page):
        text = each.read_text()
        assert len(text.encode()) < 2_000_000
        assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
        assert "default-src 'none'" in text


def test_all_sections_are_seen(page):
    assert (
        measured(page, "[...document.querySelectorAll('h2')].filter(h => h.offsetHeight > 0).map(h => h.innerText)")
        == SECTIONS
    )


def test_the_verdict_and_its_figures_stand_on_the_first_screen(fit, page):
    shown = measured(
        page,
        "[...document.querySelectorAll('.banner, dl.figures')].map(e => [e.innerText, e.getBoundingClientRect().bottom])",
    )
    (banner, _), (figures, bottom) = shown
    assert banner.startswith(fit.verdict.value)
    diagnosis = last_grounds(fit.posterior).diagnosis
    assert str(diagnosis.elbo) in figures
    assert f"{diagnosis.khat:.2f}" in figures
    assert bottom < 800


def test_the_page_tells_of_the_last_diagnosis_and_makes_no_other(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(type(fit), "diagnose", lambda *args, **kwargs: pytest.fail("diagnosed again"))
    text = fit.report(tmp_path / "again.html", num_draws=50).read_text()
    assert f"of {DRAWS:,}" in text


def test_a_fit_that_was_not_judged_is_judged_first(tmp_path):
    data = vi.datasets.eight_schools().columns
    fresh = vi.fit(schools, AutoNormal, data=data, steps=20, engine="eager", progress=False)
    seen = []
    original = type(fresh).diagnose
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(fresh), "diagnose", lambda self, **given: seen.append(given) or original(self, 100, progress=False)
        )
        fresh.report(tmp_path / "fresh.html", num_draws=50)
    assert len(seen) == 1
    assert fresh.verdict is not None


def test_texts_stay_texts(page):
    assert measured(page, "document.querySelector('h1').innerText") == "Schools <i>& more</i>"
    assert measured(page, "document.querySelectorAll('main b, main i, script[src]').length") == 0
    code = measured(page, "[...document.querySelectorAll('pre')].map(e => e.innerText)")
    assert '"""Eight schools, <b>non-centred</b> & escaped."""' in code[0]


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_but_wide_tables_scrolls_sideways(page, vae_page, width):
    for each in (page, vae_page):
        # Headless windows are no narrower than 500 pixels, so the page stands in a frame of its own.
        each.with_name("frame.html").write_text(
            f'<!doctype html><iframe id="f" style="width:{width}px;height:900px;border:0" srcdoc="{attribute(each)}"></iframe></body>'
        )
        scroll, client = measured(
            each.with_name("frame.html"),
            "(d => [d.scrollWidth, d.clientWidth])(document.getElementById('f').contentDocument.documentElement)",
        )
        assert width - 20 <= client <= width  # with the bar on its side
        assert scroll <= client


def attribute(page):
    return page.read_text().replace("&", "&amp;").replace('"', "&quot;")


def test_dark_pages_are_dark_and_legible(page):
    colours = "(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
    light, dark = (measured(page, colours, dark=dark) for dark in (False, True))
    for (ground, ink), is_dark in ((light, False), (dark, True)):
        a, b = luminance(ground), luminance(ink)
        assert (a < b) is is_dark
        assert (max(a, b) + 0.05) / (min(a, b) + 0.05) > 7  # WCAG 2.2, 1.4.6


def luminance(colour):
    channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_screen_reader_has_headings_tables_and_pictures_in_words(page, vae_page):
    for each in (page, vae_page):
        document = document_of(each)
        assert '<html lang="en">' in document
        levels = [int(n) for n in re.findall(r"<h([1-6])", document)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
        ids = re.findall(r' id="([^"]+)"', document)
        assert len(ids) == len(set(ids))
        assert all(len(alt) > 20 for alt in re.findall(r'<img[^>]* alt="([^"]*)"', document))
        assert document.count("<img") == len(re.findall(r'<img[^>]* alt="', document)) > 0
        assert all('scope="col"' in head for head in re.findall(r"<thead>.*?</thead>", document, re.DOTALL))
    words = measured(page, "document.querySelector('svg desc').textContent")
    assert "theta: deterministic in school, given mu, tau, z." in words.replace("given z, mu, tau", "given mu, tau, z")


def test_a_page_of_observations_shows_latents_images_and_those_held_out(vae_page):
    titles = measured(vae_page, "[...document.querySelectorAll('h3')].map(h => h.innerText)")
    assert {"What the latents carry", "Held-out ELBO", "New observations of x", "Reconstructions of x"} <= set(titles)


def test_bad_options_are_refused_before_any_work(fit, tmp_path):
    with pytest.raises(UsageError, match=r"the folder .*nowhere does not exist"):
        fit.report(tmp_path / "nowhere" / "fit.html")
    with pytest.raises(UsageError, match="image_shape"):
        fit.report(tmp_path / "fit.html", image_shape=(2, 4))
    assert not (tmp_path / "fit.html").exists()


def test_a_comparison_has_a_page(fit, tmp_path):
    data = vi.datasets.eight_schools().columns
    other = vi.fit(schools, AutoNormal, data=data, steps=100, seed=3, engine="eager", progress=False)
    table = vi.compare({"full <rank>": fit, "mean-field": other}, num_draws=200, progress=False)
    path = table.report(tmp_path / "comparison.html")
    titles = measured(path, "[...document.querySelectorAll('h2')].map(h => h.innerText)")
    assert {f"{name}: {table.loc[name, 'verdict']}" for name in table.index} <= set(titles)
    assert type(table[["rank"]]) is type(table.round(1)) is type(table.copy())
    assert not hasattr(table.round(1), "report")
