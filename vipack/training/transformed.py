"""Data that are transformed: anew at every step of training, and by one draw for all that looks at them otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vipack.errors import CheckpointError, UsageError
from vipack.program import Arguments, seeded
from vipack.program.running.runs import named_arguments
from vipack.training.data import ArrayRows, Rows
from vipack.training.prepare import Problem, device_of
from vipack.training.reading_data import read_data
from vipack.training.streams import BatchStream, WrappedStream
from vipack.transforms import KINDS, Transform

__all__ = [
    "TransformedLoss",
    "TransformedRows",
    "Transforms",
    "plain_transforms",
    "raw_rows",
    "read_transforms",
    "transformed_loss",
    "transforms_of",
    "with_transforms",
]

Transforms = Mapping[str, tuple[Transform, ...]]

_STREAM = 0x5851F42D  # added to a seed: data are often made with it themselves, and would meet their own random numbers


def transforms_of(transform: Any) -> Transforms:
    """Argument name -> what is done to it, in order.

    Raises:
        UsageError: not a dict of functions, or of tuples of them.
    """
    if not isinstance(transform, Mapping):
        raise UsageError(
            f"transform: expected a dict from the model's argument to what is done to it, found {type(transform).__name__}; for "
            "example transform={'x': vipack.transforms.Binarize()}."
        )
    chosen = {}
    for name, steps in transform.items():
        each = tuple(steps) if isinstance(steps, tuple | list) else (steps,)
        for step in each:
            if not callable(step) or isinstance(step, type):
                raise UsageError(f"transform[{name!r}]: expected a function of a batch's tensor, found {step!r}.")
        chosen[str(name)] = each
    return chosen


def plain_transforms(transforms: Transforms) -> dict[str, list[list[Any]]] | None:
    """Text and numbers for a file; None where there is a function of the user's."""
    steps = [step for each in transforms.values() for step in each]
    if any(KINDS.get(type(step).__name__) is not type(step) for step in steps):
        return None
    return {
        name: [[type(step).__name__, dataclasses.asdict(step)] for step in each]  # type: ignore[call-overload]
        for name, each in transforms.items()
    }


def read_transforms(stored: Mapping[str, list[list[Any]]]) -> Transforms:
    """The inverse of :func:`plain_transforms`.

    Raises:
        CheckpointError: a kind that there is none of.
    """
    for each in stored.values():
        for kind, _ in each:
            if kind not in KINDS:
                raise CheckpointError(f"the file has a transform {kind!r}, which this version has not.")
    return {name: tuple(KINDS[kind](**options) for kind, options in each) for name, each in stored.items()}


