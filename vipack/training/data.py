"""Data in every form that users have it in, turned into calls of the model: all rows, or a stream of minibatches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, default_collate

from vipack.errors import DataError, UsageError
from vipack.export.labels import Axis, labelled
from vipack.program import Arguments, seeded
from vipack.training.arrays import (
    UNKNOWN,
    canonical_csr,
    csr_tensor,
    extreme_rows,
    fingerprint_of,
    named_arrays,
    num_rows_of,
    plain_array,
    rebuilder,
    scipy_csr,
    take_rows,
    tensor_of,
    unplain_array,
    whole,
)
from vipack.training.loaders import loader_batches
from vipack.training.scheduled import first_values, schedules_in
from vipack.training.streams import BatchStream, LoaderStream, ShuffledStream, WholeStream

__all__ = ["ArrayRows", "LoadedRows", "Rows", "StoredRows"]


class Rows(ABC):
    """N observations, as arguments of the model.

    Attributes:
        num_rows: N, or None for data that have no rows, such as ``data=()``.
        fixed: keyword arguments that are the same in every batch; a tensor ``()`` for each of ``schedules``.
        axes: of the arguments that came from pandas, by name or position.
        indexed: whether a batch knows which rows it holds; a user's DataLoader does not tell.
    """

    num_rows: int | None
    indexed = True

    def __init__(self, fixed: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.device = device
        self.schedules = schedules_in(fixed)
        self.fixed = {name: self.converted(value) for name, value in first_values(fixed, dtype, device).items()}
        self.axes: dict[str | int, tuple[Axis, ...]] = {}

    @abstractmethod
    def full(self) -> Arguments:
        """The call on every row."""

    @abstractmethod
    def rows(self, indices: Tensor) -> Arguments:
        """The call on the rows `indices` ``(B,)``."""

    def spread(self, count: int) -> Tensor:
        """Indices of `count` rows to look at, evenly spaced where any row can be asked for."""
        return torch.linspace(0, _count(self.num_rows) - 1, count, dtype=torch.float64).round().long()

    @property
    def fits_in_memory(self) -> bool:
        """Whether the rows are few enough for :meth:`full`."""
        return True

    def subset(self, indices: Tensor) -> Rows:
        """The rows `indices` alone, as data of their own.

        Raises:
            UsageError: the data come in an order of their own.
        """
        raise UsageError(
            "validation: a share of a DataLoader's rows cannot be held out; pass data held out, or its Dataset."
        )

    def split(self, count: int, seed: int) -> tuple[Rows, Rows]:
        """All rows but about `count`, drawn by `seed`, and these."""
        order = torch.randperm(_count(self.num_rows), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[count:].sort().values), self.subset(order[:count].sort().values)

    def extremes(self, batch: Arguments) -> Arguments:
        """A call like `batch` that tells more of what is wrong with the data, if there is one."""
        return batch

    @abstractmethod
    def stream(self, batch_size: int | None, generator: torch.Generator) -> BatchStream:
        """An endless, resumable stream of minibatches, every row once an epoch, reshuffled each time."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the contents: two fits with the same one saw the same data."""

    @property
    def arrays(self) -> dict[str, Any]:
        """The arguments of :meth:`full` by argument name, or by position as ``data[0]``."""
        arguments = self.full()
        names = {f"data[{i}]" if len(arguments.args) > 1 else "data": v for i, v in enumerate(arguments.args)}
        return {**names, **arguments.kwargs}

    def call(self, structure: Any, indices: Tensor | None = None) -> Arguments:
        """The call that `structure` (an array, tuple or dict of arrays) and ``fixed`` make."""
        if isinstance(structure, Mapping):
            clash = sorted(set(structure) & set(self.fixed))
            if clash:
                raise UsageError(f"argument {clash[0]!r} is in both data and fixed; give it once.")
            kwargs = {str(name): self.converted(value) for name, value in structure.items()}
            return Arguments((), {**kwargs, **self.fixed}, indices)
        values = structure if isinstance(structure, tuple | list) else (structure,)
        return Arguments(tuple(self.converted(value) for value in values), self.fixed, indices)

    def converted(self, value: Any) -> Any:
        """An array as a tensor of the rows' type, on their device; other values as they are."""
        if isinstance(value, Tensor):
            dtype = self.dtype if value.is_floating_point() else value.dtype
            return value.to(device=self.device, dtype=dtype)
        if isinstance(value, np.ndarray):
            return self.converted(tensor_of("fixed", value))
        if scipy.sparse.issparse(value):
            return self.converted(csr_tensor(value))
        return value


