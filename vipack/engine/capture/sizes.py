"""Operations whose results have as many elements as the data say, with that number given.

``x[mask]``, ``nonzero`` and their like make tensors of a size that a graph does not know. Where the number is known, and
checked, another operation gives the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["counted", "depends_on_data", "is_sized", "sized"]

aten = torch.ops.aten

_INDEX = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
_SIZED = (*_INDEX, aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor)
_MASKS = (torch.bool, torch.uint8)


def is_sized(func: Any, args: Sequence[Any]) -> bool:
    """Whether an operation's result, or what it needs of an argument, is of a size that depends on data, and can be told it."""
    if func not in _INDEX:
        return func in _SIZED
    writes_one = func is not aten.index.Tensor and args[2].numel() == 1
    return not writes_one and bool(_masks(args[1]))


def depends_on_data(func: Any, args: Sequence[Any]) -> bool:
    """Likewise, be it of the operations that another one stands for here or not."""
    return is_sized(func, args) or (torch.Tag.dynamic_output_shape in func.tags and func not in _SIZED)


def counted(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """What must be counted: tensors whose sums are the sizes ``()``."""
    if func in _INDEX:
        masks = _masks(args[1])
    elif func is aten.masked_select.default:
        masks = [args[1].expand(torch.broadcast_shapes(args[0].shape, args[1].shape))]
    else:
        masks = [args[0]]
    whole = func is aten.repeat_interleave.Tensor
    return [mask.detach().sum() if whole else torch.ne(mask.detach(), 0).sum() for mask in masks]


def sized(func: Any, args: Sequence[Any], sizes: Sequence[int]) -> Any:
    """The operation's result, given the sums of what is counted."""
    if func is aten.nonzero.default:
        return aten.nonzero_static.default(args[0], size=sizes[0])
    if func is aten.repeat_interleave.Tensor:
        return aten.repeat_interleave.Tensor(args[0], output_size=sizes[0])
    if func is aten.masked_select.default:
        shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
        return aten.index.Tensor(args[0].expand(shape), _columns(args[1].expand(shape), sizes[0]))
    left = iter(sizes)
    indices: list[Tensor | None] = []
    for index in args[1]:
        is_mask = index is not None and index.dtype in _MASKS
        indices += _columns(index, next(left)) if is_mask else [index]
    return func(args[0], indices, *args[2:])


def _masks(indices: Sequence[Tensor | None]) -> list[Tensor]:
    return [index for index in indices if index is not None and index.dtype in _MASKS]


def _columns(mask: Tensor, size: int) -> list[Tensor | None]:
    """The row and column numbers of a mask's true elements, each ``(size,)``."""
    indices = aten.nonzero_static.default(mask, size=size)
    return [indices.select(1, column) for column in range(mask.dim())]
