"""The floors of the house: an import goes to a lower floor or stays in its folder, and nothing goes in a circle."""

import ast
from pathlib import Path

import vipack

ROOT = Path(vipack.__file__).parent
FLOORS = {
    "display": 0.5,
    "errors": 1, "types": 1, "version": 1,
    "compat": 1.2, "hints": 1.2,
    "cache": 1.5, "importance": 1.5, "lock": 1.5, "schedules": 1.5, "transforms": 1.5, "pickling": 1.5, "progress": 1.5,
    "entry": 1.7, "distributed": 1.7,
    "program": 2, "datasets": 2, "sources": 2,
    "engine": 3, "guides": 3, "objectives": 3, "posterior": 3,
    "diagnostics": 4, "export": 4, "sparse": 4,
    "plots": 5,
    "report": 5.3,
    "training": 5.6,
    "vae": 6, "topics": 6,
    "cli": 7, "__main__": 8,
}  # fmt: skip
# Rooms within a room, and what lies beside them in its folder.
INNER_FLOORS = {
    "engine": {
        "guards": 1, "native": 1, "optimizers": 1,
        "graph": 2,
        "capture": 3, "inductor": 3, "interpreter": 3,
        "compiled": 4,
        "steps": 5,
        "": 6,
    },
    "program": {
        "running": 1, "sites": 1,
        "densities": 2,
        "": 3,
        "evaluation": 4,
        "checks": 5,
    },
}  # fmt: skip
MOST_FILES = 12  # in a folder within a room of rooms, headers included


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("relative import")
    return names


def edges() -> dict[str, set[str]]:
    known = modules()
    return {name: {i for i in imports(path) if i in known and i != name} for name, path in known.items()}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_floor():
    assert {room(m) for m in modules()} - {""} <= set(FLOORS)


def test_no_relative_imports():
    assert not [m for m, path in modules().items() if "relative import" in imports(path)]


def test_imports_go_down_or_stay_in_the_folder():
    wrong = [
        f"{module} (floor {FLOORS[room(module)]}) imports {target} (floor {FLOORS[room(target)]})"
        for module, targets in edges().items()
        if room(module)
        for target in targets
        if room(target) and room(target) != room(module) and FLOORS[room(target)] >= FLOORS[room(module)]
    ]
    assert wrong == []


def inner(module: str) -> str:
    """The room within its room that a module lies in; empty beside them."""
    parts = module.split(".")
    return parts[2] if len(parts) > 3 or (modules()[module].name == "__init__.py" and len(parts) == 3) else ""


def test_imports_go_down_within_a_room_of_rooms():
    wrong = [
        f"{module} (floor {floors[inner(module)]}) imports {target} (floor {floors[inner(target)]})"
        for outer, floors in INNER_FLOORS.items()
        for module, targets in edges().items()
        if room(module) == outer and module != f"vipack.{outer}"
        for target in targets
        if room(target) == outer
        and target != f"vipack.{outer}"
        and inner(target) != inner(module)
        and floors[inner(target)] >= floors[inner(module)]
    ]
    assert wrong == []


def test_no_folder_within_a_room_of_rooms_is_crowded():
    folders = [
        path
        for outer in INNER_FLOORS
        for path in (ROOT / outer).rglob("*")
        if path.is_dir() and path.name != "__pycache__"
    ]
    crowded = {
        f"{f.relative_to(ROOT)}": n for f in folders if (n := sum(p.is_file() for p in f.iterdir())) > MOST_FILES
    }
    assert crowded == {}


def test_no_file_is_long():
    long = {f"{p.relative_to(ROOT)}": n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


def test_only_the_face_and_the_command_line_import_the_face():
    wrong = [m for m, targets in edges().items() if "vipack" in targets and room(m) not in ("", "cli", "__main__")]
    assert wrong == []


def test_no_circles():
    graph = {m: {t for t in targets if room(t)} for m, targets in edges().items() if room(m)}
    # A package's __init__ hands names on from its modules; a module that imports its own package would close a circle.
    state: dict[str, str] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert state.get(module) != "open", " -> ".join([*trail, module])
        if state.get(module) == "done":
            return
        state[module] = "open"
        for target in graph.get(module, ()):
            visit(target, (*trail, module))
        state[module] = "done"

    for module in graph:
        visit(module, ())
