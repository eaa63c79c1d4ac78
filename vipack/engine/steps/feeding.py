"""How captured steps get their batches: rows of arrays, arrays that are others in every batch, or one batch again and again."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vipack.engine.capture.capture import Graph, tensors_of
from vipack.engine.graph.csr_inputs import NotByRows, by_rows
from vipack.engine.graph.step_graph import Feed
from vipack.engine.steps.contracts import Batches
from vipack.program import Arguments

__all__ = ["Feeding", "RepeatedBatch", "feeding_of"]


class RepeatedBatch:
    """One batch, again and again.

    Args:
        key: of its shape, as :meth:`Batches.upcoming` gives it.
    """

    cells: tuple[Tensor, ...] = ()

    def __init__(self, batch: Arguments, key: Hashable = None) -> None:
        self._batch = batch
        self.key = key

    def __next__(self) -> Arguments:
        return self._batch

    def peek(self) -> Arguments:
        """The batch."""
        return self._batch

    def upcoming(self) -> tuple[Hashable, int]:
        """The same key, without end."""
        return self.key, 1_000_000_000

    def indices(self, number: int) -> Tensor | None:
        """Those of its rows, `number` times; None where it has none."""
        return None if self._batch.indices is None else self._batch.indices.expand(number, -1)

    def whole(self) -> Arguments | None:
        """No call on more rows is known."""
        return None

    def scheduled(self, number: int) -> list[Tensor] | None:
        """The numbers of its step are those of its arguments."""
        return None

    def state(self) -> dict[str, object]:
        """Nothing changes."""
        return {}

    def load_state(self, state: dict[str, object]) -> None:
        """Nothing changes."""


@dataclass(frozen=True)
class Feeding:
    """What the steps of a graph get of a stream of batches.

    Attributes:
        graph: the captured one; on the arrays of CSR matrices where the batches are rows of these.
        fed: the indices of arrays that are others in every batch.
        numbers: which of the stream's numbers these are; none is known of a stream whose batches are not rows of arrays in memory.
        sparse: why steps get CSR tensors all the same; empty where they get none.
    """

    feed: Feed
    graph: Graph
    fed: tuple[int, ...]
    numbers: tuple[int, ...]
    sparse: str
    _spread: frozenset[int]

    def arrays(self, arguments: Arguments) -> list[Tensor]:
        """The tensors of a call as the graph takes them."""
        return _spread(tensors_of(arguments)[0], self._spread)


def feeding_of(graph: Graph, batches: Batches, own: Mapping[int, Tensor], *, live: bool) -> Feeding:
    """How steps of a graph get their batches.

    Args:
        own: for fits side by side, arrays of which each fit has its own: index -> ``(R, *shape)``.
        live: whether every step may come with other tensors.
    """
    batch, whole = batches.peek(), batches.whole()
    tensors = tensors_of(batch)[0]
    data = tensors if batch.indices is None else tensors[:-1]
    full = None if whole is None else tensors_of(whole)[0]
    matrices = frozenset(index for index, array in enumerate(data) if array.layout != torch.strided)
    reason = ""
    if matrices:
        try:
            graph = _on_rows(
                graph, data, full, matrices, len(tensors), apart=live or (full is None and batch.indices is not None)
            )
        except NotByRows as error:
            reason, full, matrices = str(error), None, frozenset()
    is_other = [full is not None and f is not b for f, b in zip(full or data, data, strict=True)]
    read = _spread([own.get(i, array) for i, array in enumerate(full or data)], matrices)
    cells = {id(cell): k for k, cell in enumerate(batches.cells)}
    numbers = {i: cells[id(array)] for i, array in enumerate(_spread(full or [], matrices)) if id(array) in cells}
    # The arrays of a matrix are the same at every step: the program asks for rows of it itself.
    of_rows = [flag and i not in matrices for i, flag in enumerate(is_other) for _ in range(_width(i, matrices))]
    separate = tuple(i in own for i in range(len(data)) for _ in range(_width(i, matrices)))
    gathered = tuple(flag and i not in numbers for i, flag in enumerate(of_rows))
    fed = tuple(numbers) if full is not None or batch.indices is None else tuple(range(len(data)))
    steady = tuple(not (gathered[i] or i in fed or separate[i]) for i in range(len(read)))
    feed = Feed(tuple(read), gathered, batch.indices, separate, steady)
    return Feeding(feed, graph, fed, tuple(numbers.values()), reason, matrices)


def _on_rows(
    graph: Graph,
    data: Sequence[Tensor],
    full: Sequence[Tensor] | None,
    matrices: frozenset[int],
    number: int,
    *,
    apart: bool,
) -> Graph:
    """The graph on the arrays of CSR matrices.

    Args:
        number: of the tensors of a call.
        apart: whether every batch comes as a matrix of its own.

    Raises:
        NotByRows: it cannot be written so.
    """
    if apart:
        raise NotByRows("every batch comes as a sparse tensor of its own, with another number of values")
    first = sum(node.op == "placeholder" for node in graph.module.graph.nodes) - number
    whole = full or data
    given = {first + i: (whole[i], whole[i] is not data[i]) for i in sorted(matrices)}
    return dataclasses.replace(graph, module=by_rows(graph.module, given))


def _width(index: int, matrices: frozenset[int]) -> int:
    return 3 if index in matrices else 1


def _spread(tensors: Sequence[Tensor], matrices: frozenset[int]) -> list[Tensor]:
    """CSR matrices as their arrays."""
    spread: list[Tensor] = []
    for index, value in enumerate(tensors):
        if index in matrices:  # apart from the matrix, of which a tracer cannot tell that they are views
            spread += [value.crow_indices().data, value.col_indices().data, value.values().data]
        else:
            spread.append(value)
    return spread
