"""Whether somebody else looks at the memory that a parameter lies in: a kept ``state_dict()``, a view, a NumPy array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from vipack.compat.param_store import stored_keys
from vipack.compat.pytorch import storage_address, storage_holders

__all__ = ["have_other_holders", "in_one_stretch"]


def have_other_holders(tensors: Sequence[Tensor], modules: Iterable[nn.Module]) -> list[bool]:
    """For each parameter, whether anything besides the parameters and Pyro's own books holds the memory that it lies in.

    Pyro keeps views that nobody reads the numbers of: the tensor that a PyroModule's parameter was made from, as a key of
    its store, and the first trace of an automatic guide, with values and the distributions that depend on them.
    """
    known: dict[int, Tensor] = {id(tensor): tensor for tensor in (*tensors, *stored_keys())}
    for module in modules:
        trace: Any = getattr(module, "prototype_trace", None)
        for node in () if trace is None else trace.nodes.values():
            known |= {id(value): value for value in _tensors((node.get("value"), node.get("fn")))}
    holders = Counter(address for value in known.values() if (address := _storage(value)))
    return [bool(address := _storage(t)) and _has_more_holders(t, holders[address]) for t in tensors]


def in_one_stretch(first: Tensor, second: Tensor) -> bool:
    """Whether one tensor begins where another one ends, in the same memory, and both are contiguous."""
    return (
        first.is_contiguous()
        and second.is_contiguous()
        and _storage(first) == _storage(second)
        and first.dtype == second.dtype
        and first.storage_offset() + first.numel() == second.storage_offset()
    )


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among some values, and in the distributions and transforms among them, each of which is looked into once."""
    seen: set[int] = set()  # a transform and its inverse know each other
    open_values = list(values)
    while open_values:
        value = open_values.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Distribution | Transform | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            open_values += value if isinstance(value, list | tuple) else vars(value).values()


def _storage(tensor: Tensor) -> int:
    """What tells one storage from another; 0 for a tensor without memory of its own."""
    if tensor.layout is not torch.strided or tensor.numel() == 0:
        return 0
    return storage_address(tensor)


def _has_more_holders(tensor: Tensor, known: int) -> bool:
    """Whether more tensors or arrays hold its memory than are known; yes where torch does not count them."""
    holders = storage_holders(tensor)
    return holders is None or holders > known
