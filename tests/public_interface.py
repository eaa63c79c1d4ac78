"""All public names with their signatures, a line each: ``python -m tests.public_interface`` writes the file that a test compares with.

A change of a line is a change that users meet: it belongs in CHANGELOG.md, and a name that goes is deprecated first.
"""

import enum
import importlib
import inspect
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_suffix(".txt")
sys.path.insert(0, str(ROOT / "docs" / "site"))
from public_names import public_names, rooms  # noqa: E402

sys.path.pop(0)


def interface() -> list[str]:
    """Names, parameters and defaults; of classes their public methods and properties too."""
    lines = []
    for room in rooms():
        module = importlib.import_module(room)
        for each in public_names(room):
            lines += described(f"{room}.{each.name}", getattr(module, each.name))
    return lines


def described(name, value):
    if not inspect.isclass(value):
        return [f"{name}{signature(value)}" if callable(value) else name]
    if issubclass(value, BaseException | enum.Enum):
        return [f"{name}({', '.join(base.__name__ for base in value.__bases__)})"]
    lines = [f"{name}{signature(value)}"]
    for attribute in sorted(set(dir(value))):
        owner = next((kind for kind in value.__mro__ if attribute in vars(kind)), object)
        if attribute.startswith("_") or not owner.__module__.startswith("vipack"):
            continue
        member = getattr(value, attribute)
        lines.append(f"{name}.{attribute}{signature(member) if callable(member) else ''}")
    return lines


def signature(function):
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return "(...)"
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    shown = [
        parameter.replace(default=Shown(parameter.default))
        for parameter in plain
        if parameter.default is not parameter.empty
    ]
    names = {parameter.name: parameter for parameter in shown}
    return str(inspect.Signature([names.get(parameter.name, parameter) for parameter in plain]))


class Shown:
    """A default as text that no run of Python changes."""

    def __init__(self, value):
        self.text = repr(value)
        if isinstance(value, set | frozenset):  # whose order changes from run to run
            self.text = f"<{len(value)} of them>"
        elif " at 0x" in self.text:
            self.text = f"<{getattr(value, '__name__', type(value).__name__)}>"

    def __repr__(self):
        return self.text


if __name__ == "__main__":
    FILE.write_text("\n".join(interface()) + "\n", encoding="utf-8")
