"""How often is the verdict wrong? ``python -m benchmarks.verdict_grid --json grid.json --markdown docs/verdict_grid.md``

Models whose posterior is known exactly, fitted by five guides and by full-rank guides that were sabotaged. A fit is bad
where the estimate that its verdict certifies has a mean off by more than 0.2 posterior sds or an sd by more than 0.2 in
its logarithm, or where it certifies tails or the evidence, and the posterior's 5% or 95% quantile has a share of the draws
below it that is off by more than 0.02, or log p(x) is off by more than 0.05 nats. A verdict "within one of 2 equal modes" is
held to one of them, and the evidence to all. A fit is good where its draws, raw or weighted, are within the bounds of means
and sds. No bad fit may be certified, and few good ones refused. The same fits show whether ``vipack.compare`` puts the best
first, and how often its standard errors cover the true difference. ``--root DIR`` adds the posteriors of posteriordb (see benchmarks/posteriordb.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from tqdm import tqdm

import vipack as vi
from benchmarks.estimates import Result, judge
from benchmarks.known_posteriors import KNOWN, Known
from benchmarks.posteriordb_models import POSTERIORS, flat_names
from benchmarks.reference_draws import read_reference
from benchmarks.sabotage import SABOTAGE
from benchmarks.tail_posteriors import TAILS
from vipack.errors import VipackError, VipackWarning
from vipack.guides import Flow
from vipack.importance import KHAT_LIMIT

__all__ = ["LIMIT", "main", "tally"]

LIMIT = 0.2  # of an error: mean in posterior sds, sd in its logarithm
TAIL_LIMIT, EVIDENCE_LIMIT = 0.02, 0.05  # of a probability, of log p(x) in nats
TOLERANCE = 0.1  # nats by which the first of a comparison may fall short of the best
NUM_DRAWS = 20_000
STEPS = 3_000
REPEATS = 20  # comparisons of the same fits
COMPARED = ((4_000, 4), (1_000, 1))  # draws in each of so many sets: the defaults of vipack.compare, and few

Keep = Callable[[list[Result], list[dict[str, Any]]], None]

GUIDES: dict[str, Any] = {
    "AutoNormal": AutoNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": AutoLowRankMultivariateNormal,
    "Flow": Flow,
    "ladder": None,
}


def honest(known: Known, guide: str, seed: int, engine: Any) -> vi.Fit:
    """A fit with nothing wrong but, perhaps, the guide's family."""
    if guide == "ladder":
        return vi.fit(known.model, data=known.data, seed=seed, dtype=torch.float64)
    options = {"steps": STEPS, "engine": engine, "dtype": torch.float64}
    return vi.fit(known.model, GUIDES[guide], data=known.data, seed=seed, **options)


def row(known: Known, fit: vi.Fit, method: str, seed: int, note: str, seconds: float) -> Result:
    """The fit's errors and verdict, with whatever figures the diagnosis has."""
    start = time.perf_counter()
    found = fit.diagnose(seed=seed)
    diagnosed = time.perf_counter() - start
    draws = fit.posterior.draws(NUM_DRAWS, seed=seed + 100)
    flat = flat_names({**draws.latents, **draws.deterministic})
    named, truth = (known.name, method, seed), known.truth
    if (
        found.copies is not None and found.copies.count > 1 and known.one_mode is not None
    ):  # "within one of 2 equal modes"
        flat, truth = {**flat, "z": flat["z"].abs()}, known.one_mode
    result = judge(named, fit, found, flat, draws.log_weights, truth, (seconds, diagnosed))
    return dataclasses.replace(result, note=note, figures=_numbers(dataclasses.asdict(found)))


def run(models: Iterable[Known], options: argparse.Namespace, keep: Keep) -> tuple[list[Result], list[dict[str, Any]]]:
    """All fits, and all comparisons of the honest ones; `keep` gets both after every fit."""
    rows: list[Result] = []
    comparisons: list[dict[str, Any]] = []
    for known, seed in tqdm([(known, seed) for known in models for seed in options.seeds], unit="model"):
        if options.comparisons:
            fits = {guide: honest(known, guide, seed, options.engine) for guide in options.guides}
        else:
            fits = _judged(known, seed, options, rows, functools.partial(keep, rows, comparisons))
        if len(fits) > 1:
            comparisons.extend(compare(known.name, seed, fits, options.reference))
            keep(rows, comparisons)
    return rows, comparisons


