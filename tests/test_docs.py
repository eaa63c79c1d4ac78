"""The documentation is true: its code runs, prints what the page shows, names all there is, and its links lead somewhere.

Blocks of a page run in order and share one namespace and one temporary folder:

- ```` ```python ```` is executed;
- ```` ```console ````: every line ``$ vipack ...`` is run, and must end with 0;
- ```` ```text ```` directly after a block of Python is what that block prints.

What is shown and what is printed must agree word for word. Numbers are estimates, which other machines round otherwise:
they may differ by 5%, and one with decimals by two units of its last digit besides. Spaces do not count, since the widths
of columns go by their numbers, and a line ``...`` stands for any number of lines.
"""

import contextlib
import io
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import vipack
from vipack.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
TRAINING = (
    "names",
    "report",
    "topics",
    "trust",
    "vae",
    "vae-judging",
)  # pages that train for more than eight seconds: `make test-pages`

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
OWN = re.compile(
    r"https://(?:github\.com/vipack/vipack/(?:blob|tree)|raw\.githubusercontent\.com/vipack/vipack)/main/(.*)"
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

page_id = {"argvalues": PAGES, "ids": lambda page: str(page.relative_to(ROOT))}


@pytest.fixture(scope="module", autouse=True)
def _no_windows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        yield


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page.stem in TRAINING else page for page in PAGES],
    ids=page_id["ids"],
)
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    text = page.read_text()
    printed, end = None, 0
    for block in BLOCK.finditer(text):
        kind, content = block.groups()
        line = text.count("\n", 0, block.start()) + 1
        if kind == "text" and printed is not None and not text[end : block.start()].strip():
            problem = disagreement(content, printed)
            assert not problem, f"{page.name}:{line}: {problem}\n--- printed:\n{printed}"
        printed, end = None, block.end()
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                # Blank lines before the code make the line numbers of a traceback those of the page.
                exec(compile("\n" * line + content, str(page), "exec"), namespace)
            printed = out.getvalue()
        elif kind == "console":
            for command in re.findall(r"^\$ vipack (.*)$", content, re.MULTILINE):
                assert main(shlex.split(command)) == 0, f"{page.name}:{line}: vipack {command}"


@pytest.mark.parametrize("page", **page_id)
def test_the_links_of_a_page_lead_to_files_and_headings(page):
    for target in LINK.findall(BLOCK.sub("", page.read_text())):
        own = OWN.fullmatch(target)
        if own is None and target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, heading = (own.group(1) if own else target).partition("#")
        found = ((ROOT if own else page.parent) / name).resolve() if name else page
        assert found.exists(), f"{page.name}: {target}"
        assert found.is_relative_to(ROOT)
        if heading:
            assert heading in headings(found), f"{page.name}: {target}"


def test_the_links_of_the_readme_work_where_there_is_no_repository():
    links = LINK.findall(BLOCK.sub("", (ROOT / "README.md").read_text()))
    assert not [target for target in links if not target.startswith(("https://", "#"))]  # it is PyPI's page too
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    assert OWN.fullmatch(urls["Documentation"])


def test_an_sdist_holds_all_that_its_tests_read():
    included = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"][
        "include"
    ]
    folders = {"tests", "vipack", "examples", "docs", "benchmarks"}  # that tests import, run or follow links to
    pages = {str(page.relative_to(ROOT)) for page in PAGES if page.parent == ROOT}
    assert folders | pages | {"CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt"} <= set(included)


@pytest.mark.parametrize("name", vipack.__all__)
def test_every_public_name_is_in_the_documentation(name):
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    assert any(re.search(rf"\bvi(pack)?\.{name}\b", page.read_text()) for page in pages)


def test_every_page_can_be_reached_from_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_output_is_compared_word_for_word_and_number_by_number():
    assert not disagreement("ELBO -31.61 ± 0.03\n", "ELBO   -31.9 ± 0.04\n")
    assert not disagreement("a 1\n...\nd 4\n", "a 1\nb 2\nc 3\nd 4\n")
    assert not disagreement("1,234 words\n", "1,200 words\n")
    assert disagreement("ELBO -31.61\n", "ELBO -34.61\n")
    assert disagreement("TRUST: k-hat 0.44\n", "DISTRUST: k-hat 0.44\n")
    assert disagreement("rank 0\n", "rank 1\n")
    assert disagreement("shape (8,)\n", "shape (9,)\n")
    assert disagreement("a\nb\n", "a\n")
    assert disagreement("a\n", "a\nb\n")


def disagreement(shown, printed):
    """The first line in which what a page shows differs from what its code printed; empty where none does."""
    wanted, found = (lines_of(text) for text in (shown, printed))
    place = 0
    for i, line in enumerate(wanted):
        if line == "...":
            following = wanted[i + 1 : i + 2]
            while following and place < len(found) and not alike(following[0], found[place]):
                place += 1
            place = place if following else len(found)
        elif place < len(found) and alike(line, found[place]):
            place += 1
        else:
            return f"the page shows {line!r}, printed is {found[place] if place < len(found) else 'nothing more'!r}"
    return f"printed but not shown: {found[place]!r}" if place < len(found) else ""


def lines_of(text):
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def alike(shown, printed):
    if NUMBER.sub("#", shown) != NUMBER.sub("#", printed):
        return False
    return all(map(close, NUMBER.findall(shown), NUMBER.findall(printed)))


def close(shown, printed):
    wanted, found = (float(text.replace(",", "").replace("−", "-")) for text in (shown, printed))
    decimals = len(shown.partition("e")[0].partition(".")[2])
    return abs(wanted - found) <= 0.05 * abs(wanted) + (2 * 10**-decimals if decimals else 0)


def headings(page):
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
