"""Packed sequences in a graph: their lengths are read from tensors, and what depends on them is of known size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from vipack.compat import packing
from vipack.compat.patching import patched

__all__ = ["Known", "lengths_known", "lengths_noted"]

Read = Callable[[Tensor], np.ndarray]
_CELLS: dict[str, Any] = {
    "LSTM": torch.lstm_cell,
    "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell,
    "RNN_RELU": torch.rnn_relu_cell,
}


class Known:
    """Arrays of numbers by the tensors that stand for them where tensors have no values."""

    def __init__(self) -> None:
        self._arrays: dict[int, tuple[Tensor, np.ndarray]] = {}  # by address of the tensor, which is kept alive

    def tensor(self, array: np.ndarray) -> Tensor:
        """A tensor of an array's values."""
        tensor = torch.from_numpy(np.array(array))
        self._arrays[id(tensor)] = tensor, array
        return tensor

    def array(self, tensor: Any) -> np.ndarray | None:
        """The values of a tensor; None where they are not known."""
        entry = self._arrays.get(id(tensor))
        return None if entry is None else entry[1]


class _Packing(TorchFunctionMode):
    """Calls functions where sequences are packed and padded again."""

    def __init__(self, pack: Any, pad: Any) -> None:
        super().__init__()
        self._stand_ins = dict(zip(packing.packing_functions(), (pack, pad), strict=True))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stand_in = self._stand_ins.get(func)
        return func(*args, **(kwargs or {})) if stand_in is None else stand_in(*args)


@contextlib.contextmanager
def lengths_noted(note: Read) -> Iterator[None]:
    """Inside the block, `note` is told the lengths of sequences that are packed."""

    def noting(value: Tensor, lengths: Tensor, batch_first: bool) -> Any:
        note(lengths)
        return packing.pack(value, lengths, batch_first)

    with _Packing(noting, packing.pad):
        yield


@contextlib.contextmanager
def lengths_known(read: Read, known: Known) -> Iterator[None]:
    """Inside the block, sequences are packed by the lengths that `read` says, and recurrent layers go by them."""

    def pack(value: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        numbers = np.array(read(lengths))
        counts = np.array([(numbers > time).sum() for time in range(numbers.max())])
        return (value.transpose(0, 1) if batch_first else value)[_times_and_rows(counts)], known.tensor(counts)

    def pad(data: Tensor, sizes: Tensor, batch_first: bool, padding: float, total: int) -> Any:
        counts = known.array(sizes)
        if counts is None:
            return packing.pad(data, sizes, batch_first, padding, total)
        shape = max(len(counts), total), int(counts[0]), *data.shape[1:]
        padded = data.new_full(shape, padding).index_put(_times_and_rows(counts), data)
        lengths = np.array([(counts > row).sum() for row in range(counts[0])])
        return padded.transpose(0, 1) if batch_first else padded, known.tensor(lengths)

    layers: tuple[Any, ...] = nn.RNN, nn.GRU, nn.LSTM
    originals = {layer: layer.forward for layer in layers}

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        counts = known.array(input.batch_sizes) if isinstance(input, PackedSequence) else None
        if counts is None or self.proj_size:
            return originals[next(layer for layer in layers if isinstance(self, layer))](self, input, hx)
        return _run(self, input, [int(count) for count in counts], hx)

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(patched(layer, forward=forward))
        stack.enter_context(_Packing(pack, pad))
        yield


def _times_and_rows(counts: np.ndarray) -> tuple[Tensor, Tensor]:
    """Time and row of each element of a packed sequence, given how many rows there are at each time."""
    times = np.repeat(np.arange(len(counts)), counts)
    rows = np.concatenate([np.arange(count) for count in counts])
    return torch.from_numpy(times), torch.from_numpy(rows)


def _run(layer: Any, sequence: PackedSequence, counts: list[int], hx: Any) -> tuple[PackedSequence, Any]:
    """A recurrent layer on a packed sequence, ``counts`` rows at each time."""
    data, directions = sequence.data, 1 + layer.bidirectional
    if hx is None:
        zeros = data.new_zeros(layer.num_layers * directions, counts[0], layer.hidden_size)
        hx = (zeros, zeros) if layer.mode == "LSTM" else zeros
    else:
        hx = layer.permute_hidden(hx, sequence.sorted_indices)
    states = hx if layer.mode == "LSTM" else (hx,)
    last: list[tuple[Tensor, ...]] = []
    for number in range(layer.num_layers):
        if number and layer.dropout:
            data = torch.dropout(data, layer.dropout, layer.training)
        outputs = []
        for direction in range(directions):
            index = number * directions + direction
            start = tuple(state[index] for state in states)
            output, final = _one_direction(
                _CELLS[layer.mode], data, counts, start, layer.all_weights[index], reverse=direction == 1
            )
            outputs.append(output)
            last.append(final)
        data = torch.cat(outputs, -1) if directions == 2 else outputs[0]
    finals = tuple(torch.stack(state) for state in zip(*last, strict=True))
    result = PackedSequence(data, sequence.batch_sizes, sequence.sorted_indices, sequence.unsorted_indices)
    return result, layer.permute_hidden(finals if layer.mode == "LSTM" else finals[0], sequence.unsorted_indices)


def _one_direction(
    cell: Any, data: Tensor, counts: list[int], start: tuple[Tensor, ...], weights: Sequence[Tensor], *, reverse: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """
    Args:
        start: the states before the first time, ``(rows, size)`` each.

    Returns:
        What the cell gives at each time, in the order of `data`, and the last states of each row.
    """
    pieces = list(torch.split(data, counts))
    outputs: list[Tensor] = []
    ended: list[tuple[Tensor, ...]] = []  # states of rows that are over
    state = tuple(each[: counts[-1]] for each in start) if reverse else start
    for piece in reversed(pieces) if reverse else pieces:
        rows, going = len(piece), len(state[0])
        if rows < going:
            ended.append(tuple(each[rows:] for each in state))
            state = tuple(each[:rows] for each in state)
        elif rows > going:
            state = tuple(torch.cat([each, first[going:rows]]) for each, first in zip(state, start, strict=True))
        result = cell(piece, state if len(state) == 2 else state[0], *weights)
        state = result if isinstance(result, tuple) else (result,)
        outputs.append(state[0])
    finals = tuple(torch.cat(each) for each in zip(state, *reversed(ended), strict=True))
    return torch.cat(outputs[::-1] if reverse else outputs), finals