class ArrayRows(Rows):
    """Arrays in memory: one, a tuple or a dict of them."""

    def __init__(self, data: Any, fixed: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(fixed, dtype, device)
        self._arrays = {name: self._stored(value) for name, value in named_arrays(data)}
        self._rebuild = rebuilder(data)
        self._names = [str(name) for name in data] if isinstance(data, Mapping) else []
        sizes = {name: num_rows_of(array) for name, array in self._arrays.items()}
        known = {size for size in sizes.values() if size is not None}
        self.num_rows = known.pop() if len(known) == 1 else None
        self._sizes = sizes

    def full(self) -> Arguments:
        """The call on every row."""
        return self._full

    @cached_property
    def _full(self) -> Arguments:
        return self.call(self._rebuild([whole(array) for array in self._arrays.values()]))

    def rows(self, indices: Tensor) -> Arguments:
        """The call on the rows `indices` ``(B,)``."""
        arrays = [take_rows(array, indices) for array in self._arrays.values()]
        return self.call(self._rebuild(arrays), indices.to(self.device))

    def stream(self, batch_size: int | None, generator: torch.Generator) -> BatchStream:
        if batch_size is None or (self.num_rows is not None and batch_size >= self.num_rows):
            return WholeStream(self.full, generator)
        self._check_rows("batch_size")
        return ShuffledStream(self.rows, self.full, _count(self.num_rows), batch_size, generator)

    def subset(self, indices: Tensor) -> ArrayRows:
        self._check_rows("validation")
        arrays = [take_rows(array, indices) for array in self._arrays.values()]
        own = ArrayRows(self._rebuild(arrays), self.fixed, self.dtype, self.device)
        own.schedules = self.schedules
        own.axes = {name: axes if name in self.fixed else labelled(axes, indices) for name, axes in self.axes.items()}
        return own

    def extremes(self, batch: Arguments) -> Arguments:
        """`batch` with those rows that have the smallest, the largest or a non-finite value of some array of the data.

        If a value is outside the support of its site, one of these is.
        """
        assert batch.indices is not None
        indices = batch.indices.cpu()
        telling = torch.tensor(sorted({row for array in self._arrays.values() for row in extreme_rows(array)}))
        kept = indices[~torch.isin(indices, telling)][: max(0, len(indices) - len(telling))]
        return self.rows(torch.cat([telling.to(indices), kept]))

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint_of([*self._arrays.items(), *(self.fixed | self.schedules).items()])

    def state(self) -> dict[str, Any] | None:
        """Plain tensors and values for a file, or None where some of the data are of another kind."""
        kind = "dict" if isinstance(self._rebuild([*self._arrays.values()]), dict) else "tuple"
        data = {name: plain_array(array) for name, array in self._arrays.items()}
        fixed = {name: plain_array(array) for name, array in (self.fixed | self.schedules).items()}
        if any(value is UNKNOWN for value in [*data.values(), *fixed.values()]):
            return None
        axes = [[key, [axis.plain() for axis in own]] for key, own in self.axes.items()]
        return {"kind": kind, "names": self._names, "parts": list(data.values()), "fixed": fixed, "axes": axes}

    @staticmethod
    def structure(state: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """``data`` and ``fixed`` as they were given, from :meth:`state`."""
        arrays = [unplain_array(value) for value in state["parts"]]
        data = dict(zip(state["names"], arrays, strict=True)) if state["kind"] == "dict" else tuple(arrays)
        return data, {name: unplain_array(value) for name, value in state["fixed"].items()}

    @staticmethod
    def axes_of(state: Mapping[str, Any]) -> dict[str | int, tuple[Axis, ...]]:
        """The axes of what came from pandas, from :meth:`state`."""
        return {key: tuple(map(Axis.from_plain, own)) for key, own in state.get("axes", ())}

    def _stored(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.layout != torch.strided:
            return canonical_csr(scipy_csr(value))
        return value if scipy.sparse.issparse(value) else self.converted(value)

    def _check_rows(self, option: str) -> None:
        """With minibatches or validation, every array must have the same number of rows."""
        for name, size in self._sizes.items():
            if size is None:
                raise DataError(
                    f"{name} has no rows ({type(self._arrays[name]).__name__}), so it cannot be cut into batches; "
                    "put what belongs to no single observation into fixed={...}."
                )
        if self.num_rows is None:
            listed = ", ".join(f"{name}: {size}" for name, size in self._sizes.items()) or "no arrays"
            raise DataError(
                f"{option} needs every array in data to have the same number of rows, found {listed}; "
                "put what belongs to no single observation into fixed={...}."
            )


class StoredRows(Rows):
    """A map-style ``torch.utils.data.Dataset``, read row by row and collated as DataLoader does."""

    def __init__(
        self,
        dataset: Dataset[Any],
        fixed: Mapping[str, Any],
        dtype: torch.dtype,
        device: torch.device,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        super().__init__(fixed, dtype, device)
        if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized):
            raise DataError(
                f"data: {type(dataset).__name__} has no length, so log p cannot be scaled to all of its rows; pass "
                "vipack.stream(dataset, num_rows=N), or use a map-style Dataset with __len__."
            )
        self._dataset = dataset
        self._combine = collate
        self.num_rows = len(dataset)
        if self.num_rows == 0:
            raise DataError(f"data: {type(dataset).__name__} is empty; it needs at least one row.")

    def full(self) -> Arguments:
        """The call on every row."""
        return self._full

    @cached_property
    def _full(self) -> Arguments:
        with seeded(0):
            return Arguments(*self._collate(range(_count(self.num_rows)))[:2])

    def rows(self, indices: Tensor) -> Arguments:
        """The call on the rows `indices` ``(B,)``."""
        args, kwargs = self._collate(indices.tolist())
        return Arguments(args, kwargs, indices.to(self.device))

    def subset(self, indices: Tensor) -> StoredRows:
        chosen = Subset(self._dataset, indices.tolist())
        own = StoredRows(chosen, self.fixed, self.dtype, self.device, self._combine)
        own.schedules = self.schedules
        return own

    def stream(self, batch_size: int | None, generator: torch.Generator) -> BatchStream:
        count = _count(self.num_rows)
        if batch_size is None or batch_size >= count:
            return WholeStream(self.full, generator)
        return ShuffledStream(self.rows, None, count, batch_size, generator)

    def fingerprint(self) -> str:
        """See :class:`Rows`; of a Dataset only the length and its first and last rows are read."""
        with seeded(0):  # a data set may draw random numbers, as for augmentation
            ends = [*named_arrays(self._dataset[0]), *named_arrays(self._dataset[_count(self.num_rows) - 1])]
        return fingerprint_of([("length", torch.tensor(self.num_rows)), *ends, *(self.fixed | self.schedules).items()])

    def _collate(self, indices: Sequence[int] | range) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        arguments = self.call(self._combine([self._dataset[i] for i in indices]))
        return arguments.args, arguments.kwargs


class LoadedRows(Rows):
    """A ``DataLoader`` of the user's: its own batches, in its own order."""

    indexed = False

    def __init__(
        self, loader: DataLoader[Any], fixed: Mapping[str, Any], dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(fixed, dtype, device)
        self._loader = loader
        if loader.batch_size is None and not hasattr(loader.batch_sampler, "__iter__"):
            raise DataError(
                "data: this DataLoader has batch_size=None, so the number of its rows is not known; give it a batch_size, "
                "or pass its Dataset with batch_size= to the fit."
            )
        self._stored = StoredRows(loader.dataset, self.fixed, dtype, device, loader.collate_fn)
        self.num_rows = self._stored.num_rows
        sampled = len(loader.sampler) if isinstance(loader.sampler, Sized) else self.num_rows
        if sampled != self.num_rows:
            raise DataError(
                f"data: the DataLoader's sampler takes {sampled} rows of the {self.num_rows} of its Dataset, so log p cannot "
                "be scaled; pass a torch.utils.data.Subset of the rows."
            )

    def full(self) -> Arguments:
        """The call on every row of the loader's dataset."""
        return self._stored.full()

    def rows(self, indices: Tensor) -> Arguments:
        """The call on the rows `indices` ``(B,)`` of the loader's dataset."""
        return self._stored.rows(indices)

    def stream(self, batch_size: int | None, generator: torch.Generator) -> BatchStream:
        """See :class:`Rows`; the loader draws its order from `generator`, even if it has one of its own."""
        if batch_size is not None:
            raise UsageError(
                f"batch_size={batch_size}: data is a DataLoader, which makes its own batches; leave batch_size out."
            )

        if self._loader.batch_size == self.num_rows:  # row by row in order, as guides with parameters for rows need it
            return WholeStream(self.full, generator)

        def epoch() -> Iterator[Arguments]:
            for batch in loader_batches(self._loader, generator):
                arguments = self.call(batch)
                values = (*arguments.args, *arguments.kwargs.values())
                size = next((len(v) for v in values if isinstance(v, Tensor) and v.dim()), None)
                if size is None:
                    raise DataError("data: a batch of the DataLoader holds no tensor; let its collate_fn make tensors.")
                # The rows of a user's loader are not known; only their number is, for the scale.
                yield Arguments(arguments.args, arguments.kwargs, torch.arange(size, device=self.device))

        return LoaderStream(epoch, len(self._loader), generator)

    def fingerprint(self) -> str:
        return self._stored.fingerprint()


def _count(num_rows: int | None) -> int:
    if num_rows is None:
        raise DataError("data has no rows to cut into batches; leave batch_size out.")
    return num_rows
