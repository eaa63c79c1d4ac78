"""The site has an entry for every public name, and its menu every page."""

import difflib
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import vipack
from tests.public_interface import FILE, interface, public_names, rooms
from vipack.report.fitted import Fitted

ROOT = Path(__file__).parents[1]
ROOMS = rooms()


def test_the_rooms_are_those_that_python_sees():
    modules = {name for name in vipack.__all__ if type(getattr(vipack, name)).__name__ == "module"}
    assert {f"vipack.{name}" for name in modules} <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_entry_with_a_docstring(room):
    module = importlib.import_module(room)
    listed = {each.name: each for each in public_names(room)}
    named = {name for name in module.__all__ if not name.startswith("__")}
    assert named == set(listed) | {each.rpartition(".")[2] for each in ROOMS if each.rpartition(".")[0] == room}
    for name, each in listed.items():
        home = importlib.import_module(each.module)
        assert getattr(home, each.name) is getattr(module, name), each.home
        assert each.docstring, f"{room}.{name}"


def test_every_public_method_is_documented_or_overrides_one_that_is():
    wrong = [
        f"{kind.__module__}.{kind.__qualname__}.{name}"
        for kind in classes()
        for name, member in vars(kind).items()
        if not name.startswith("_") and name not in vars(kind).get("__annotations__", {})
        if inspect.isroutine(member) or isinstance(member, property)
        if not inspect.getdoc(getattr(kind, name))
    ]
    assert wrong == []


def classes():
    """All of vipack's that are not private; of those that only say what they read of a fit, none."""
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(vipack.__path__, "vipack.")]
    kinds = {kind for module in modules for kind in vars(module).values() if inspect.isclass(kind)}
    kinds = {kind for kind in kinds if kind.__module__.startswith("vipack.") and "<locals>" not in kind.__qualname__}
    ours = {kind for kind in kinds if not kind.__name__.startswith("_")}
    return sorted(ours - {Fitted}, key=lambda kind: (kind.__module__, kind.__qualname__))


BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {
    page: page.read_text() for page in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/tutorials/*.py"))
}
RUN = "\n".join(
    [text if page.suffix == ".py" else "\n".join(BLOCK.findall(text)) for page, text in PAGES.items()]
    + [path.read_text() for path in ROOT.glob("examples/*.py")]
)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_stands_on_a_page_and_in_code_that_runs(room):
    # The blocks of pages are run by tests/test_docs.py, tutorials by `make site`, examples by tests/test_examples.py.
    names = {each.name for each in public_names(room)}
    assert {name for name in names if not any(re.search(rf"\b{name}\b", text) for text in PAGES.values())} == set()
    assert {name for name in names if not re.search(rf"\b{name}\b", RUN)} == set()


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r"([\w-]+\.md)\s*$", menu, re.MULTILINE))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_public_names_and_signatures_change_on_purpose():
    changed = list(
        difflib.unified_diff(FILE.read_text().splitlines(), interface(), "as written", "as it is", lineterm="", n=0)
    )
    assert changed == [], (
        "if that is meant: CHANGELOG.md, a deprecation of what goes, and python -m tests.public_interface"
    )
