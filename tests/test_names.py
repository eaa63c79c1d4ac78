"""Names say what they hold, in the words of CONTRIBUTING's glossary."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import vipack

ROOT = Path(vipack.__file__).parent
REFUSED = {
    "found", "held", "leaf", "leaves", "lending", "made", "part", "parts", "place", "places", "placing", "reach", "skinny",
    "taken", "thing", "things", "unit", "units", "watch", "way", "ways",
}  # fmt: skip
TERMS = {"held_out", "score_parts"}  # the field's, and a method of Pyro's distributions


def stored(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that something is stored under, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node.lineno


def refused(name: str) -> set[str]:
    if name in TERMS:
        return set()
    return REFUSED & set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))


def test_no_name_is_a_word_of_our_own():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in sorted(ROOT.rglob("*.py"))
        for name, line in stored(ast.parse(path.read_text()))
        if refused(name)
    ]
    assert wrong == []


def test_no_file_is_called_by_one():
    assert [path.name for path in ROOT.rglob("*.py") if refused(path.stem)] == []


def test_few_files_in_different_rooms_share_a_name():
    names = [path.name for path in ROOT.rglob("*.py") if path.name != "__init__.py"]
    assert len({name for name in names if names.count(name) > 1}) < 5


def test_a_refused_word_is_seen():
    tree = ast.parse("def f(place): found_rows = self.ways = 1\nclass SomeParts: ...")
    assert sorted(word for name, _ in stored(tree) for word in refused(name)) == ["found", "parts", "place", "ways"]
