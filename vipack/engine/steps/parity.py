"""Whether steps in one tier lead to where the same steps lead in another.

Losses alone do not show it: an update that is left out shows in no loss of the same step, and in later ones little. So
everything that a step changes is compared, element by element: parameters, the optimizer's state, buffers, counts, rates and
generators. How far two computations of the same may differ is measured: the reference is taken again from parameters that
are moved by a few units in the last place. Where that changes a gradient altogether, there is nothing but rounding in it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vipack.engine.steps.snapshots import Names, Snapshot

__all__ = ["Trial", "close", "difference", "perturb"]

_NUDGE = 8  # units in the last place, by which parameters are moved to measure what rounding does
_ROUNDINGS = 40  # so often what was measured, two tiers may differ by
_SHARE = 0.003  # of what the steps change, likewise
_STEPS = 4  # of the longest in a vector, that elements of it may be apart whose gradient is rounding
_NOISE = 0.3  # of a gradient, from which it is taken for rounding


@dataclass(frozen=True)
class Trial:
    """Steps from one state to another.

    Attributes:
        losses: of the steps, nats.
    """

    before: Snapshot
    losses: np.ndarray
    after: Snapshot


def close(losses: object, expected: object, dtype: torch.dtype) -> bool:
    """Whether losses agree as tiers must."""
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    return bool(np.allclose(losses, expected, rtol=tolerance, atol=tolerance, equal_nan=True))  # type: ignore[arg-type]


def perturb(values: Sequence[Tensor], seed: int) -> None:
    """Move parameters by a few units in the last place, in place; the process's generators are left as they are."""
    with torch.no_grad():
        for index, value in enumerate(values):
            generator = torch.Generator("cpu").manual_seed(1_000 * seed + index)
            signs = torch.randint(0, 2, value.shape, generator=generator, device="cpu").to(value) * 2 - 1
            value.add_(signs * value.abs().clamp(min=0.01) * (_NUDGE * _eps(value)))


def difference(
    expected: Trial, actual: Trial, same: Sequence[Trial], names: Names, leave_out: Collection[str] = ()
) -> str:
    """How two trials from one state differ; empty where they agree.

    Args:
        same: trials in one tier; the first from that state, the others from parameters that were moved a little.
        names: of what stands in the vectors of parameters and states.
        leave_out: kinds of state that only one of the two keeps.
    """
    right, other = expected.after, actual.after
    dtype = right.values[0].dtype if right.values else torch.float32
    if len(actual.losses) != len(expected.losses) or not close(actual.losses, expected.losses, dtype):
        return f"a loss of {_written(actual)} where {_written(expected)} is right"
    if not other.generator.equals(right.generator):
        return "it draws other random numbers than the program"
    if other.counts != right.counts:
        return "it counts the optimizer's steps otherwise"
    if not _same_rates(other.rates, right.rates):
        return "it leaves a learning rate elsewhere"
    unsure: dict[int, Tensor] = {}
    for kind in [kind for kind in dict.fromkeys(names.kinds) if kind not in leave_out]:
        of_kind = [index for index, each in enumerate(names.kinds) if each == kind]
        states = _Comparison([_picked(trial, "states", of_kind) for trial in (expected, actual, *same)])
        for index, state in enumerate(of_kind):
            owner = names.owners[state]
            wrong = states.wrong(index)
            if bool(wrong.any()):
                return f"it moves the optimizer's state of parameter {names.at(owner, wrong)!r} elsewhere"
            share = states.share_of_rounding(index)
            unsure[owner] = torch.maximum(share, unsure.get(owner, torch.zeros_like(share)))
    every = list(range(len(right.values)))
    values = _Comparison([_picked(trial, "values", every) for trial in (expected, actual, *same)])
    for index in every:
        wrong = values.wrong(index, unsure.get(index))
        if bool(wrong.any()):
            return f"it moves the parameters elsewhere, {names.at(index, wrong)!r} first"
    every = list(range(len(right.buffers)))
    buffers = _Comparison([_picked(trial, "buffers", every) for trial in (expected, actual, *same)])
    if any(bool(buffers.wrong(index).any()) for index in every):
        return "it leaves a module's buffer elsewhere"
    return ""


Pair = tuple[list[Tensor], list[Tensor]]  # tensors before and after


class _Comparison:
    """Tensors of one kind: as they are moved by the reference, by the other tier, and in one tier from nearby."""

    def __init__(self, trials: Sequence[Pair]) -> None:
        (before, self._expected), (_, self._actual), first, *nearby = trials
        self._moved = _moves((before, self._expected))
        self._rounding = [torch.zeros_like(move) for move in self._moved]
        here = _moves(first)
        for trial in nearby:
            for index, move in enumerate(_moves(trial)):
                apart = (move - here[index]).abs().nan_to_num(0.0)
                self._rounding[index] = torch.maximum(self._rounding[index], apart)
        finite = [float(move.abs().nan_to_num(0.0).max()) for move in self._moved if move.numel()]
        self._largest = max(finite, default=0.0)

    def wrong(self, index: int, unsure: Tensor | None = None) -> Tensor:
        """Where the other tier is not at the same.

        Args:
            unsure: the share of rounding in what an optimizer had to go by, where that is known: it moves an element by a
                step at most, by a whole one either way where there was nothing but rounding, and no further apart than so
                much of it elsewhere.
        """
        expected, actual = self._expected[index], self._actual[index]
        if not expected.is_floating_point():
            return expected != actual
        bound = self._allowed(index)
        if unsure is not None:
            step = _STEPS * self._moved[index].abs().nan_to_num(0.0).amax()
            noise = unsure >= _NOISE
            bound = torch.where(noise, bound + step, torch.minimum(bound, unsure.clamp(max=1.0) * step))
        bound = bound + _SHARE * self._moved[index].abs() + 4 * _eps(expected) * expected.abs()
        same = ((actual - expected).abs() <= bound) | (actual == expected) | (actual.isnan() & expected.isnan())
        return ~same

    def share_of_rounding(self, index: int) -> Tensor:
        """How much of what has moved may be rounding; infinite where nothing has."""
        return (self._allowed(index) / self._moved[index].abs()).nan_to_num(torch.inf, torch.inf)

    def _allowed(self, index: int) -> Tensor:
        return _ROUNDINGS * self._rounding[index] + _eps(self._moved[index]) * self._largest


def _picked(trial: Trial, kind: str, indices: Sequence[int]) -> Pair:
    before, after = getattr(trial.before, kind), getattr(trial.after, kind)
    return [before[index] for index in indices], [after[index] for index in indices]


def _moves(trial: Pair) -> list[Tensor]:
    return [
        after - before if after.is_floating_point() else (after != before).double()
        for before, after in zip(*trial, strict=True)
    ]


def _same_rates(
    one: Sequence[tuple[tuple[float, ...], object]], other: Sequence[tuple[tuple[float, ...], object]]
) -> bool:
    return all(
        np.allclose(rates, other_rates, rtol=1e-6, atol=0.0) and _epoch(schedule) == _epoch(other_schedule)
        for (rates, schedule), (other_rates, other_schedule) in zip(one, other, strict=True)
    )


def _epoch(schedule: object) -> object:
    return schedule.get("last_epoch") if isinstance(schedule, dict) else None


def _eps(value: Tensor) -> float:
    return float(torch.finfo(value.dtype).eps)


def _written(trial: Trial) -> str:
    return ", ".join(f"{loss:.8g}" for loss in trial.losses.reshape(-1)[:6])
