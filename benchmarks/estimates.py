"""How far a fit's estimates are from a reference's: the figures by which the benchmarks of trust judge."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from benchmarks.posteriordb_models import flat_names
from vipack import Fit
from vipack.diagnostics import Diagnosis, Verdict, importance

__all__ = ["Reference", "Result", "cpu_clock", "errors", "judge", "unjudged"]


@dataclass(frozen=True)
class Reference:
    """Names ``(P,)`` and the true mean and sd of each."""

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray


@dataclass(frozen=True)
class Result:
    """One fit against its reference. Errors are in units of the reference's sd and of its logarithm.

    Attributes:
        certified: "raw", "corrected" or "none": the estimate that the verdict vouches for, and whose errors
            ``mean_error`` and ``sd_error`` are. Where it vouches for none they are the better ones of the two.
        seconds: wall time of the fit, compiling included; ``diagnose_seconds`` come on top.
        cpu_seconds: processor time of the fit and of the compilers that it started; on a busy machine the fairer one.
        note: the ladder's stages that were kept, or what went wrong.
        figures: further numbers of the diagnosis.
    """

    posterior: str
    method: str
    seed: int
    verdict: str
    certified: str
    mean_error: float
    sd_error: float
    raw: tuple[float, float]
    corrected: tuple[float, float]
    khat: float
    ess_share: float
    elbo: float
    elbo_se: float
    evidence: float
    evidence_se: float
    seconds: float
    diagnose_seconds: float = 0.0
    cpu_seconds: float = math.nan
    compile_seconds: float = 0.0
    note: str = ""
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """The larger one of both errors."""
        return max(self.mean_error, self.sd_error)


def errors(reference: Reference, draws: Mapping[str, Tensor], weights: np.ndarray | None = None) -> tuple[float, float]:
    """``max |mean - mean_ref| / sd_ref`` and ``max |log(sd / sd_ref)|`` over the reference's names.

    Args:
        draws: flat name -> ``(S,)``.
        weights: ``(S,)``, which need not sum to one; even by default.

    Raises:
        KeyError: a name of the reference is not among the draws.
    """
    missing = [name for name in reference.names if name not in draws]
    if missing:
        raise KeyError(f"the draws lack {missing}; they have {sorted(draws)}.")
    table = np.stack([np.asarray(draws[name], dtype=np.float64) for name in reference.names], axis=1)
    shares = np.full(len(table), 1 / len(table)) if weights is None else weights / weights.sum()
    mean = shares @ table
    sd = np.sqrt(shares @ (table - mean) ** 2)
    with np.errstate(divide="ignore"):
        ratio = np.abs(np.log(sd / reference.sd))
    return float(np.max(np.abs(mean - reference.mean) / reference.sd)), float(np.max(ratio))


def judge(
    name: tuple[str, str, int],
    fit: Fit,
    found: Diagnosis,
    flat: Mapping[str, Tensor],
    log_weights: Tensor,
    reference: Reference,
    seconds: tuple[float, float],
    cpu_seconds: float = math.nan,
) -> Result:
    """The row of one fit.

    Args:
        name: of posterior, method and seed.
        flat: draws of the guide by flat name, ``(S,)``, whose log importance ratios are `log_weights` ``(S,)``.
        seconds: of the fit and of the diagnosis.
        cpu_seconds: of the fit.
    """
    raw = errors(reference, flat)
    corrected = errors(reference, flat, np.exp(importance(log_weights).log_weights))
    certified = {Verdict.TRUST: "raw", Verdict.CORRECTED: "corrected", Verdict.DISTRUST: "none"}[found.verdict]
    best = {"raw": raw, "corrected": corrected, "none": min(raw, corrected, key=_larger)}[certified]
    return Result(
        *name,
        verdict=found.verdict.value,
        certified=certified,
        mean_error=best[0],
        sd_error=best[1],
        raw=raw,
        corrected=corrected,
        khat=found.khat,
        ess_share=found.ess / found.num_draws,
        elbo=found.elbo.value,
        elbo_se=found.elbo.se,
        evidence=found.evidence.value,
        evidence_se=found.evidence.se,
        seconds=seconds[0],
        diagnose_seconds=seconds[1],
        cpu_seconds=cpu_seconds,
        compile_seconds=fit.engine.capture_seconds + fit.engine.compile_seconds,
        note="+".join(stage.name for stage in fit.stages if stage.kept),
    )


def unjudged(
    name: tuple[str, str, int],
    draws: Mapping[str, np.ndarray],
    reference: Reference,
    seconds: tuple[float, float],
    elbo: float,
    note: str = "",
) -> Result:
    """The row of a method that gives no verdict.

    Args:
        draws: site -> ``(S, *shape)``.
        seconds: of the clock and of processors.
    """
    found = errors(reference, flat_names({site: torch.from_numpy(np.array(values)) for site, values in draws.items()}))
    none = math.nan
    return Result(
        *name,
        verdict="-",
        certified="none",
        mean_error=found[0],
        sd_error=found[1],
        raw=found,
        corrected=(none, none),
        khat=none,
        ess_share=none,
        elbo=elbo,
        elbo_se=none,
        evidence=none,
        evidence_se=none,
        seconds=seconds[0],
        cpu_seconds=seconds[1],
        note=note,
    )


def cpu_clock() -> float:
    """Seconds of processor time that this process and its finished children have had."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _larger(pair: tuple[float, float]) -> float:
    return math.inf if any(math.isnan(value) for value in pair) else max(pair)
