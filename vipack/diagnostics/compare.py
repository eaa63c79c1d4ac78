"""Several fits of one data set side by side, best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from vipack.diagnostics.comparison_table import Comparison, Fitted
from vipack.diagnostics.grounds import Grounds
from vipack.diagnostics.judgement import ENDED
from vipack.diagnostics.report import Diagnosis
from vipack.diagnostics.rounding import COMPUTED, rounding
from vipack.diagnostics.rows import Weights, row_sampling_se
from vipack.diagnostics.verdict import DiagnosisOptions, diagnose_and_weigh
from vipack.distributed import (
    DataParallel,
    Processes,
    alone_or_together,
    check_alike,
    data_parallel_of,
    shared_out,
    started_processes,
)
from vipack.entry import entry
from vipack.errors import DataWarning, TrustWarning, UsageError, warn
from vipack.importance import khat_of_mean, mean_and_se
from vipack.progress import Interrupted, Progress, interrupts, progress_of
from vipack.types import Estimate

__all__ = ["check_fits", "compare"]


@entry
def compare(
    fits: Mapping[str, Fitted],
    *,
    num_draws: int = 4_000,
    seed: int = 0,
    repeats: int = 4,
    chains: bool = True,
    modes: bool = True,
    progress: bool | None = None,
    distributed: bool | DataParallel | None = None,
) -> Comparison:
    """One row a fit, the highest ELBO first: a DataFrame, which can write a page (:meth:`Comparison.report`).

    Columns: ``rank``; ``elbo`` and ``elbo_se``; ``elbo_diff``, how far below the best, with ``diff_se``, paired: draws
    of two guides share their random numbers, so that noise that both have in common drops out; ``diff_khat``, of the
    heavier tail of these differences: above 0.7 a few rare draws decide ``elbo_diff``, and ``diff_se`` may be far too
    small; ``evidence`` and ``evidence_se``, the importance estimate of log p(x); ``khat``; ``ess`` of `num_draws`;
    ``verdict`` and what is ``certified`` by it; ``copies``, how many equal modes symmetries make, of which the draws hold one:
    their log is in ``elbo`` and ``evidence``, so that fits of one mode and of all compare; ``seconds`` of training;
    ``stopped``, why training ended, "converged" or otherwise. All in nats but k-hats, ``ess`` and the last five.
    Answers of a fit that was not judged follow this verdict from then on, as after ``fit.diagnose()``. Ctrl-C ends the
    comparison once one fit is judged: the table then holds the fits so far, the last of them judged by what is known.

    Args:
        num_draws, seed, repeats, chains, modes, progress: as of :func:`vipack.diagnostics.diagnose`; ELBOs and their differences
            come from all ``repeats`` times `num_draws` draws.
        distributed: True, or a ``DataParallel``, deals the fits out to the processes that ``torchrun`` has started, each of which
            has all of them; every process gets the table that one would have made.

    Raises:
        UsageError: `fits` is empty or not a dict.
        ProcessError: a process ended, hangs, or has other fits.
        KeyboardInterrupt: Ctrl-C before the first fit was judged.

    Warns:
        DataWarning: the fits saw different data, so that their ELBOs cannot be compared.
        TrustWarning: Ctrl-C left fits out.
    """
    check_fits(fits)
    show, options = progress_of(progress), DiagnosisOptions(num_draws, seed, repeats, chains, modes)
    processes = started_processes(data_parallel_of(distributed))
    with alone_or_together(processes):
        if processes is not None:
            _check_alike(processes, fits, options)
            show = show if processes.rank == 0 else False
        judged = shared_out(
            processes, list(fits), lambda names: _judged(names, fits, options, show), "judging fits of a comparison"
        )
        ended = len(judged) < len(fits)
        interrupted = any(each.interrupted for each in judged) or ended
    diagnoses = {each.name: each.diagnosis for each in judged}
    weights = {each.name: each.weights for each in judged}
    for name, diagnosis in diagnoses.items():
        if fits[name].posterior.verdict is None:  # a diagnosis of its own may have looked closer
            fits[name].posterior.judge(diagnosis.judged, Grounds(diagnosis, weights[name]))
    if interrupted:
        _say_what_is_known(fits, diagnoses)
    order = sorted(diagnoses, key=lambda name: _sortable(_elbo(diagnoses[name]).value), reverse=True)
    best = weights[order[0]]
    eps = max(torch.finfo(fit.posterior.program.parameters.dtype).eps for fit in fits.values())
    rows = [
        _row(
            rank,
            diagnoses[name],
            _below(best.totals, weights[name].totals, eps),
            _by_rows(best, weights[name]),
            fits[name],
        )
        for rank, name in enumerate(order)
    ]
    return Comparison.of(pd.DataFrame(rows, index=pd.Index(order, name="fit")), fits, diagnoses)


class _Judged(NamedTuple):
    """One fit of a comparison; `interrupted` once Ctrl-C has come."""

    name: str
    diagnosis: Diagnosis
    weights: Weights
    interrupted: bool


def _judged(
    names: Sequence[str], fits: Mapping[str, Fitted], options: DiagnosisOptions, show: bool | None
) -> list[_Judged]:
    """Fits judged one after another, as far as Ctrl-C lets them be."""
    judged: list[_Judged] = []
    with interrupts() as interrupted:
        for number, name in enumerate(names, 1):
            fit = fits[name]
            bar = Progress(show, interrupted, f"{name} ({number} of {len(names)}): ")
            try:
                diagnosis, weights = diagnose_and_weigh(
                    fit.posterior, options, stopped=fit.stopped, several_starts=fit.several_starts, progress=bar
                )
            except Interrupted:
                break
            finally:
                bar.close()
            judged.append(_Judged(name, diagnosis, weights.of_copies(diagnosis.copies), bool(interrupted)))
            if interrupted:
                break
    return judged


def _check_alike(processes: Processes, fits: Mapping[str, Fitted], options: DiagnosisOptions) -> None:
    """
    Raises:
        ProcessError: on every process, where they have other fits.
    """
    own: dict[str, object] = {"names": " ".join(fits), "options": str(options)}
    own["data"] = [fit.data_fingerprint for fit in fits.values()]
    own["values"] = [fit.posterior.program.parameters.digest() for fit in fits.values()]
    phrases = {
        "names": "the fits have different names",
        "data": "the data differ",
        "values": "the fits have different parameters, as where each process has trained with another seed",
    }
    cure = "Every process must pass the same fits, as it has them after the same script."
    check_alike(processes, own, phrases, about="comparison", cure=cure)


def _say_what_is_known(fits: Mapping[str, Fitted], diagnoses: dict[str, Diagnosis]) -> None:
    """
    Raises:
        KeyboardInterrupt: no fit was judged.

    Warns:
        TrustWarning: Ctrl-C left fits out, or checks of the last one.
    """
    if not diagnoses:
        raise KeyboardInterrupt
    missing = [repr(name) for name in fits if name not in diagnoses]
    last = next(reversed(diagnoses))
    said = [f"{', '.join(missing)} not judged"] if missing else []
    if any(ENDED in each for each in diagnoses[last].skipped):
        said.append(f"{last!r} judged without {'; '.join(diagnoses[last].skipped)}")
    if said:
        warn(TrustWarning(f"compare: Ctrl-C ended the comparison: {', and '.join(said)}; call it again for the rest."))


def check_fits(fits: object) -> None:
    """
    Raises:
        UsageError: not a dict of at least one fit.

    Warns:
        DataWarning: the fits saw different data.
    """
    if not isinstance(fits, Mapping) or not fits:
        raise UsageError("fits: expected a dict of at least one name and fit, as in compare({'mean-field': fit}).")
    for name, fit in fits.items():
        if not hasattr(fit, "posterior"):
            raise UsageError(f"fits[{name!r}]: expected a Fit, found {type(fit).__name__}.")
    _same_data(fits)


def _below(best: np.ndarray, other: np.ndarray, eps: float) -> np.ndarray:
    """Differences draw by draw, none where they are but rounding of the weights that they are between.

    Guides whose weights are judged row by row have one set of draws, others several.
    """
    common = min(len(best), len(other))
    with np.errstate(invalid="ignore"):
        below: np.ndarray = best[:common] - other[:common]
        least = float(rounding(np.maximum(np.abs(best).max(), np.abs(other).max()), COMPUTED * eps))
        if np.abs(below.mean()) <= least and below.std() <= least:
            return np.zeros(common)
    return below


def _by_rows(best: Weights, other: Weights) -> float:
    """What the standard error of a difference owes to the rows that were looked at, where these are not all."""
    if best.row_means is None or other.row_means is None or len(best.row_means) != len(other.row_means):
        return 0.0
    return row_sampling_se(best.row_means - other.row_means, best.num_rows)


def _elbo(diagnosis: Diagnosis) -> Estimate:
    """Of the guide's copies in all equal modes, where it holds one of them."""
    return diagnosis.elbo if diagnosis.copies is None else diagnosis.copies.added_to(diagnosis.elbo)


