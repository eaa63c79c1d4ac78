"""Tutorials as notebooks: ``python docs/site/notebooks.py docs/tutorials build/tutorials`` executes each and writes it as .ipynb.

A tutorial is a Python file whose cells begin with ``# %%`` (code) or ``# %% [markdown]`` (text, as comments): the form that Jupytext, VS Code and
PyCharm read too. It is reviewed as text, and its outputs are never committed. A cell that raises an error ends the build.
"""

import concurrent.futures
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

CELL = re.compile(r"^# %%(?P<kind> \[markdown\])?$", re.MULTILINE)


def notebook_of(text: str) -> dict:
    """The cells of a tutorial as a notebook of format 4, without outputs."""
    starts = list(CELL.finditer(text))
    ends = [match.start() for match in starts[1:]] + [len(text)]
    cells = []
    for number, (match, end) in enumerate(zip(starts, ends, strict=True)):
        source = text[match.end() : end].strip("\n")
        cell = {"id": f"cell-{number}", "metadata": {}, "source": source}
        if match["kind"]:
            lines = [re.sub(r"^# ?", "", line) for line in source.split("\n")]
            cells.append({**cell, "cell_type": "markdown", "source": "\n".join(lines)})
        else:
            cells.append({**cell, "cell_type": "code", "execution_count": None, "outputs": []})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


def execute(notebook: dict, folder: Path) -> dict:
    """The notebook with what its cells gave, run by a kernel of this Python in a folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised an error.
    """
    import nbclient
    import nbformat

    node = nbformat.from_dict(notebook)
    client = nbclient.NotebookClient(node, timeout=600, resources={"metadata": {"path": str(folder)}})
    quiet = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's wish for ipywidgets, as Pyro imports it
    client.execute(env={**os.environ, **quiet, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    return json.loads(nbformat.writes(node))


def build(source: Path, target: Path) -> tuple[str, float]:
    """Execute one tutorial; its name and the seconds that it took."""
    start = time.perf_counter()
    folder = target.parent / "work" / source.stem
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier run has left
    folder.mkdir(parents=True)
    notebook = execute(notebook_of(source.read_text(encoding="utf-8")), folder.resolve())
    seconds = time.perf_counter() - start
    notebook["metadata"]["vipack"] = {"seconds": round(seconds, 1)}
    target.write_text(json.dumps(notebook, indent=1), encoding="utf-8")
    return source.stem, seconds


def main(sources: Path, folder: Path) -> None:
    """Execute all tutorials of a folder whose notebooks are not up to date, two at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    package = max(path.stat().st_mtime for path in (Path(__file__).parents[2] / "vipack").rglob("*.py"))
    stale = []
    for source in sorted(sources.glob("*.py")):
        target = folder / f"{source.stem}.ipynb"
        if not target.exists() or target.stat().st_mtime < max(source.stat().st_mtime, package):
            stale.append((source, target))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, seconds in pool.map(lambda pair: build(*pair), stale):
            print(f"{name}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