class TransformedRows(Rows):
    """Observations as one draw of `seed` transforms them; what a step of training is given are the `raw` ones.

    Raises:
        UsageError: a transform names no argument of the model, or one that is no tensor, or it fails.
        DataError: the data are not what a transform is for.
    """

    def __init__(self, raw: Rows, model: Callable[..., Any], transforms: Transforms, seed: int) -> None:
        self.raw, self.model, self.transforms, self.seed = raw, model, transforms, seed
        self.dtype, self.device, self.schedules, self.fixed = raw.dtype, raw.device, raw.schedules, raw.fixed
        self.axes, self.num_rows, self.indexed = raw.axes, raw.num_rows, raw.indexed
        self._full: Arguments | None = None
        few = raw.full() if isinstance(raw, ArrayRows) else raw.rows(torch.arange(min(2, raw.num_rows or 1)))
        names = list(named_arguments(model, few))
        self._positional = tuple(names[: len(few.args)])
        for name in transforms:
            if name not in names or name in raw.fixed:
                own = [other for other in names if other not in raw.fixed]
                raise UsageError(
                    f"transform: {name!r} is not among the arguments that data give the model: {', '.join(own)}."
                )
        self._checked(few)

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, transformed by new draws."""
        own = zip(self._positional, args, strict=False)
        moved = tuple(self._value(name, value) for name, value in own)
        return (*moved, *args[len(moved) :]), {name: self._value(name, value) for name, value in kwargs.items()}

    def of(self, rows: Rows) -> TransformedRows:
        """Other observations, transformed likewise."""
        return TransformedRows(rows, self.model, self.transforms, self.seed)

    def spread(self, count: int) -> Tensor:
        return self.raw.spread(count)

    @property
    def fits_in_memory(self) -> bool:
        return self.raw.fits_in_memory

    def full(self) -> Arguments:
        if not self.fits_in_memory:
            self.raw.full()  # which says why not
        if self._full is None:
            if isinstance(self.raw, ArrayRows):
                self._full = self._drawn(self.raw.full(), self.seed)
            else:
                self._full = dataclasses.replace(self.rows(torch.arange(self.raw.num_rows or 0)), indices=None)
        return self._full

    def rows(self, indices: Tensor) -> Arguments:
        call = self.raw.rows(indices)
        if isinstance(self.raw, ArrayRows):
            chosen = indices.to(self.device)
            return self._replaced(call, [self.full()], lambda values: values[0][chosen])
        each = [
            self._drawn(self.raw.rows(indices[i : i + 1]), self.seed + 1 + int(indices[i])) for i in range(len(indices))
        ]
        return self._replaced(call, each, torch.cat)

    def _replaced(
        self, call: Arguments, others: Sequence[Arguments], value: Callable[[list[Tensor]], Tensor]
    ) -> Arguments:
        """`call` with what is transformed made of the arguments of other calls."""
        names = (*self._positional, *[""] * len(call.args))
        args = tuple(
            value([other.args[i] for other in others]) if name in self.transforms else own
            for i, (name, own) in enumerate(zip(names, call.args, strict=False))
        )
        kwargs = {
            name: value([other.kwargs[name] for other in others]) if name in self.transforms else own
            for name, own in call.kwargs.items()
        }
        return Arguments(args, kwargs, call.indices)

    def subset(self, indices: Tensor) -> TransformedRows:
        return self.of(self.raw.subset(indices))

    def extremes(self, batch: Arguments) -> Arguments:
        chosen = self.raw.extremes(batch).indices
        return batch if chosen is None else self.rows(chosen)

    def stream(self, batch_size: int | None, generator: torch.Generator) -> BatchStream:
        """See :class:`Rows`; transformed by one draw, for looking at."""
        return _Looked(self, self.raw.stream(batch_size, generator))

    def fingerprint(self) -> str:
        return self.raw.fingerprint()

    def seen(self, batch: Arguments) -> Arguments:
        """A batch of the raw data as one draw transforms it."""
        if batch.indices is not None and self.indexed:
            return self.rows(batch.indices)
        return self.full() if batch.indices is None else self._drawn(batch, self.seed)

    def _drawn(self, call: Arguments, seed: int) -> Arguments:
        with seeded((seed + _STREAM) % 2**32), torch.no_grad():
            args, kwargs = self(call.args, call.kwargs)
        return dataclasses.replace(call, args=args, kwargs=kwargs)

    def _value(self, name: str, value: Any) -> Any:
        for step in self.transforms.get(name, ()):
            value = step(value)
        return value

    def _checked(self, call: Arguments) -> None:
        values = named_arguments(self.model, call)
        for name, steps in self.transforms.items():
            value = values[name]
            if not isinstance(value, Tensor):
                raise UsageError(
                    f"transform[{name!r}]: the argument is a {type(value).__name__}; a tensor is transformed."
                )
            for step in steps:
                check = getattr(step, "check", None)
                if check is not None and type(step).__name__ in KINDS:
                    check(name, value)
                try:
                    with seeded(self.seed), torch.no_grad():
                        result = step(value)
                except Exception as error:
                    raise UsageError(
                        f"transform[{name!r}]: {step!r} raised {type(error).__name__}: {error}."
                    ) from error
                if not isinstance(result, Tensor) or len(result) != len(value):
                    raise UsageError(
                        f"transform[{name!r}]: {step!r} gave {_described(result)} for {_described(value)}; it must give a tensor of "
                        "as many observations."
                    )
                value = result


def _described(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


class _Looked(WrappedStream):
    """Batches of raw data as one draw transforms them."""

    def __init__(self, rows: TransformedRows, inner: BatchStream) -> None:
        super().__init__(inner)
        self._rows = rows

    def __next__(self) -> Arguments:
        return self._rows.seen(next(self._inner))

    def peek(self) -> Arguments:
        return self._rows.seen(self._inner.peek())

    def upcoming(self) -> tuple[int | None, int]:
        return self._inner.upcoming()[0], 1

    def whole(self) -> Arguments | None:
        return None


def raw_rows(rows: Any) -> Any:
    """The data as they were given."""
    return rows.raw if isinstance(rows, TransformedRows) else rows


def transformed_loss(loss: Any, rows: Rows) -> Any:
    """`loss`, which transforms what `rows` are transformed by."""
    return TransformedLoss(loss, rows) if isinstance(rows, TransformedRows) else loss


def with_transforms(
    problem: Problem, validation: Rows | None, transforms: Transforms, seed: int
) -> tuple[Problem, Rows | None]:
    """A problem and the rows held out, transformed."""
    rows = problem.data
    if not isinstance(rows, Rows):
        rows = read_data(problem.data, problem.fixed, problem.dtype, device_of(problem.device))
    own = TransformedRows(rows, problem.model, transforms, seed)
    others = None if validation is None else own.of(validation)
    return dataclasses.replace(problem, data=own, fixed=None), others


class TransformedLoss:
    """A loss whose model and guide are given transformed arguments, both the same draw, as part of the step."""

    def __init__(self, inner: Any, rows: TransformedRows) -> None:
        self.inner, self._rows = inner, rows

    @property
    def schedules(self) -> Mapping[str, Callable[[int], float]]:
        """Those of the loss itself."""
        own: Mapping[str, Callable[[int], float]] = getattr(self.inner, "schedules", {})
        return own

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss in nats."""
        args, kwargs = self._rows(args, kwargs)
        return self.inner.loss(model, guide, *args, **kwargs)

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss in nats; gradients are added to the parameters' ``grad``."""
        args, kwargs = self._rows(args, kwargs)
        return self.inner.loss_and_grads(model, guide, *args, **kwargs)
