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
    """The leaves of nested containers, and how to put others in their place."""
    if PYTREE.there:
        from torch.utils import _pytree

        return _pytree.tree_flatten(tree)
    if type(tree) not in (list, tuple, dict):
        return [tree], None
    parts = [tree_flatten(part) for part in (tree.values() if isinstance(tree, dict) else tree)]
    keys = tuple(tree) if isinstance(tree, dict) else None
    return [leaf for leaves, _ in parts for leaf in leaves], (type(tree), keys, tuple((len(n), s) for n, s in parts))


def tree_unflatten(leaves: Any, spec: Any) -> Any:
    """The containers that :func:`tree_flatten` took apart, with other leaves."""
    if PYTREE.there:
        from torch.utils import _pytree

        return _pytree.tree_unflatten(leaves, spec)
    leaves = list(leaves)
    if spec is None:
        return leaves[0]
    kind, keys, parts = spec
    found, start = [], 0
    for number, part in parts:
        found.append(tree_unflatten(leaves[start : start + number], part))
        start += number
    return dict(zip(keys, found, strict=True)) if kind is dict else kind(found)


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """`function` of the leaves of nested containers of one form."""
    leaves, spec = tree_flatten(tree)
    return tree_unflatten(list(map(function, leaves, *(tree_flatten(other)[0] for other in others))), spec)
