"""How close do guides come to long MCMC runs, and do their verdicts say so? ``python -m benchmarks.posteriordb --root DIR``

`DIR` holds ``data/NAME.json`` and ``reference/NAME.npz`` (names, mean, sd, q05, q95, draws), as made from posteriordb
(https://github.com/stan-dev/posteriordb). Each method is one call with its defaults: nothing is tuned to a posterior.
Errors are those of the estimate that the verdict certifies, the guide's own draws or the importance-weighted ones.

    python -m benchmarks.posteriordb --root DIR --methods ladder --seeds 3 --json ladder.json
    python -m benchmarks.posteriordb --report ladder.json nuts.json           # the tables of earlier runs; fits nothing
    python -m benchmarks.posteriordb --root DIR --check                       # are the models the references'?
    python -m benchmarks.posteriordb --root DIR --models my_models.py         # a file with POSTERIORS = [...]
    python -m benchmarks.posteriordb --root DIR --methods ladder "NumPyro NUTS" "NumPyro AutoNormal"

The first run of a posterior compiles; what it made stays in $VIPACK_CACHE. `seconds` are those of fit and diagnosis, and
`compile` the part of them that went into capturing and compiling; `fit_cpu` and `diagnose_cpu` are processor time, the
fairer figure on a busy machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import importlib.util
import json
import math
import os
import runpy
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from tqdm import tqdm

import vipack as vi
from benchmarks.estimates import Reference, Result, cpu_clock, judge
from benchmarks.posteriordb_models import POSTERIORS, Posterior, flat_names
from benchmarks.reference_draws import check, evidence, read_reference
from vipack.errors import VipackError

__all__ = ["METHODS", "beside", "main", "run", "summary", "table"]

NUM_DRAWS = 20_000  # the mean of a hundred parameters is then within .025 sd of its own limit
# The errors that long MCMC runs of these posteriors stay within; and an error of the evidence, in nats.
MEAN_LIMIT, SD_LIMIT, QUANTILE_LIMIT, EVIDENCE_LIMIT = 0.05, 0.10, 0.02, 0.05

Method = Callable[[Posterior, Path, int, Reference], Result]


def guided(name: str, guide: object, steps: int | None = None) -> Method:
    """The method that fits `guide` by ``vipack.fit`` with its defaults; None is the ladder."""

    def method(posterior: Posterior, root: Path, seed: int, reference: Reference) -> Result:
        data = posterior.data(root)
        start, cpu_start = time.perf_counter(), cpu_clock()
        fit = vi.fit(posterior.model, guide, data=data, seed=seed, steps=steps)
        fitted, cpu_fitted = time.perf_counter(), cpu_clock()
        found = fit.diagnose(seed=seed)
        seconds = fitted - start, time.perf_counter() - fitted
        cpu = cpu_fitted - cpu_start, cpu_clock() - cpu_fitted
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

    @functools.cache
    def reference_of(posterior: Posterior) -> Reference:
        return read_reference(root, posterior.name, evidence(posterior, root))

    bar = tqdm(plan, unit="fit")
    for posterior, method, seed in bar:
        bar.set_postfix_str(f"{posterior.name} {method} {seed}")
        try:
            row = methods[method](posterior, root, seed, reference_of(posterior))
        except VipackError as error:
            row = _failed(posterior.name, method, seed, error)
        rows.append(row)
        tqdm.write(_line(row))
        keep(rows)
    return rows


def table(rows: list[Result]) -> pd.DataFrame:
    """One row a posterior and method: the worst errors of its seeds, the verdicts and the median times."""
    by_fit = _frame(rows).groupby(["posterior", "method"], sort=False)
    return by_fit.agg(
        verdicts=("verdict", _counted),
        mean=("mean_error", "max"),
        sd=("sd_error", "max"),
        tails=("quantile_error", "max"),
        khat=("khat", "max"),
        ess=("ess_share", "min"),
        evidence=("evidence", "median"),
        off=("evidence_error", "max"),
        seconds=("total", "median"),
        slowest=("total", "max"),
        fit_cpu=("cpu_seconds", "median"),
        diagnose_cpu=("diagnose_cpu_seconds", "median"),
        compile=("compile_seconds", "max"),
    )


def beside(rows: list[Result]) -> pd.DataFrame:
    """One row a posterior, a column a method: the worst ``max(mean error, sd error)``, and after a / that of the tails."""
    cells: dict[tuple[str, str], list[Result]] = {}
    for row in rows:
        cells.setdefault((row.posterior, row.method), []).append(row)
    found = pd.Series(
        {
            key: f"{_worst(r.error for r in part):.2f}/{_worst(r.quantile_error for r in part):.3f}"
            for key, part in cells.items()
        }
    )
    methods = dict.fromkeys(row.method for row in rows)
    return found.unstack()[list(methods)].reindex(dict.fromkeys(row.posterior for row in rows)).fillna("-")


def summary(rows: list[Result]) -> pd.DataFrame:
    """One row a method: fits within the limits and certified, fits beyond them and certified, and times."""
    found = {}
    for method in dict.fromkeys(row.method for row in rows):
        of_method = [row for row in rows if row.method == method]
        good = [_is_good(row) for row in of_method]
        sure = [row.certified != "none" for row in of_method]
        frame = _frame(of_method)
        found[method] = {
            "fits": len(of_method),
            "good": sum(good),
            "good and certified": sum(g and s for g, s in zip(good, sure, strict=True)),
            "not good, certified": sum(s and not g for g, s in zip(good, sure, strict=True)),
            "error > .2, certified": sum(s and not row.error <= 0.2 for row, s in zip(of_method, sure, strict=True)),
            "median s": frame["total"].median(),
            "slowest s": frame["total"].max(),
            "median cpu": frame["total_cpu"].median(),
            "most cpu": frame["total_cpu"].max(),
        }
    return pd.DataFrame.from_dict(found, orient="index")


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    methods = with_peers()
    parser = _parser(list(methods))
    options = parser.parse_args(argv)
    if options.report:
        _print([Result(**row) for file in options.report for row in json.loads(file.read_text())])
        return 0
    if options.root is None:
        parser.error("--root: say which folder has data/ and reference/, or give --report.")
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
    if options.check:
        print(check(chosen, options.root).to_string(float_format="{:.3f}".format))
        return 0
    print(f"{os.cpu_count()} cores, torch with {torch.get_num_threads()} thread(s)")
    wanted_methods = {name: methods[name] for name in options.methods}
    _print(run(chosen, wanted_methods, range(options.seeds), options.root, _keeper(options.json)))
    return 0


def _print(rows: list[Result]) -> None:
    """The tables: a long one for each method with a verdict, one of all methods side by side, and the counts."""
    for method in dict.fromkeys(row.method for row in rows if row.verdict != "-"):
        long = table([row for row in rows if row.method == method]).droplevel("method")
        print(
            method, long.to_string(formatters=_FORMATS, float_format="{:.3f}".format, na_rep="-"), sep="\n", end="\n\n"
        )
    if len({row.method for row in rows}) > 1:
        print(beside(rows).to_string(), end="\n\n")
    print(summary(rows).to_string(float_format="{:.1f}".format))


_FORMATS = {
    **dict.fromkeys(("khat", "ess", "evidence"), "{:.2f}".format),
    **dict.fromkeys(("seconds", "slowest", "fit_cpu", "diagnose_cpu", "compile"), "{:.1f}".format),
}


def _is_good(row: Result) -> bool:
    """Within the limits, as far as the method and the reference have the figures."""
    pairs = (
        (row.mean_error, MEAN_LIMIT),
        (row.sd_error, SD_LIMIT),
        (row.quantile_error, QUANTILE_LIMIT),
        (row.evidence_error, EVIDENCE_LIMIT),
    )
    return not math.isnan(row.mean_error) and all(math.isnan(error) or error <= limit for error, limit in pairs)


def _frame(rows: list[Result]) -> pd.DataFrame:
    """One row a fit; its totals are those of fit and diagnosis."""
    frame = pd.DataFrame([dataclasses.asdict(row) | {"evidence_error": row.evidence_error} for row in rows])
    frame["total"] = frame["seconds"] + frame["diagnose_seconds"]
    frame["total_cpu"] = frame["cpu_seconds"] + frame["diagnose_cpu_seconds"].fillna(0.0)
    return frame


def _worst(errors: Iterable[float]) -> float:
    return float(np.max(list(errors)))


def _counted(verdicts: Iterable[str]) -> str:
    """``2 TRUST, 1 CORRECTED``; the bare verdict where there is one seed."""
    counts = Counter(verdicts)
    if counts.total() == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def _parser(methods: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with data/ and reference/")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="Python files with POSTERIORS = [...]")
    parser.add_argument("--only", nargs="*", default=[""], help="posteriors whose names contain one of these")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=methods)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all rows here, after each fit")
    parser.add_argument("--report", type=Path, nargs="*", help="make the tables of these --json files, fit nothing")
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
        f"tails {row.quantile_error:.3f} evidence {row.evidence_error:.3f} k-hat {row.khat:.2f} ESS {row.ess_share:.2f} "
        f"ELBO {row.elbo:.2f} {row.seconds:.1f} + {row.diagnose_seconds:.1f} s {row.note}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
