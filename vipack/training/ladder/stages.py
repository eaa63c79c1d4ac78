"""What each stage of the ladder gained and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vipack.display import Readable, block, grid
from vipack.types import Estimate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Stage", "Stages"]


_HEAD = ("stage", "ELBO (nats)", "gain (nats)", "steps", "seconds", "kept", "why")
_NO_STAGES = "no stages: the guide was the user's own"


@dataclass(frozen=True, repr=False)
class Stage(Readable):
    """One rung.

    Attributes:
        name: "paths", "gaussian", "flow" or "polish".
        elbo: of what the stage found, nats; None where it was skipped.
        gain: over the stage kept before it, nats, by common draws; None for the first.
        steps: gradient steps taken.
        seconds: that it took, its judgement included.
        kept: whether the ladder went on from it.
        reason: why it was kept, dropped or skipped.
    """

    name: str
    elbo: Estimate | None
    gain: Estimate | None
    steps: int
    seconds: float
    kept: bool
    reason: str

    def __str__(self) -> str:
        figures = [] if self.elbo is None else [f"ELBO {_text(self.elbo)}"]
        figures += [] if self.gain is None else [f"gain {_text(self.gain)}"]
        told = ", ".join([*figures, f"{self.steps} steps", f"{self.seconds:.1f} s"])
        return f"{self.name}: {told}; {'kept' if self.kept else 'not kept'}: {self.reason}"


class Stages(Readable, tuple[Stage, ...]):
    """The stages in order; as text, a table."""

    __slots__ = ()

    def __str__(self) -> str:
        if not self:
            return _NO_STAGES
        rows = [_HEAD, *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def to_frame(self) -> pd.DataFrame:
        """One row a stage; ELBO and gain in nats, each with its standard error."""
        import pandas as pd

        rows = [
            {
                "elbo": s.elbo and s.elbo.value,
                "elbo_se": s.elbo and s.elbo.se,
                "gain": s.gain and s.gain.value,
                "gain_se": s.gain and s.gain.se,
                "steps": s.steps,
                "seconds": s.seconds,
                "kept": s.kept,
                "reason": s.reason,
            }
            for s in self
        ]
        return pd.DataFrame(rows, index=pd.Index([s.name for s in self], name="stage"))

    def _repr_html_(self) -> str:
        return grid(self._cells(), _HEAD) if self else block(_NO_STAGES)

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                s.name,
                _text(s.elbo),
                _text(s.gain),
                str(s.steps),
                f"{s.seconds:.1f}",
                "yes" if s.kept else "no",
                s.reason,
            )
            for s in self
        ]

    @property
    def path(self) -> str:
        """The stages that were kept, the last of which gave the fit, with the steps that each took; empty without any."""
        return ", ".join(f"{s.name} ({s.steps} steps)" for s in self if s.kept)

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> Stages:
        """The table of some stages."""
        return cls(stages)

    def plain(self) -> list[dict[str, Any]]:
        """Containers, numbers and text, for a file."""
        return [asdict(stage) for stage in self]

    @classmethod
    def from_plain(cls, rows: Sequence[Mapping[str, Any]]) -> Stages:
        """The inverse of :meth:`plain`."""
        return cls(
            Stage(**{**row, **{key: row[key] and Estimate(**row[key]) for key in ("elbo", "gain")}}) for row in rows
        )


def _text(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.3f} ± {estimate.se:.3f}"
