"""What a diagnosis says: the verdict, its figures and reasons, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vipack.diagnostics.drift import Drift
from vipack.diagnostics.modes import ModeSearch
from vipack.diagnostics.moments import Shift
from vipack.diagnostics.symmetries import Copies
from vipack.diagnostics.tails import NOT_CHECKED, Tails
from vipack.display import Readable, badge, block
from vipack.types import Estimate, Judged, Verdict

__all__ = ["Diagnosis", "Verdict"]


@dataclass(frozen=True, repr=False)
class Diagnosis(Readable):
    """The verdict with its figures. ELBO, evidence and gap are in nats.

    `certifies` says what can be believed, and of which draws: means and sds, unless the verdict is DISTRUST, and tails
    (5% and 95% quantiles, to 0.02 in probability) and the evidence (to 0.05 nats) where `doubts` has none of them.

    Attributes:
        evidence: the importance estimate of log p(x), by Pareto-smoothed weights; where the draws hold one of several equal
            modes, the log of their number is added.
        khat: the median over independent sets of draws; `khats` has each.
        ess: effective sample size of the weights, of `num_draws`.
        num_draws: in each set.
        reasons: in plain words, the deciding one first.
        advice: what to try next; empty when nothing is wrong.
        shift: how far the weights move each mean and sd; None where the weights are of no use, or the latents too many.
        drift: what short chains found; None where there were none.
        modes: what the search for other modes found; None where there was none.
        skipped: the checks that were not made, and why.
        copies: equal modes that symmetries of the posterior make, of which the draws hold one; None where none were looked for.
        tails: those of the draws that the verdict is about, by each witness that saw them.
        doubts: why "tails" and "evidence" are not certified.
    """

    verdict: Verdict
    elbo: Estimate
    evidence: Estimate
    khat: float
    ess: float
    num_draws: int
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    khats: tuple[float, ...] = ()
    shift: Shift | None = None
    drift: Drift | None = None
    modes: ModeSearch | None = None
    skipped: tuple[str, ...] = ()
    copies: Copies | None = None
    tails: tuple[Tails, ...] = ()
    doubts: Mapping[str, str] = field(default_factory=lambda: {"tails": NOT_CHECKED, "evidence": NOT_CHECKED})

    @property
    def certified(self) -> tuple[str, ...]:
        """Which of "means", "sds", "tails" and "evidence" can be believed."""
        if self.verdict is Verdict.DISTRUST:
            return ()
        return "means", "sds", *(quantity for quantity in ("tails", "evidence") if quantity not in self.doubts)

    @property
    def certifies(self) -> str:
        """What can be believed, and of which draws, in words."""
        return self.verdict.certifying(self.certified)

    @property
    def judged(self) -> Judged:
        """What answers follow of this."""
        return Judged(self.verdict, self.within, self.certified)

    @property
    def gap(self) -> float:
        """``evidence - elbo``, in nats: an estimate of KL(q || p) that a missed mode escapes.

        Of one of several equal modes, it is that from the guide to this mode.
        """
        return self.evidence.value - self._log_copies - self.elbo.value

    @property
    def within(self) -> str:
        """What the draws stand for, as "within one of 2 equal modes (sign of t)"; empty of the whole posterior."""
        return "" if self.copies is None else self.copies.within

    @property
    def _log_copies(self) -> float:
        return 0.0 if self.copies is None else self.copies.log_count

    @property
    def ess_share(self) -> float:
        """``ess / num_draws``."""
        return self.ess / self.num_draws

    @property
    def khat_range(self) -> tuple[float, float]:
        """The lowest and the highest k-hat of the sets of draws."""
        return min(self.khats, default=self.khat), max(self.khats, default=self.khat)

    def __str__(self) -> str:
        low, high = self.khat_range
        spread = f" ({low:.2f} to {high:.2f} in {len(self.khats)} sets)" if len(self.khats) > 1 else ""
        comma = "," if "evidence" in self.certified else ""
        certified = "" if self.verdict is Verdict.DISTRUST else f"{self.certifies}{comma} are certified{self._but()}; "
        within = "" if self.verdict is Verdict.DISTRUST or not self.within else f" {self.within}"
        lines = [
            f"{self.verdict.value}{within}: {certified}{self.reasons[0]}",
            f"  ELBO {self.elbo}   log evidence {self._evidence_text()}   gap {self.gap:.2f} nats",
            f"  k-hat {self.khat:.2f}{spread}   ESS {self.ess:.0f} of {self.num_draws} draws",
        ]
        if self.shift is not None:
            lines.append(f"  the weights move {self.shift}")
        if self.drift is not None:
            lines.append(f"  {self.drift.num_chains} short chains from the fit's draws move {self.drift.draws}")
        if self.modes is not None and not self.modes.missed:
            lines.append(f"  {self.modes.num_starts} climbs from elsewhere found no other mode that matters")
        lines += [f"  {reason}" for reason in self.reasons[1:]]
        lines += [f"  not checked: {each}" for each in self.skipped]
        lines += [f"  try: {advice}" for advice in self.advice]
        return "\n".join(lines)

    def _but(self) -> str:
        """What is not certified, and why."""
        reasons: dict[str, list[str]] = {}
        for quantity, reason in self.doubts.items():
            reasons.setdefault(reason, []).append(quantity if quantity == "tails" else f"the {quantity}")
        return "".join(f", {' and '.join(quantities)} not ({reason})" for reason, quantities in reasons.items())

    def _evidence_text(self) -> str:
        if self.copies is None or self.copies.count == 1:
            return str(self.evidence)
        one = self.evidence.value - self._log_copies
        return f"{self.evidence} (of one mode {one:.2f}, plus log {self.copies.count:,})"

    def _repr_html_(self) -> str:
        return block(str(self).removeprefix(self.verdict.value), badge(self.verdict.value))
