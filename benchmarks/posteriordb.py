"""How close do guides come to long MCMC runs, and do their verdicts say so? ``python -m benchmarks.posteriordb --root DIR``

`DIR` holds ``data/NAME.json`` and ``reference/NAME.npz`` (names, mean, sd), as made from posteriordb
(https://github.com/stan-dev/posteriordb). Each method is one call with its defaults: nothing is tuned to a posterior.
Errors are those of the estimate that the verdict certifies, the guide's own draws or the importance-weighted ones.

    python -m benchmarks.posteriordb --root DIR --methods ladder --seeds 3 --json ladder.json
    python -m benchmarks.posteriordb --root DIR --check                       # are the models the references'?
    python -m benchmarks.posteriordb --root DIR --models my_models.py         # a file with POSTERIORS = [...]
    python -m benchmarks.posteriordb --root DIR --methods ladder "NumPyro NUTS" "NumPyro AutoNormal"

The first run of a posterior compiles; what it made stays in $VIPACK_CACHE. `compile` is the part of `seconds` that went
into capturing and compiling; `cpu` is processor time, the fairer figure on a busy machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import math
import os
import runpy
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from tqdm import tqdm

import vipack as vi
from benchmarks.estimates import Reference, Result, cpu_clock, judge
from benchmarks.posteriordb_models import POSTERIORS, Posterior, flat_names, shaped
from vipack.errors import VipackError
from vipack.program import Arguments, LogJoint, Program, seeded

__all__ = ["METHODS", "check", "main", "read_reference", "run", "table"]

NUM_DRAWS = 20_000  # the mean of a hundred parameters is then within .025 sd of its own limit
MEAN_LIMIT, SD_LIMIT = 0.05, 0.10  # the errors that long MCMC runs of these posteriors stay within

Method = Callable[[Posterior, Path, int, Reference], Result]


def guided(name: str, guide: object, steps: int | None = None) -> Method:
    """The method that fits `guide` by ``vipack.fit`` with its defaults; None is the ladder."""

    def method(posterior: Posterior, root: Path, seed: int, reference: Reference) -> Result:
        data = posterior.data(root)
        start, cpu_start = time.perf_counter(), cpu_clock()
        fit = vi.fit(posterior.model, guide, data=data, seed=seed, steps=steps)
        fitted, cpu = time.perf_counter(), cpu_clock() - cpu_start
        found = fit.diagnose(seed=seed)
        seconds = fitted - start, time.perf_counter() - fitted
        draws = fit.posterior.draws(NUM_DRAWS, seed=seed + 1)
        flat = flat_names({**draws.latents, **draws.deterministic})
        return judge((posterior.name, name, seed), fit, found, flat, draws.log_weights, reference, seconds, cpu)

    return method


METHODS: dict[str, Method] = {
    "ladder": guided("ladder", None),
    "AutoNormal": guided("AutoNormal", AutoNormal),
    "AutoMultivariateNormal": guided("AutoMultivariateNormal", AutoMultivariateNormal),
    "AutoIAFNormal": guided("AutoIAFNormal", AutoIAFNormal),
}


def with_peers() -> dict[str, Method]:
    """All methods; those of NumPyro and PyMC where these are installed (``pip install vipack[bench]``, ``pymc``)."""
    found = dict(METHODS)
    for package in ("numpyro", "pymc"):
        if importlib.util.find_spec(package) is not None:
            found |= importlib.import_module(f"benchmarks.{package}_methods").METHODS
    return found


def read_reference(root: Path, name: str) -> Reference:
    """The reference of the posterior `name`."""
    with np.load(root / "reference" / f"{name}.npz") as file:
        return Reference(tuple(str(n) for n in file["names"]), file["mean"], file["sd"])


def run(
    posteriors: Iterable[Posterior],
    methods: Mapping[str, Method],
    seeds: Iterable[int],
    root: Path,
    keep: Callable[[list[Result]], None],
) -> list[Result]:
    """Every method on every posterior with every seed; what cannot be fitted becomes a row that says why.

    Args:
        keep: called with all rows so far after each one.
    """
    plan = [(p, m, s) for p in posteriors for m in methods for s in seeds]
    rows: list[Result] = []
    bar = tqdm(plan, unit="fit")
    for posterior, method, seed in bar:
        bar.set_postfix_str(f"{posterior.name} {method} {seed}")
        try:
            row = methods[method](posterior, root, seed, read_reference(root, posterior.name))
        except VipackError as error:
            row = _failed(posterior.name, method, seed, error)
        rows.append(row)
        tqdm.write(_line(row))
        keep(rows)
    return rows


def table(rows: list[Result]) -> pd.DataFrame:
    """One row a posterior and method: the worst error of its seeds, the verdicts and the median time."""
    frame = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    return frame.groupby(["posterior", "method"], sort=False).agg(
        mean_error=("mean_error", "max"),
        sd_error=("sd_error", "max"),
        verdicts=("verdict", lambda column: " ".join(sorted(column))),
        khat=("khat", "max"),
        ess_share=("ess_share", "min"),
        elbo=("elbo", "min"),
        evidence=("evidence", "median"),
        seconds=("seconds", "median"),
        slowest=("seconds", "max"),
        cpu=("cpu_seconds", "median"),
        compile=("compile_seconds", "max"),
    )


def summary(rows: list[Result]) -> pd.DataFrame:
    """One row a method: fits within the limits and certified, fits far off and certified, and times."""
    found = {}
    for method in dict.fromkeys(row.method for row in rows):
        of_method = [row for row in rows if row.method == method]
        good = [row.mean_error <= MEAN_LIMIT and row.sd_error <= SD_LIMIT for row in of_method]
        sure = [row.certified != "none" for row in of_method]
        found[method] = {
            "fits": len(of_method),
            "good and certified": sum(g and s for g, s in zip(good, sure, strict=True)),
            "good, not certified": sum(g and not s for g, s in zip(good, sure, strict=True)),
            "error > .2, certified": sum(s and not row.error <= 0.2 for row, s in zip(of_method, sure, strict=True)),
            "median seconds": float(np.median([row.seconds for row in of_method])),
            "slowest": max(row.seconds for row in of_method),
            "median cpu": float(np.median([row.cpu_seconds for row in of_method])),
        }
    return pd.DataFrame.from_dict(found, orient="index")


def check(posteriors: Iterable[Posterior], root: Path, num_draws: int = 200) -> pd.DataFrame:
    """Are the models the references' own? z-scores of two identities that hold under no other posterior.

    With u drawn from the posterior on R^D, the score has mean zero, and its product with u - E[u] has mean minus one.
    The reference's draws give both; the larger of the D z-scores of each stays below 4 where the model is right.
    """
    rows = {}
    for posterior in tqdm(list(posteriors), unit="model"):
        program = Program(posterior.model, _no_guide, dtype=torch.float64, device=torch.device("cpu"))
        with seeded(0):
            joint = LogJoint(program, Arguments((), posterior.data(root)))
        with np.load(root / "reference" / f"{posterior.name}.npz") as file:
            chosen = np.linspace(0, len(file["draws"]) - 1, num_draws).astype(int)
            columns = torch.from_numpy(file["draws"][chosen]).double().T
            named = dict(zip((str(n) for n in file["names"]), columns, strict=True))
        latents = posterior.latents(shaped(named))
        u = torch.stack([joint.unconstrain({s: latents[s][i] for s in joint.shapes}) for i in range(num_draws)])
        score, value = torch.func.vmap(torch.func.grad_and_value(joint))(u)
        product = (u - u.mean(0)) * score + 1
        rows[posterior.name] = {
            "dim": joint.dim,
            "finite": bool(value.isfinite().all() and score.isfinite().all()),
            "score z": _largest_z(score),
            "product z": _largest_z(product),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    methods = with_peers()
    options = _parser(list(methods)).parse_args(argv)
    known = dict(POSTERIORS)
    for file in options.models:
        known |= {posterior.name: posterior for posterior in runpy.run_path(str(file))["POSTERIORS"]}
    references = sorted(path.stem for path in (options.root / "reference").glob("*.npz"))
    wanted = [name for name in references if any(part in name for part in options.only)]
    for name in (name for name in wanted if name not in known):
        print(f"{name}: no model is known; give one in a file to --models.")
    chosen = [known[name] for name in wanted if name in known]
    if not chosen:
        print(f"nothing to fit: {options.root}/reference has no posterior that was asked for.")
        return 2
    with pd.option_context("display.width", 200, "display.max_columns", 20, "display.float_format", "{:.3f}".format):
        if options.check:
            print(check(chosen, options.root).to_string())
            return 0
        print(f"{os.cpu_count()} cores, torch with {torch.get_num_threads()} thread(s)")
        wanted_methods = {name: methods[name] for name in options.methods}
        rows = run(chosen, wanted_methods, range(options.seeds), options.root, _keeper(options.json))
        print(table(rows).to_string(), summary(rows).to_string(), sep="\n\n")
    return 0


def _parser(methods: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder with data/ and reference/")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="Python files with POSTERIORS = [...]")
    parser.add_argument("--only", nargs="*", default=[""], help="posteriors whose names contain one of these")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=methods)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all rows here, after each fit")
    parser.add_argument("--check", action="store_true", help="hold the models to the references' draws, fit nothing")
    return parser


def _keeper(path: Path | None) -> Callable[[list[Result]], None]:
    def keep(rows: list[Result]) -> None:
        if path is not None:
            path.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))

    return keep


def _failed(posterior: str, method: str, seed: int, error: VipackError) -> Result:
    none = (math.nan, math.nan)
    figures = [math.nan] * 7
    return Result(posterior, method, seed, "ERROR", "none", *none, none, none, *figures, note=str(error))


def _line(row: Result) -> str:
    return (
        f"{row.posterior:42s} {row.method:22s} {row.seed} {row.verdict:9s} mean {row.mean_error:.3f} sd {row.sd_error:.3f} "
        f"k-hat {row.khat:.2f} ESS {row.ess_share:.2f} ELBO {row.elbo:.2f} {row.seconds:.1f} s {row.note}"
    )


def _largest_z(values: torch.Tensor) -> float:
    return float((values.mean(0) / values.std(0)).abs().max()) * math.sqrt(len(values))


def _no_guide(**_: torch.Tensor) -> None:
    pass


if __name__ == "__main__":
    raise SystemExit(main())
