"""Tensors as strided views of memory, and loops over several of them in few dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vipack.engine.native.operations import Base

__all__ = ["NotUnderstood", "Value", "broadcast", "contiguous", "loop"]


class NotUnderstood(Exception):
    """An operation that no kernel does; the library can."""


@dataclass(frozen=True)
class Value:
    """A tensor over some memory; offset and strides in elements."""

    base: Base
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.size)

    def is_contiguous(self) -> bool:
        """In rows, without gaps."""
        wanted = contiguous(self.size)
        return all(n == 1 or s == w for n, s, w in zip(self.size, self.stride, wanted, strict=True))

    def select(self, dim: int, index: int) -> Value:
        """The slice at one index of a dimension."""
        dim %= len(self.size)
        return replace(
            self,
            size=self.size[:dim] + self.size[dim + 1 :],
            stride=self.stride[:dim] + self.stride[dim + 1 :],
            offset=self.offset + index * self.stride[dim],
        )

    def slice(self, dim: int, start: int, length: int, step: int = 1) -> Value:
        """`length` entries of a dimension, from `start`."""
        dim %= len(self.size)
        size, stride = list(self.size), list(self.stride)
        offset = self.offset + start * stride[dim]
        size[dim], stride[dim] = length, stride[dim] * step
        return replace(self, size=tuple(size), stride=tuple(stride), offset=offset)


def contiguous(size: Sequence[int]) -> tuple[int, ...]:
    """Strides of rows without gaps."""
    strides, step = [], 1
    for n in reversed(size):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def broadcast(value: Value, size: Sequence[int]) -> Value:
    """`value` expanded to `size`."""
    missing = len(size) - len(value.size)
    old = (1,) * missing + value.size
    stride = (0,) * missing + value.stride
    if missing < 0 or any(n not in (1, m) for n, m in zip(old, size, strict=True)):
        raise NotUnderstood(f"{value.size} broadcast to {tuple(size)}")
    return replace(
        value,
        size=tuple(size),
        stride=tuple(0 if n == 1 and m != 1 else s for n, m, s in zip(old, size, stride, strict=True)),
    )


def loop(size: Sequence[int], strides: Sequence[Sequence[int]], most: int = 4) -> tuple[list[int], list[list[int]]]:
    """A loop over all elements in as few dimensions as the strides of all operands allow; at least one.

    Args:
        strides: of each operand, per dimension of `size`; the first operand's order decides the loop's.

    Raises:
        NotUnderstood: it takes more than `most` dimensions.
    """
    dims = [d for d in range(len(size)) if size[d] != 1]
    dims.sort(key=lambda d: -abs(strides[0][d]))  # stable: equal strides stay in order
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for d in dims:
        if sizes and all(own[-1] == s[d] * size[d] for own, s in zip(steps, strides, strict=True)):
            sizes[-1] *= size[d]
            for own, s in zip(steps, strides, strict=True):
                own[-1] = s[d]
        else:
            sizes.append(size[d])
            for own, s in zip(steps, strides, strict=True):
                own.append(s[d])
    if not sizes:
        return [1], [[0] for _ in strides]
    if len(sizes) > most:
        raise NotUnderstood(f"a loop over {len(sizes)} dimensions")
    return sizes, steps
