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
from vipack.types import Estimate

__all__ = ["Reference", "Result", "cpu_clock", "errors", "judge", "quantile_error", "unjudged"]

NO_EVIDENCE = Estimate(math.nan, math.nan)


@dataclass(frozen=True)
class Reference:
    """Names ``(P,)`` and the true mean and sd of each.

    Attributes:
        quantiles: probability -> ``(P,)``; empty where they are not known.
        evidence: log p(x), in nats; NaN where it is not known.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    quantiles: Mapping[float, np.ndarray] = field(default_factory=dict)
    evidence: Estimate = NO_EVIDENCE


@dataclass(frozen=True)
class Result:
    """One fit against its reference. Errors are in units of the reference's sd and of its logarithm.

    Attributes:
        certified: "raw", "corrected" or "none": the estimate that the verdict vouches for, and whose errors
            ``mean_error``, ``sd_error`` and ``quantile_error`` are. Where it vouches for none they are the better
            ones of the two.
        quantile_error: of a tail, on the probability scale; NaN where the reference has no quantiles.
        certified_tails, certified_evidence: whether the verdict vouches for them too.
        true_evidence: the reference's, with its standard error; NaN where it has none.
        seconds: wall time of the fit, compiling included; ``diagnose_seconds`` come on top.
        cpu_seconds: processor time of the fit and of the compilers that it started; on a busy machine the fairer one;
            ``diagnose_cpu_seconds`` come on top.
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
    diagnose_cpu_seconds: float = math.nan
    quantile_error: float = math.nan
    true_evidence: float = math.nan
    true_evidence_se: float = math.nan
    certified_tails: bool = False
    certified_evidence: bool = False

    @property
    def evidence_error(self) -> float:
        """``|evidence - true_evidence|``, in nats."""
        return abs(self.evidence - self.true_evidence)

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
    table, shares = _table(reference, draws, weights)
    mean = shares @ table
    sd = np.sqrt(shares @ (table - mean) ** 2)
    with np.errstate(divide="ignore"):
        ratio = np.abs(np.log(sd / reference.sd))
    return float(np.max(np.abs(mean - reference.mean) / reference.sd)), float(np.max(ratio))


def quantile_error(reference: Reference, draws: Mapping[str, Tensor], weights: np.ndarray | None = None) -> float:
    """``max |share of draws below the reference's quantile - its probability|`` over names and probabilities.

    Args:
        draws: flat name -> ``(S,)``.
        weights: ``(S,)``, which need not sum to one; even by default.

    Returns:
        NaN where the reference has no quantiles.

    Raises:
        KeyError: a name of the reference is not among the draws.
    """
    table, shares = _table(reference, draws, weights)
    return max(
        (float(np.abs(shares @ (table < at) - probability).max()) for probability, at in reference.quantiles.items()),
        default=math.nan,
    )


def judge(
    name: tuple[str, str, int],
    fit: Fit,
    found: Diagnosis,
    flat: Mapping[str, Tensor],
    log_weights: Tensor,
    reference: Reference,
    seconds: tuple[float, float],
    cpu_seconds: tuple[float, float] = (math.nan, math.nan),
) -> Result:
    """The row of one fit.

    Args:
        name: of posterior, method and seed.
        flat: draws of the guide by flat name, ``(S,)``, whose log importance ratios are `log_weights` ``(S,)``.
        seconds: of the fit and of the diagnosis.
        cpu_seconds: likewise.
    """
    weights = np.exp(importance(log_weights).log_weights)
    raw, corrected = errors(reference, flat), errors(reference, flat, weights)
    certified = {Verdict.TRUST: "raw", Verdict.CORRECTED: "corrected", Verdict.DISTRUST: "none"}[found.verdict]
    best = {"raw": raw, "corrected": corrected, "none": min(raw, corrected, key=_larger)}[certified]
    tails = quantile_error(reference, flat, weights if best is corrected else None)
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
        cpu_seconds=cpu_seconds[0],
        diagnose_cpu_seconds=cpu_seconds[1],
        compile_seconds=fit.engine.capture_seconds + fit.engine.compile_seconds,
        note="+".join(stage.name for stage in fit.stages if stage.kept),
        quantile_error=tails,
        true_evidence=reference.evidence.value,
        true_evidence_se=reference.evidence.se,
        certified_tails="tails" in found.certified,
        certified_evidence="evidence" in found.certified,
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
    flat = flat_names({site: torch.from_numpy(np.array(values)) for site, values in draws.items()})
    found, none = errors(reference, flat), math.nan
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
        quantile_error=quantile_error(reference, flat),
        true_evidence=reference.evidence.value,
        true_evidence_se=reference.evidence.se,
    )


def cpu_clock() -> float:
    """Seconds of processor time that this process and its finished children have had."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _table(
    reference: Reference, draws: Mapping[str, Tensor], weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draws ``(S, P)`` in the order of the reference's names, and weights ``(S,)`` that sum to one."""
    missing = [name for name in reference.names if name not in draws]
    if missing:
        raise KeyError(f"the draws lack {missing}; they have {sorted(draws)}.")
    table = np.stack([np.asarray(draws[name], dtype=np.float64) for name in reference.names], axis=1)
    return table, np.full(len(table), 1 / len(table)) if weights is None else weights / weights.sum()


def _larger(pair: tuple[float, float]) -> float:
    return math.inf if any(math.isnan(value) for value in pair) else max(pair)