def _judged(
    known: Known, seed: int, options: argparse.Namespace, rows: list[Result], keep: Callable[[], None]
) -> dict[str, vi.Fit]:
    """The honest fits, with their rows and those of the sabotaged ones added."""
    fits: dict[str, vi.Fit] = {}
    for guide in options.guides:
        make = functools.partial(honest, known, guide, seed, options.engine)
        fits |= _add(rows, known, guide, seed, "honest", make)
        keep()
    full_rank = fits.get("AutoMultivariateNormal")
    for name, saboteur in SABOTAGE.items() if full_rank is not None else ():
        if name != "dropped mode" or known.modes:
            wrong = functools.partial(saboteur, known, full_rank, seed)
            _add(rows, known, "AutoMultivariateNormal", seed, name, wrong)
            keep()
    return fits


def compare(name: str, seed: int, fits: dict[str, vi.Fit], num_reference: int) -> list[dict[str, Any]]:
    """Twenty comparisons of the same fits for each number of draws, each against ELBOs of `num_reference` other draws.

    With forty times the draws of a comparison, what the reference itself is off by lowers a coverage of 95% by 0.3%.
    """
    # Seeds of their own for every model: guides of one size would share their random numbers, and miss together.
    seeds = np.random.SeedSequence([seed, *name.encode()]).generate_state(len(COMPARED) * REPEATS + 1).tolist()
    last = seeds.pop()
    exact = {guide: float(fit.log_weights(num_reference, seed=last).mean()) for guide, fit in fits.items()}
    found = []
    for num_draws, repeats in COMPARED:
        for _ in range(REPEATS):
            table = vi.compare(fits, num_draws=num_draws, repeats=repeats, seed=seeds.pop(), chains=False, modes=False)
            first, *others = table.index
            pairs = [(exact[first] - exact[other], table.loc[other]) for other in others]
            z = [(difference - row.elbo_diff) / row.diff_se for difference, row in pairs]
            khats = [float(row.diff_khat) for _, row in pairs]
            short = max(exact.values()) - exact[first]
            figures = {
                "draws": num_draws * repeats,
                "reference": num_reference,
                "first": first,
                "short": short,
                "z": z,
                "khats": khats,
            }
            found.append({"posterior": name, "seed": seed, **figures})
    return found


def tally(rows: list[Result]) -> pd.DataFrame:
    """The verdict's errors by kind of fit, and over all."""
    groups = {kind: [r for r in rows if kind in (r.note, r.method)] for kind in [*GUIDES, *SABOTAGE]}
    for guide in GUIDES:
        groups[guide] = [r for r in groups[guide] if r.note == "honest"]
    groups |= {"all": rows}
    return pd.DataFrame.from_dict({kind: _counts(part) for kind, part in groups.items() if part}, orient="index")


def is_good(result: Result) -> bool:
    """The draws of the fit, raw or weighted, are within the limit."""
    return min(max(result.raw), max(result.corrected)) <= LIMIT


