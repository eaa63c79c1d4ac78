"""torch's private functions for nested containers of tensors, or plain ones of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vipack.compat.names import named

__all__ = ["tree_flatten", "tree_map", "tree_unflatten"]

PYTREE = named(
    "torch",
    "torch.utils._pytree",
    "torch.utils._pytree:tree_flatten",
    without="containers in the carry of a scan may be lists, tuples and dicts only",
)


def tree_flatten(tree: Any) -> tuple[list[Any], Any]:
    """The values in nested containers, and the form of the containers."""
    if PYTREE.there:
        from torch.utils import _pytree

        return _pytree.tree_flatten(tree)
    if type(tree) not in (list, tuple, dict):
        return [tree], None
    children = [tree_flatten(child) for child in (tree.values() if isinstance(tree, dict) else tree)]
    keys = tuple(tree) if isinstance(tree, dict) else None
    return [value for values, _ in children for value in values], (
        type(tree),
        keys,
        tuple((len(n), s) for n, s in children),
    )


def tree_unflatten(values: Any, spec: Any) -> Any:
    """The containers that :func:`tree_flatten` took apart, with other values."""
    if PYTREE.there:
        from torch.utils import _pytree

        return _pytree.tree_unflatten(values, spec)
    values = list(values)
    if spec is None:
        return values[0]
    kind, keys, children = spec
    containers, start = [], 0
    for number, child in children:
        containers.append(tree_unflatten(values[start : start + number], child))
        start += number
    return dict(zip(keys, containers, strict=True)) if kind is dict else kind(containers)


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`function` of the values in nested containers of one form."""
    values, spec = tree_flatten(tree)
    return tree_unflatten(list(map(function, values, *(tree_flatten(other)[0] for other in others))), spec)
