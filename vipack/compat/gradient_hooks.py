"""Private names of torch's hooks on the gradients of tensors, and steps in which they are called, kept apart or left out."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from vipack.compat.names import named

__all__ = ["has_gradient_hooks", "hooks_left_out", "hooks_unseen", "set_gradient"]

_CALLED = "_backward_hooks", "_post_accumulate_grad_hooks"  # with the gradient; with the tensor that has received it
for _hooks in _CALLED:
    _probe = functools.partial(lambda name: getattr(torch.zeros(1), name), _hooks)
    _without = "a hook on a parameter's gradient would not be seen"
    named("torch", f"torch.Tensor.{_hooks}", _probe, without=_without, stops="single steps")

_no_modes: Callable[[], Any] = contextlib.nullcontext
with contextlib.suppress(ImportError):
    from torch.utils._python_dispatch import _disable_current_modes as _no_modes
named(
    "torch",
    "torch.utils._python_dispatch._disable_current_modes",
    without="a program stays with Pyro where a hook on a parameter's gradient reads a number from it",
)


def has_gradient_hooks(tensor: Tensor) -> bool:
    """Whether something of the user's is called with the gradient."""
    return bool(getattr(tensor, _CALLED[0], None) or getattr(tensor, _CALLED[1], None))


def set_gradient(tensor: Tensor, gradient: Tensor) -> None:
    """Give a tensor its gradient as ``backward`` does: hooks are called, and may replace it."""
    if not has_gradient_hooks(tensor):
        tensor.grad = gradient
        return
    gradient = gradient.clone()  # which a hook may keep
    before, after = ([*(getattr(tensor, name, None) or {}).values()] for name in _CALLED)
    with torch.no_grad():
        for hook in before:
            changed = hook(gradient)
            gradient = gradient if changed is None else changed
        tensor.grad = gradient.clone()
        for hook in after:
            hook(tensor)


@contextlib.contextmanager
def hooks_unseen(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Inside the block, what hooks do is seen by no profiler and no mode of torch's: it is no part of the program."""
    wrapped = []
    for table in _tables(tensors):
        for key, hook in table.items():
            table[key] = _unseen(hook)
            wrapped.append((table, key, hook, table[key]))
    try:
        yield
    finally:
        for table, key, hook, unseen in wrapped:
            if table.get(key) is unseen:
                table[key] = hook


@contextlib.contextmanager
def hooks_left_out(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Inside the block no hook is called; what is registered there is gone afterwards."""
    tensors = list(tensors)
    kept = {id(table): dict(table) for table in _tables(tensors)}
    for table in _tables(tensors):
        table.clear()
    try:
        yield
    finally:
        for table in _tables(tensors, empty=True):
            table.clear()
            table.update(kept.get(id(table), {}))


def _tables(tensors: Iterable[Tensor], *, empty: bool = False) -> list[dict[int, Any]]:
    tables = [getattr(tensor, name, None) for tensor in tensors for name in _CALLED]
    return [table for table in tables if table or (empty and table is not None)]


def _unseen(hook: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        profile = sys.getprofile()
        sys.setprofile(None)
        try:
            with _no_modes():
                return hook(*args)
        finally:
            sys.setprofile(profile)

    return call
