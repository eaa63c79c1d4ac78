"""Docstrings of the Python standard library, read from its source files: nothing is imported, for imports run code."""

from __future__ import annotations

import ast
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from vipack.errors import DataError, DataWarning, warn

__all__ = ["library_files", "library_texts", "prose"]

# Tests, IDLE and what was installed beside the library: their docstrings are other texts, or not there on every machine.
_SKIPPED = {"__pycache__", "dist-packages", "idle_test", "idlelib", "lib2to3", "site-packages", "test", "tests"}


def library_files(root: Path) -> list[Path]:
    """The source files under `root`, in alphabetical order, without tests, IDLE and installed packages.

    Raises:
        DataError: there are none.
    """
    files = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in _SKIPPED]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    if not files:
        raise DataError(
            f"{root}: found no .py files; the docstrings are read from the sources of Python's standard library, which "
            "this installation lacks. Use a Python that has them, or load your own texts with load_texts()."
        )
    return sorted(files)


def library_texts(root: Path, files: Iterable[Path]) -> tuple[list[str], list[str]]:
    """Texts and titles: one for each module (its docstring and its functions') and class (its own and its methods').

    Texts that stand twice are given once, under the first title.
    """
    titles: dict[str, str] = {}
    for path in files:
        names = path.relative_to(root).with_suffix("").parts
        module = ".".join(names[:-1] if names[-1] == "__init__" and len(names) > 1 else names)
        for title, docstrings in _documents(_parse(path), module):
            text = prose("\n\n".join(docstrings))
            if text:
                titles.setdefault(text, title)
    return list(titles), list(titles.values())


def prose(docstring: str) -> str:
    """`docstring` without what is code: doctest lines, addresses, dotted names, and names that are no words."""
    text = re.sub(r"(?m)^\s*(>>>|\.\.\.).*$", " ", docstring)
    text = re.sub(r"\w+://\S+|\S+@\S+", " ", text)
    text = re.sub(r"\w+(\.\w+)+|\b\w*(_|\d)\w*\b|\b\w*([a-z][A-Z]|[A-Z]{2}[a-z]{2})\w*\b", " ", text)
    return " ".join(text.split())


def _parse(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarning and DeprecationWarning about escapes in old sources
        try:
            return ast.parse(path.read_bytes(), filename=str(path))
        except (SyntaxError, ValueError) as error:
            problem = str(error)
    warn(DataWarning(f"{path}: is not Python that this version reads ({problem}); left out."))
    return ast.Module(body=[], type_ignores=[])


def _documents(node: ast.Module | ast.ClassDef, title: str) -> Iterator[tuple[str, list[str]]]:
    """The document of a module or class, then those of the classes in it."""
    own = [ast.get_docstring(node) or ""]
    classes = []
    for child in _definitions(node.body):
        if isinstance(child, ast.ClassDef):
            classes.append(child)
        else:
            own.append(ast.get_docstring(child) or "")
    yield title, own
    for child in classes:
        yield from _documents(child, f"{title}.{child.name}")


def _definitions(body: Iterable[ast.stmt]) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Classes and functions of a body, also those under ``if`` and ``try``."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            handlers = [s for handler in getattr(statement, "handlers", []) for s in handler.body]
            orelse, final = getattr(statement, "orelse", []), getattr(statement, "finalbody", [])
            yield from _definitions([*statement.body, *handlers, *orelse, *final])
