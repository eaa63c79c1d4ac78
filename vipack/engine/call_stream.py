"""A call of ``SVI.step``: its arguments as a stream of batches, and what Pyro's errors leave unsaid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from torch import Tensor

from vipack.program import Arguments
from vipack.program.densities.values import count_non_finite

__all__ = ["OneCall", "explain_missing"]

_MISSING = (
    "The arguments hold NaN or infinite values. Pyro refuses them even under a mask: fill those that a mask leaves out with a "
    "value in the support of their site, as in torch.where(mask, y, 0.0). vipack.fit does so by itself."
)


def explain_missing(error: ValueError, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Add to what Pyro raises that the arguments hold NaN or infinite values, where they do."""
    if "within the support" in str(error) and any(count_non_finite(value) for value in (*args, *kwargs.values())):
        error.add_note(_MISSING)


class OneCall:
    """One call's arguments as an endless stream."""

    def __init__(self, arguments: Arguments, key: Hashable) -> None:
        self._arguments = arguments
        self.key = key

    def __next__(self) -> Arguments:
        return self._arguments

    def peek(self) -> Arguments:
        """The arguments."""
        return self._arguments

    def upcoming(self) -> tuple[Hashable, int]:
        """Their key, again and again."""
        return self.key, 1_000_000_000

    def rows(self, number: int) -> Tensor | None:
        """There are no rows."""
        return None

    def whole(self) -> Arguments | None:
        """Nothing is known of a whole that they are part of."""
        return None

    def state(self) -> dict[str, object]:
        """Nothing changes."""
        return {}

    def load_state(self, state: dict[str, object]) -> None:
        """Nothing changes."""
