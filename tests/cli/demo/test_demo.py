"""The demo, quickly: it writes a page that holds everything, and the exact answers that it checks itself against are right."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import scipy.integrate

from vipack.cli import main
from vipack.cli.demo import _run_problems
from vipack.cli.demo.schools import exact_answer
from vipack.cli.demo.section import Settings
from vipack.cli.demo.speed import _beforehand, _problems
from vipack.cli.demo.topics import one_topic_evidence, orderings
from vipack.datasets import TextRules, corpus_from_texts, eight_schools
from vipack.errors import MissingExtraError

PICTURES = {
    "schools_compare", "schools_posterior", "schools_khat", "schools_losses", "topics", "topics_losses", "digits_new",
    "digits_fit", "speed",
}  # fmt: skip
TABLES = {"schools_compare", "schools_exact", "topics", "digits"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder that ``vipack demo --quick`` writes."""
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--quick", "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_it_writes_pictures_tables_and_a_page(demo):
    names = {path.name for path in demo.iterdir()}
    assert names == {
        "index.html",
        *(f"{name}.png" for name in PICTURES),
        *(f"{name}.{kind}" for name in TABLES for kind in ("csv", "md")),
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in demo.glob("*.png"))


def test_a_bare_environment_is_shown_all_but_the_digits(tmp_path, monkeypatch, capsys):
    def missing(*args):
        raise MissingExtraError("digits() needs scikit-learn: pip install 'vipack[topics]'.")

    class Shown:
        def write(self, folder):
            pass

    shown = Shown()
    problems = {"eight schools": lambda settings: shown, "digits": missing}
    monkeypatch.setattr("vipack.cli.demo._PROBLEMS", problems)
    assert _run_problems(Settings.of(0, quick=True), tmp_path) == [shown]
    assert "left out: digits() needs scikit-learn" in capsys.readouterr().out
    monkeypatch.setattr("vipack.datasets.digits", missing)
    assert [problem.name[:13] for problem in _problems(0)] == 2 * ["eight schools"]


def test_the_page_holds_everything_itself(demo):
    page = (demo / "index.html").read_text()
    assert page.count('src="data:image/png;base64,') == len(PICTURES)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<h2") == page.count("What to see.") == page.count("Whether to trust it.") == 3
    assert set(re.findall(r'href="#(\w+)"', page)) == set(re.findall(r'id="(\w+)"', page))
    assert "too few steps to mean anything" in page


def test_each_part_has_one_headline_before_its_verdict(demo):
    page = (demo / "index.html").read_text()
    before = page[: page.index("<h2")]
    headlines = re.findall(r'<p class="headline">(.*?)</p>', page)
    assert len(headlines) == 3
    for headline in headlines:
        assert headline in before
        assert not re.search("TRUST|CORRECTED", headline)
    sections = page.split("<h2")[1:]
    assert all(0 < s.index('class="headline"') < s.index('class="judged"') < s.index("What to see") for s in sections)
    assert "Pyro" in before  # the picture of how fast it was, with what it is held against


def test_a_fit_has_one_khat_on_the_page(demo):
    page = (demo / "index.html").read_text()
    schools = page.split("<h2")[1]
    best = pd.read_csv(demo / "schools_compare.csv", index_col="fit").iloc[0]
    told = re.findall(r"k-hat (\d+\.\d\d)", schools)
    assert set(told) <= {f"{best['khat']:.2f}"}


def test_tables_of_the_page_are_narrow_and_can_be_scrolled(demo):
    page = (demo / "index.html").read_text()
    assert page.count("<table>") == len(re.findall(r'<div class="scroll"[^>]*><table>', page)) == len(TABLES)
    assert all(table.split("</tr>")[0].count("<th ") <= 6 for table in page.split("<table>")[1:])


def test_six_fits_of_eight_schools_are_compared(demo):
    table = pd.read_csv(demo / "schools_compare.csv", index_col="fit")
    assert len(table) == 6
    assert sorted(table["rank"]) == [1, 2, 3, 4, 5, 6]
    assert {name.split()[0] for name in table.index} == {"centred", "non-centred"}
    assert {name.split()[1] for name in table.index} == {"mean-field", "full-rank", "flow"}


def test_eight_schools_exact_answer_is_that_of_quadrature():
    schools = eight_schools()
    y, sigma = schools["y"], schools["sigma"]

    def normal(x, loc, scale):  # scipy.stats' own takes a hundred times as long for so few numbers
        return np.exp(-0.5 * ((x - loc) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))

    def integrate(function):
        def density(mu, tau):
            likelihood = np.prod(normal(y, mu, np.sqrt(sigma**2 + tau**2)))
            prior = normal(mu, 0, 5) * 2 / (5 * math.pi * (1 + (tau / 5) ** 2))
            return function(mu, tau) * likelihood * prior * 1e12  # so that the absolute tolerance means something

        return scipy.integrate.dblquad(density, 0, 200, -40, 40, epsabs=1e-6, epsrel=1e-5)[0] / 1e12

    evidence = integrate(lambda mu, tau: 1.0)
    exact = exact_answer(y, sigma)
    assert exact.evidence == pytest.approx(np.log(evidence), abs=1e-4)
    assert exact.moments()["mean of mu"] == pytest.approx(integrate(lambda mu, tau: mu) / evidence, abs=2e-3)
    assert exact.moments()["mean of tau"] == pytest.approx(integrate(lambda mu, tau: tau) / evidence, abs=2e-3)


@pytest.mark.parametrize(("name", "grid"), [("mu", np.linspace(-60, 70, 4_000)), ("tau", np.linspace(0, 300, 40_000))])
def test_eight_schools_exact_densities_have_the_exact_moments(name, grid):
    schools = eight_schools()
    exact = exact_answer(schools["y"], schools["sigma"])
    heights = exact.density(name, grid)
    mean = np.trapezoid(grid * heights, grid)
    assert np.trapezoid(heights, grid) == pytest.approx(1, abs=2e-3)
    assert mean == pytest.approx(exact.moments()[f"mean of {name}"], abs=0.02)
    sd = np.sqrt(np.trapezoid((grid - mean) ** 2 * heights, grid))
    assert sd == pytest.approx(exact.moments()[f"sd of {name}"], abs=0.02)


def test_the_evidence_of_one_topic_is_that_of_its_words_drawn_one_by_one():
    corpus = corpus_from_texts(["tree tree bird", "bird fish tree"], rules=TextRules(min_documents=1, max_fraction=1.0))
    seen, log_p = dict.fromkeys(corpus.vocabulary, 0.2), 0.0
    for word in ["tree", "tree", "bird", "bird", "fish", "tree"]:  # Polya's urn
        log_p += np.log(seen[word] / sum(seen.values()))
        seen[word] += 1
    assert one_topic_evidence(corpus, 0.2) == pytest.approx(log_p)
    assert orderings(corpus) == pytest.approx(np.log(3) + np.log(6))


def test_a_step_that_was_ready_took_no_seconds_to_compile():
    assert "0 s" not in _beforehand(0.02)
    assert "up to 12 s" in _beforehand(12.3)
