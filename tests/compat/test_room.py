"""Private names of torch and Pyro are used in one room only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import vipack
from vipack.compat import (  # noqa: F401  (register names)  # noqa: F401
    aten,
    autoguides,
    dispatch,
    enumerated,
    inductor,
    messengers,
    nn_modules,
    optimizer_state,
    packing,
    param_store,
    pytorch,
    pytree,
)
from vipack.compat.names import registered

ROOT = Path(vipack.__file__).parent
OWNERS = {"torch", "pyro"}
PROTOCOL = {
    "_pyro_sample",
    "_pyro_post_sample",
    "_pyro_param",
    "_pyro_post_param",
}  # by which Pyro calls subclasses
PYTHONS = {"_getframe", "_data", "_release_save", "_is_owned", "_acquire_restore", "_SubParsersAction", "_actions"}
PYTHONS |= {"_repr_html_", "_fields"}  # of named tuples and notebooks


def is_private(name: str) -> bool:
    return re.match(r"_(?!_|vipack_)\w", name) is not None


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] != "compat":
            yield path, ast.parse(path.read_text())


def own_names(tree: ast.Module) -> set[str]:
    """What a module defines, or sets on its own objects."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_of_self(node):
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


LEAVES = {leaf for name in registered() for leaf in re.findall(r"(?<!\w)_[A-Za-z]\w*", name)}  # as they stand in code


def test_no_other_room_imports_private_modules_or_names():
    wrong = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWNERS:
                parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                parts = [p for a in node.names if a.name.split(".")[0] in OWNERS for p in a.name.split(".")]
            else:
                continue
            wrong += [f"{path.name}:{node.lineno} {part}" for part in parts if is_private(part)]
    assert wrong == []


def test_no_other_room_uses_private_attributes():
    ours = set().union(*(own_names(tree) for _, tree in trees())) - LEAVES
    wrong = []
    for path, tree in trees():
        own = own_names(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not is_private(node.attr) or node.attr in PYTHONS | PROTOCOL:
                continue
            if node.attr not in ours and not (is_of_self(node) and node.attr in own):
                wrong.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []


def test_no_other_room_spells_a_private_name_out():
    """As by ``getattr(value, "_version")`` or ``vars(module)["_modules"]``."""
    own = {"_parameters"}  # an attribute of vipack.SVI
    wrong = [
        f"{path.name}:{node.lineno} {node.value!r}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in LEAVES - own
    ]
    assert wrong == []


def test_every_name_says_what_is_lost():
    for name, private in registered().items():
        assert len(private.without) > 15, name
        assert not private.without.endswith("."), name
