"""Small values that several rooms share."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vipack.display import Readable, badge

__all__ = ["EngineReport", "Estimate", "Judged", "StopReason", "Stopped", "Verdict"]


@dataclass(frozen=True, repr=False)
class Estimate(Readable):
    """A Monte Carlo estimate and its standard error, in nats."""

    value: float
    se: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.se:.2f}"

    def __float__(self) -> float:
        return self.value


class _Badge:  # apart, since an Enum takes no such names in its body
    value: str

    def _repr_html_(self) -> str:
        return badge(self.value)


class Verdict(_Badge, enum.Enum):
    """What a fit's figures certify, and of which draws.

    TRUST: means and sds of the guide's own draws. CORRECTED: those of draws resampled with the importance weights.
    DISTRUST: nothing, of either. Whether tails and the evidence are certified too, a diagnosis says.
    """

    TRUST = "TRUST"
    CORRECTED = "CORRECTED"
    DISTRUST = "DISTRUST"

    @property
    def certifies(self) -> str:
        """What can be believed whatever else the diagnosis says: means and sds, of which draws."""
        return self.certifying(("means", "sds"))

    def certifying(self, quantities: Sequence[str]) -> str:
        """What can be believed, and of which draws, where these quantities are certified.

        Args:
            quantities: of "means", "sds", "tails" and "evidence".
        """
        if self is Verdict.DISTRUST:
            return "nothing"
        *firsts, last = (quantity for quantity in quantities if quantity != "evidence")
        draws = "the guide's own draws" if self is Verdict.TRUST else "resampled draws"
        evidence = ", and the evidence" if "evidence" in quantities else ""
        return f"{', '.join(firsts)} and {last} of {draws}{evidence}"


class Judged(NamedTuple):
    """What answers follow of a diagnosis.

    Attributes:
        within: which of several equal modes the draws hold, as "within one of 2 equal modes (...)"; empty of the whole posterior.
        certified: of "means", "sds", "tails" and "evidence".
    """

    verdict: Verdict
    within: str = ""
    certified: tuple[str, ...] = ("means", "sds")


class StopReason(enum.Enum):
    """Why a run ended."""

    STEPS = "steps used up"
    CONVERGED = "converged"
    TIME = "time used up"
    CALLBACK = "stopped by a callback"
    EARLY = "stopped early"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, repr=False)
class Stopped(Readable):
    """The recorded reason for which a run ended, with the figures behind it."""

    reason: StopReason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


@dataclass(repr=False)
class EngineReport(Readable):
    """What the engine did.

    Attributes:
        tier: the tier that the last step ran in.
        reason: why no faster tier was used; empty when there is nothing to explain.
        steps: tier -> steps run in it.
        capture_seconds, compile_seconds: time spent to get there.
    """

    tier: str
    reason: str = ""
    steps: dict[str, int] = field(default_factory=dict)
    capture_seconds: float = 0.0
    compile_seconds: float = 0.0

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {tier}" for tier, count in self.steps.items()) or "no steps"
        return f"{self.tier} ({counts})" + (f"; {self.reason}" if self.reason else "")
