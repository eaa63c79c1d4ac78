"""Running a pure function of tensors once, and replaying its operations: what Python and Pyro take is paid a single time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat import pytree
from vipack.compat.pytorch import schema_of
from vipack.compat.tracer import recorded

__all__ = ["Replay", "captured"]


def captured(function: Callable[..., Any], *example: Tensor, vectorized: bool = False) -> fx.GraphModule:
    """The operations of `function` at `example`, for tensors of its shapes; other tensors that it reads stay as they are.

    Args:
        vectorized: it runs its program under ``torch.vmap``, which lets no number be read from what depends on `example`, so
            that those which the program reads are the same at every call.
    """
    graph = recorded(function, freeze=vectorized)(*example)
    graph.graph.eliminate_dead_code()
    _keep_dtypes(graph)
    graph.recompile()
    return graph


def _keep_dtypes(graph: fx.GraphModule) -> None:
    """Tensors that the program makes of numbers keep their types, which torch's default decides when the graph is replayed elsewhere."""
    for node in graph.graph.nodes:
        schema = schema_of(node.target)
        value = node.meta.get("val")
        if schema is None or not isinstance(value, Tensor) or node.kwargs.get("dtype") is not None:
            continue
        makes = any(argument.name == "dtype" for argument in schema.arguments)
        if makes and not any("Tensor" in str(argument.type) for argument in schema.arguments):
            node.update_kwarg("dtype", value.dtype)


class Replay:
    """A function of one draw, run for many in chunks of `size`, which a graph of the first chunk's operations serves.

    What the function reads must not change meanwhile.
    """

    def __init__(self, function: Callable[[Any], Any], size: int) -> None:
        self._function = function
        self._size = size
        self._graph: fx.GraphModule | None = None
        self._spec: Any = None

    def __call__(self, draws: Mapping[str, Tensor]) -> Iterator[Any]:
        """The results for named values ``(S, ...)``, of each chunk one, stacked as ``torch.vmap`` stacks them."""
        count = len(next(iter(draws.values())))
        for start in range(0, count, self._size):
            values = [value[start : start + self._size] for value in draws.values()]
            here = len(values[0])
            if here < self._size:
                values = [torch.cat([v, v[-1:].expand(self._size - here, *v.shape[1:])]) for v in values]
            if self._graph is None:
                self._graph = captured(self._flat(tuple(draws)), *values, vectorized=True)
            yield pytree.tree_unflatten([output[:here] for output in self._graph(*values)], self._spec)

    def _flat(self, names: tuple[str, ...]) -> Callable[..., list[Tensor]]:
        def run(*values: Tensor) -> list[Tensor]:
            result = torch.vmap(self._function, randomness="different")(dict(zip(names, values, strict=True)))
            outputs, self._spec = pytree.tree_flatten(result)
            return outputs

        return run
