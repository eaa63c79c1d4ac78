"""The verdict on a fit: which of its answers can be believed, on what figures, and what to try next."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from vipack.diagnostics.evidence import elbo, log_evidence
from vipack.diagnostics.importance import importance
from vipack.posterior import Draws, Posterior
from vipack.types import Estimate, Stopped, StopReason

__all__ = ["Diagnosis", "Verdict", "diagnose", "diagnose_draws"]

# From 89 fits of textbook models with known posteriors: what each bound lets pass and refuses is in docs/trust.md.
KHAT_LIMIT = 0.7
ESS_TRUST = 0.9
ESS_CORRECTED = 0.1
ESS_FLAT = 0.98  # weights this even make the tail fit behind k-hat meaningless
ROWS_LIMIT = 0.05  # share of rows that may have a k-hat above the limit


class Verdict(enum.Enum):
    """What a fit's figures certify.

    TRUST: the guide's own draws. CORRECTED: draws resampled with the importance weights. DISTRUST: neither.
    """

    TRUST = "TRUST"
    CORRECTED = "CORRECTED"
    DISTRUST = "DISTRUST"


@dataclass(frozen=True)
class Diagnosis:
    """The verdict with its figures. ELBO, evidence and gap are in nats.

    Attributes:
        gap: evidence - ELBO, an estimate of KL(q || p) that a missed mode escapes.
        reasons: in plain words, the deciding one first.
        advice: what to try next; empty when nothing is wrong.
    """

    verdict: Verdict
    elbo: Estimate
    evidence: Estimate
    khat: float
    ess: float
    num_draws: int
    reasons: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def gap(self) -> float:
        """``evidence - elbo``, in nats."""
        return self.evidence.value - self.elbo.value

    def __str__(self) -> str:
        lines = [
            f"{self.verdict.value}: {self.reasons[0]}",
            f"  ELBO {self.elbo}   log evidence {self.evidence}   gap {self.gap:.2f} nats",
            f"  k-hat {self.khat:.2f}   ESS {self.ess:.0f} of {self.num_draws} draws",
        ]
        lines += [f"  {reason}" for reason in self.reasons[1:]]
        lines += [f"  try: {advice}" for advice in self.advice]
        return "\n".join(lines)


def diagnose(
    posterior: Posterior, *, num_draws: int = 4_000, seed: int = 0, stopped: Stopped | None = None
) -> Diagnosis:
    """Judge a fitted guide by the importance weights of its own draws.

    Importance weights cannot see a mode that the guide misses altogether.

    Args:
        num_draws: S; k-hat scatters by about 0.2 at 1,000.
        stopped: how training ended, for the reasons.
    """
    return diagnose_draws(posterior.draws(num_draws, seed=seed, keep=False), stopped)


def diagnose_draws(draws: Draws, stopped: Stopped | None = None) -> Diagnosis:
    """The verdict on draws already made; see :func:`diagnose`."""
    if draws.row_log_weights is not None and draws.row_log_weights.shape[-1] > 1:
        found = _judge_rows(np.asarray(draws.row_log_weights))
    else:
        weights = importance(draws.log_weights)
        bound, evidence = elbo(draws.log_weights), log_evidence(draws.log_weights)
        found = (bound, evidence, weights.khat, weights.ess, *_judge(weights.khat, weights.ess_share))
    bound, evidence, khat, ess, verdict, reasons, advice = found
    if draws.points:
        verdict = Verdict.DISTRUST
        named = ", ".join(map(repr, draws.points))
        reasons = [f"the guide is a point at latent site(s) {named}: it has no spread there to trust"]
        advice = ["a guide with a density, such as AutoNormal or AutoMultivariateNormal"]
    verdict, reasons = _mind_the_odd(verdict, reasons, np.asarray(draws.log_weights.cpu()))
    verdict, reasons = _mind_the_end(verdict, reasons, stopped)
    return Diagnosis(verdict, bound, evidence, khat, ess, len(draws.log_q), tuple(reasons), tuple(advice))


def _judge(khat: float, share: float) -> tuple[Verdict, list[str], list[str]]:
    if share > ESS_FLAT or (khat < KHAT_LIMIT and share > ESS_TRUST):
        return Verdict.TRUST, [f"the importance weights are nearly even (ESS {share:.0%} of the draws)"], []
    if khat < KHAT_LIMIT and share > ESS_CORRECTED:
        reasons = [
            f"the guide is off, but its weights can mend it (k-hat {khat:.2f} below {KHAT_LIMIT}, ESS {share:.0%}): "
            "use draws resampled with the weights"
        ]
        return Verdict.CORRECTED, reasons, ["a richer guide, or more steps, if raw draws are needed"]
    why = f"k-hat {khat:.2f} is above {KHAT_LIMIT}" if khat >= KHAT_LIMIT else f"ESS is {share:.1%} of the draws"
    advice = [
        "more steps, if the loss still falls",
        "a richer guide: AutoMultivariateNormal for correlated latents, a normalizing flow for curved ones",
        "a non-centred parametrisation of hierarchical scales",
    ]
    return Verdict.DISTRUST, [f"the guide is far from the posterior: {why}"], advice


def _judge_rows(rows: np.ndarray) -> tuple[Estimate, Estimate, float, float, Verdict, list[str], list[str]]:
    """Every latent belongs to a row, as in a VAE: judge each row's own weights, since their product says nothing."""
    step = max(1, rows.shape[1] // 200)  # 200 rows give the share of bad ones to within 3%
    each = [importance(rows[:, i]) for i in range(0, rows.shape[1], step)]
    khats = np.array([weights.khat for weights in each])
    shares = np.array([weights.ess_share for weights in each])
    bad = float(np.mean((khats >= KHAT_LIMIT) & (shares <= ESS_FLAT)))
    # An infinite k-hat cannot be interpolated, so the quantile is one of the rows' own values.
    khat, share = float(np.quantile(khats, 0.95, method="higher")), float(np.quantile(shares, 0.05, method="lower"))
    verdict, reasons, advice = _judge(khat, share)
    if verdict is Verdict.DISTRUST and bad <= ROWS_LIMIT and share > ESS_CORRECTED:
        verdict, advice = Verdict.CORRECTED, []
    detail = f"judged row by row ({len(each)} rows; 95% are at least as good as the k-hat and ESS given)"
    reasons = [f"{reasons[0]}; {detail}"]
    return *_row_estimates(rows), khat, share * len(rows), verdict, reasons, advice


def _row_estimates(rows: np.ndarray) -> tuple[Estimate, Estimate]:
    """ELBO and log evidence of a product over rows, summed from ``(S, N)`` log weights; in nats."""
    count = len(rows)
    bound = Estimate(float(rows.mean(0).sum()), float(rows.sum(1).std(ddof=1)) / count**0.5)
    top = rows.max(0)
    weights = np.exp(rows - top)
    mean = weights.mean(0)
    se = weights.std(0, ddof=1) / mean / count**0.5
    return bound, Estimate(float((top + np.log(mean)).sum()), float(np.sqrt((se**2).sum())))


def _mind_the_odd(verdict: Verdict, reasons: list[str], log_weights: np.ndarray) -> tuple[Verdict, list[str]]:
    """Draws without a density: the ELBO that they make is no number, however even the other weights are."""
    count, outside = len(log_weights), int(np.isneginf(log_weights).sum())
    unknown = int((~np.isfinite(log_weights)).sum()) - outside
    if unknown:
        return Verdict.DISTRUST, [f"log p(x, z) or log q(z) is NaN or infinite at {unknown} of {count} draws", *reasons]
    if outside:
        reasons = [*reasons, f"{outside} of {count} draws lie where the model has no density, so the ELBO is -inf"]
        verdict = Verdict.CORRECTED if verdict is Verdict.TRUST else verdict
    return verdict, reasons


def _mind_the_end(verdict: Verdict, reasons: list[str], stopped: Stopped | None) -> tuple[Verdict, list[str]]:
    if stopped is None or stopped.reason not in (StopReason.DIVERGED, StopReason.INTERRUPTED):
        return verdict, reasons
    if stopped.reason is StopReason.DIVERGED and verdict is Verdict.TRUST:
        verdict = Verdict.CORRECTED
    return verdict, [*reasons, f"training ended early ({stopped})"]
