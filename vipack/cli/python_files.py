"""Models and guides out of Python files, named as FILE.py:NAME."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from vipack.errors import UsageError
from vipack.hints import name_hint

__all__ = ["load_object"]


def load_object(spec: str, what: str) -> Any:
    """What FILE.py calls NAME. A file is run once, so that a model and a guide from it share their networks.

    Args:
        spec: FILE.py:NAME.
        what: "model" or "guide", for messages.

    Raises:
        UsageError: no such file or name, or the file raises; its line is named.
    """
    file, colon, name = spec.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise UsageError(f"{what} {spec!r}: expected FILE.py:NAME, such as models.py:{what}.")
    path = Path(file)
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "no such file"
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], n=1)
        reason += f", did you mean {str(path.with_name(near[0]))!r}?" if near else ""
        raise UsageError(
            f"{what} {spec!r}: {file}: {reason}; give the path of a Python file (looked from {Path.cwd()})."
        )
    module = _run_file(path.resolve())
    if not hasattr(module, name):
        own = _own_names(module)
        hint = name_hint(name, own)
        raise UsageError(
            f"{what} {spec!r}: {file} has no {name!r}; {hint + ' ' if hint else ''}it defines {', '.join(own) or 'nothing'}."
        )
    value = getattr(module, name)
    if not callable(value):
        raise UsageError(f"{what} {spec!r}: is a {type(value).__name__}, expected a function or another callable.")
    if what == "model" and isinstance(value, type):
        raise UsageError(f"{what} {spec!r}: is a class; name an instance of it, as after model = {name}().")
    return value


@functools.cache
def _run_file(path: Path) -> types.ModuleType:
    name = str(path)  # no importable module has such a name, so none is hidden
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # it knows what .py is
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as for any import: data classes and pickles look their module up
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # its neighbours can be imported, as when it is run itself
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UsageError(f"{error.filename or path} line {error.lineno}: {error.msg}; correct the file.") from error
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" line {lines[-1]}" if lines else ""
        advice = "install it, or run vipack where it is" if isinstance(error, ImportError) else "correct the file"
        if isinstance(error, SystemExit):
            advice = 'put what runs as a script under if __name__ == "__main__":'
        raise UsageError(f"{path}{where}: {type(error).__name__}: {error}; {advice}.") from error
    return module


def _own_names(module: types.ModuleType) -> list[str]:
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", module.__name__) == module.__name__
    ]
    return [name for name in own if not name.startswith("_")]
