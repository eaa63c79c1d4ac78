"""Which names are public, where each is defined, and what its docstring says: read from the source, which is not run."""

import ast
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PublicName", "public_names", "rooms"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class PublicName:
    """A name as users write it, where it is defined, and its docstring; a module's own name is empty."""

    room: str
    name: str
    module: str
    docstring: str

    @property
    def home(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def rooms() -> list[str]:
    """``vipack``, its rooms, and the rooms that these hand on as public names of their own."""
    listed = ["vipack"]
    for room in listed:
        listed += [f"{room}.{name}" for name in exported(room) if is_module(room, name)]
    return listed


def public_names(room: str) -> list[PublicName]:
    """The names of a room that are no rooms themselves; none is left out, documented or not."""
    return [
        resolved(room, room, name) for name in exported(room) if not name.startswith("__") and not is_module(room, name)
    ]


def is_module(room: str, name: str) -> bool:
    """Whether a name is a module of the room's folder, and not what the room hands on from one of that name."""
    from_modules = {
        alias.asname or alias.name
        for node in ast.walk(tree_of(room))
        if isinstance(node, ast.ImportFrom) and node.module != room
        for alias in node.names
    }
    return name not in from_modules and path_of(f"{room}.{name}") is not None


def resolved(room: str, module: str, name: str) -> PublicName:
    """Where `name` of `module` is defined, through the imports that hand it on.

    Raises:
        LookupError: nowhere.
    """
    tree = tree_of(module)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return PublicName(room, name, module, ast.get_docstring(node) or "")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return resolved(room, node.module, alias.name)
    for i, node in enumerate(tree.body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            following = tree.body[i + 1] if i + 1 < len(tree.body) else None
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            return PublicName(room, name, module, str(following.value.value) if is_text else "")
    raise LookupError(f"{module} has no {name}")


def exported(module: str) -> list[str]:
    """Its ``__all__``."""
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


def tree_of(module: str) -> ast.Module:
    path = path_of(module)
    if path is None:
        raise LookupError(f"there is no module {module}")
    return ast.parse(path.read_text(encoding="utf-8"))


def path_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)