def _row(rank: int, diagnosis: Diagnosis, below: np.ndarray, rows_se: float, fit: Fitted) -> dict[str, object]:
    # The draws of two guides share their random numbers one by one, which the standard error of the mean of the
    # differences accounts for, whether or not it makes them agree.
    difference = mean_and_se(below)
    return {
        "rank": rank,
        "elbo": _elbo(diagnosis).value,
        "elbo_se": diagnosis.elbo.se,
        "elbo_diff": difference.value,
        "diff_se": math.hypot(difference.se, rows_se) if rank else 0.0,
        "diff_khat": khat_of_mean(below),
        "evidence": diagnosis.evidence.value,
        "evidence_se": diagnosis.evidence.se,
        "khat": diagnosis.khat,
        "ess": diagnosis.ess,
        "verdict": diagnosis.verdict.value,
        "certified": diagnosis.certifies,
        "copies": 1 if diagnosis.copies is None else diagnosis.copies.count,
        "seconds": fit.seconds,
        "stopped": fit.stopped.reason.value,
    }


def _same_data(fits: Mapping[str, Fitted]) -> None:
    seen: dict[str, str] = {}
    for name, fit in fits.items():
        seen.setdefault(fit.data_fingerprint, name)
    if len(seen) > 1:
        listed = " and ".join(repr(name) for name in seen.values())
        warn(
            DataWarning(f"fits {listed} saw different data: their ELBOs are not comparable; fit them on the same data.")
        )


def _sortable(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
