"""How fast the engine is, beside its peers: ``python -m benchmarks.engine`` (or ``make bench``).

Each problem runs in a process of its own with so many processors; its methods take turns, and medians are compared.
Parts: steps (time a step of every tier and peer), auto (whole runs of "auto" against each tier), cold (first compile and
second process), growth (with rows and latents), memory, restarts, loops (over time), first (1,000 steps of vi.SVI with an empty cache),
uncaptured (programs that stay with Pyro).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine_problems import NAMES
from benchmarks.engine_problems.placement import device_name
from benchmarks.engine_problems.runs import PARTS
from benchmarks.engine_problems.table import auto_table, plain_table, steps_table


def main() -> int:
    """Run the parts asked for, print their tables, and save everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", default=["steps"], help=f"steps, {', '.join(PARTS)} or all (default: steps)"
    )
    parser.add_argument("--problems", default="", help="only those whose names hold one of these, by semicolons")
    parser.add_argument("--methods", default="", help="only those whose names hold one of these, by commas")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu", help="of the part steps: cpu (default) or cuda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="a turn of one method")
    parser.add_argument("--root", type=Path, help="folder with images/mnist_static_bin.npz; made-up images without it")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/engine.json"))
    options = parser.parse_args()
    parts = ["steps", *PARTS] if "all" in options.parts else options.parts
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    results["machine"] = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"
    for part in parts:
        if part == "steps":
            for threads in options.threads if options.device == "cpu" else [1]:
                where = f"{threads} thread(s)" if options.device == "cpu" else device_name(options.device)
                found = results.setdefault(f"steps, {where}", {})
                for name in _wanted(options):
                    found[name] = _steps(name, threads, options)
                    print(steps_table({name: found[name]}, where), flush=True)
        else:
            results[part] = _child("benchmarks.engine_problems.runs", part)
            print(auto_table(results[part]) if part == "auto" else plain_table(part, results[part]))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1))
    print(f"saved to {options.out}")
    return 0


def _wanted(options: argparse.Namespace) -> list[str]:
    wanted = [w.strip() for w in options.problems.split(";") if w.strip()]
    return [n for n in NAMES if not wanted or any(w in n for w in wanted)]


def _steps(name: str, threads: int, options: argparse.Namespace) -> Any:
    print(f"{name}, {threads} thread(s)", file=sys.stderr)
    arguments = [name, "--threads", threads, "--rounds", options.rounds, "--seconds", options.seconds]
    arguments += ["--device", options.device]
    arguments += ["--methods", options.methods] if options.methods else []
    arguments += ["--root", options.root] if options.root else []
    return _child("benchmarks.engine_problems.measure", *arguments)


def _child(module: str, *arguments: object) -> Any:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        return {"failed": {"reason": f"exit code {finished.returncode}"}}
    return json.loads(finished.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