def is_bad_and_certified(result: Result) -> bool:
    """The verdict vouches for an estimate that is off."""
    if result.certified == "none":
        return False
    tails = result.certified_tails and not result.quantile_error <= TAIL_LIMIT
    return (
        not result.error <= LIMIT
        or tails
        or (result.certified_evidence and not result.evidence_error <= EVIDENCE_LIMIT)
    )


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.report:
        return _finish(*_read(options.report), options.markdown)
    models = [*KNOWN, *TAILS, *(_from_posteriordb(options.root) if options.root else [])]
    models = [known for known in models if any(part in known.name for part in options.only)]

    def keep(rows: list[Result], comparisons: list[dict[str, Any]]) -> None:
        if options.json is not None:
            content = {"rows": [dataclasses.asdict(r) for r in rows], "comparisons": comparisons}
            options.json.write_text(json.dumps(content, indent=1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VipackWarning)  # sabotage is full of them
        warnings.simplefilter("ignore", RuntimeWarning)
        rows, comparisons = run(models, options, keep)
    return _finish(rows, comparisons, options.markdown)


def _read(files: list[Path]) -> tuple[list[Result], list[dict[str, Any]]]:
    contents = [json.loads(file.read_text()) for file in files]
    rows = [
        Result(**{**r, "raw": tuple(r["raw"]), "corrected": tuple(r["corrected"])}) for c in contents for r in c["rows"]
    ]
    return rows, [comparison for c in contents for comparison in c["comparisons"]]


def _finish(rows: list[Result], comparisons: list[dict[str, Any]], page: Path | None) -> int:
    text = report(rows, comparisons) if rows else _compared(comparisons)
    print(text)
    if page is not None:
        page.write_text(text)
    return 0


def report(rows: list[Result], comparisons: list[dict[str, Any]]) -> str:
    """The tables, as a page."""
    made = [r for r in rows if r.verdict != "ERROR"]
    seeds = " ".join(str(seed) for seed in sorted({r.seed for r in rows}))
    parts = [_PAGE.format(models=len({r.posterior for r in rows}), seeds=seeds, fits=len(made))]
    parts += ["## The verdict's errors", _block(tally(made))]
    wrong = [r for r in made if is_bad_and_certified(r)]
    shy = [r for r in made if is_good(r) and r.certified == "none"]
    for title, part in (("Bad, and certified", wrong), ("Good, and refused", shy)):
        parts += [f"## {title}", _block(_listed(part)) if part else "None."]
    parts += ["## All fits (of tails and evidence, a star says that they are certified)", _block(_listed(made))]
    if len(made) < len(rows):
        parts += ["## Not fitted", *(f"- {r.posterior}, {r.method}, {r.note}" for r in rows if r.verdict == "ERROR")]
    if comparisons:
        parts += [_compared(comparisons).strip()]
    parts += [f"{_spent(rows)}, by the clock of a machine with {os.cpu_count()} cores."]
    return "\n\n".join(parts) + "\n"


_PAGE = """# How often is the verdict wrong?

{fits} fits: {models} models whose posterior is known exactly, seeds {seeds}, five guides with their defaults, and full-rank
guides that were sabotaged. A fit is **bad** where the estimate that its verdict certifies has a mean off by more than 0.2
posterior sds or an sd by more than 0.2 in its logarithm, or where it certifies tails or the evidence, and a 5% or 95% quantile
is off by more than 0.02 in probability, or log p(x) by more than 0.05 nats. It is **good** where its draws, raw or weighted,
are within the bounds of means and sds. Of those certified, `tails good` and `evidence good` are within these bounds, and
`refused` are those of them whose tails or evidence the verdict leaves uncertified.

```sh
python -m benchmarks.verdict_grid --engine auto --seeds {seeds} --json grid.json --markdown docs/verdict_grid.md
```

Parts of it can run side by side with `--only`, `--seeds` and `--guides`; `--report` puts their files together."""


def _listed(rows: list[Result]) -> pd.DataFrame:
    columns = ["posterior", "method", "note", "seed", "verdict", "certified"]
    frame = pd.DataFrame([{c: getattr(r, c) for c in columns} for r in rows])
    frame["raw mean"], frame["raw sd"] = [r.raw[0] for r in rows], [r.raw[1] for r in rows]
    frame["weighted mean"], frame["weighted sd"] = [r.corrected[0] for r in rows], [r.corrected[1] for r in rows]
    frame["tails"] = [f"{r.quantile_error:.3f}{'*' * r.certified_tails}" for r in rows]
    frame["evidence off"] = [f"{r.evidence_error:.3f}{'*' * r.certified_evidence}" for r in rows]
    frame["k-hat"], frame["ESS share"] = [r.khat for r in rows], [r.ess_share for r in rows]
    return frame.set_index("posterior")


_COMPARISONS = """## Comparisons

`vipack.compare` put first the guide with the highest ELBO, or one within {tolerance} nats of it, in {first:.1%} of {count} comparisons of the
sound fits (at most {short:.3f} nats short). How often its paired differences were within so many of their standard errors of the difference
over {reference:,} other draws, by the number of draws (the defaults make 16,000) and the k-hat of the differences (`diff_khat`):

{table}

`--comparisons` makes this section alone.
"""


def _compared(comparisons: list[dict[str, Any]]) -> str:
    """How often the best came first, and how often a paired standard error covered the true difference."""
    short = np.array([c["short"] for c in comparisons])
    pairs = [(c["draws"], *pair) for c in comparisons for pair in zip(c["z"], c["khats"], strict=True)]
    frame = pd.DataFrame(pairs, columns=["draws", "z", "khat"]).dropna()
    rows: dict[str, pd.DataFrame] = {}
    for draws, part in frame.groupby("draws", sort=False):
        low = part["khat"] < KHAT_LIMIT
        rows |= {f"{draws:,} draws": part, f"{draws:,}, k-hat < {KHAT_LIMIT}": part[low]}
        rows |= {f"{draws:,}, k-hat >= {KHAT_LIMIT}": part[~low]}
    covered = {"(nominal)": {"pairs": "", "1 se": "68.3%", "1.96 se": "95.0%"}} | {
        name: {
            "pairs": len(part),
            "1 se": f"{np.mean(part['z'].abs() < 1):.1%}",
            "1.96 se": f"{np.mean(part['z'].abs() < 1.96):.1%}",
        }
        for name, part in rows.items()
        if len(part)
    }
    return _COMPARISONS.format(
        tolerance=TOLERANCE,
        first=np.mean(short <= TOLERANCE),
        count=len(short),
        short=short.max(),
        reference=comparisons[0]["reference"],
        table=_block(pd.DataFrame.from_dict(covered, orient="index")),
    )


def _spent(rows: list[Result]) -> str:
    fitting, judging = sum(r.seconds for r in rows if r.seconds > 0), sum(r.diagnose_seconds for r in rows)
    return f"{fitting / 60:.0f} minutes went into fitting, compiling included, and {judging / 60:.0f} into verdicts"


def _block(frame: pd.DataFrame) -> str:
    return f"```text\n{frame.to_string(float_format='{:.2f}'.format)}\n```"


def _add(rows: list[Result], known: Known, method: str, seed: int, note: str, make: Any) -> dict[str, vi.Fit]:
    """Fit, judge and keep the row; the fit by its method's name, or nothing where it cannot be fitted."""
    start = time.perf_counter()
    try:
        fit = make()
        rows.append(row(known, fit, method, seed, note, time.perf_counter() - start))
    except VipackError as error:
        # A fit that is refused with a reason misleads nobody; it is in the table, and counts as neither good nor bad.
        tqdm.write(f"{known.name}, {method}, {note}, seed {seed}: {error}")
        rows.append(_refused(known, method, seed, f"{note}: {type(error).__name__}: {error}"))
        return {}
    last = rows[-1]
    shy = "good, refused" * (is_good(last) and last.certified == "none")
    flag = "BAD, CERTIFIED" if is_bad_and_certified(last) else shy
    tqdm.write(
        f"{known.name:22s} {method:30s} {note:24s} {seed} {last.verdict:9s} raw {last.raw[0]:.2f} {last.raw[1]:.2f} "
        f"corrected {last.corrected[0]:.2f} {last.corrected[1]:.2f} tails {last.quantile_error:.3f}{'*' * last.certified_tails} "
        f"evidence {last.evidence_error:.3f}{'*' * last.certified_evidence} k-hat {last.khat:.2f} ESS {last.ess_share:.2f} "
        f"{last.seconds:.1f} + {last.diagnose_seconds:.1f} s {flag}"
    )
    return {method: fit}


def _refused(known: Known, method: str, seed: int, note: str) -> Result:
    none = (math.nan, math.nan)
    return Result(known.name, method, seed, "ERROR", "none", *none, none, none, *[math.nan] * 7, note=note)


def _counts(rows: list[Result]) -> dict[str, Any]:
    good = [r for r in rows if is_good(r)]
    refused = [r for r in good if r.certified == "none"]
    certified = [r for r in rows if r.certified != "none"]
    tails = [r for r in certified if r.quantile_error <= TAIL_LIMIT]
    evidence = [r for r in certified if r.evidence_error <= EVIDENCE_LIMIT]
    return {
        "fits": len(rows),
        "TRUST": sum(r.verdict == "TRUST" for r in rows),
        "CORRECTED": sum(r.verdict == "CORRECTED" for r in rows),
        "DISTRUST": sum(r.verdict == "DISTRUST" for r in rows),
        "bad, certified": sum(is_bad_and_certified(r) for r in rows),
        "good": len(good),
        "good, refused": len(refused),
        "refused, %": 100 * len(refused) / len(good) if good else math.nan,
        "tails good": len(tails),
        "tails refused": sum(not r.certified_tails for r in tails),
        "evidence good": len(evidence),
        "evidence refused": sum(not r.certified_evidence for r in evidence),
    }


def _numbers(found: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The diagnosis' numbers by dotted name: arrays by their largest absolute value, lists of others by their length."""
    numbers: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, dict):
            numbers |= _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            numbers[prefix + name] = float(value)
        elif isinstance(value, np.ndarray | tuple | list):
            array = np.asarray(value)
            if array.dtype.kind in "fiu" and array.size:
                numbers[prefix + name] = float(np.max(np.abs(array)))
            elif isinstance(value, tuple | list):
                numbers[f"{prefix}len({name})"] = float(len(value))
    return numbers


def _from_posteriordb(root: Path) -> list[Known]:
    names = [path.stem for path in sorted((root / "reference").glob("*.npz")) if path.stem in POSTERIORS]
    return [
        Known(name, POSTERIORS[name].model, POSTERIORS[name].data(root), read_reference(root, name)) for name in names
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="also fit the posteriors of posteriordb in this folder")
    parser.add_argument("--only", nargs="*", default=[""], help="models whose names contain one of these")
    parser.add_argument("--guides", nargs="*", default=list(GUIDES), choices=list(GUIDES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--comparisons", action="store_true", help="compare the sound fits, judge none")
    parser.add_argument("--reference", type=int, default=640_000, help="draws that comparisons are held against")
    parser.add_argument("--engine", default="compiled", help="of the honest fits; what it builds serves every seed")
    parser.add_argument(
        "--report", type=Path, nargs="*", help="make the tables of these earlier --json files, fit nothing"
    )
    parser.add_argument("--json", type=Path, help="write all rows here, after each model")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
