"""Functions of the latents, whose posterior means respond: their values at draws, and the gradients of their means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.display import element_name
from vipack.errors import NonFiniteError, UsageError
from vipack.posterior.linear_response.base_draws import FromNoise
from vipack.posterior.linear_response.fixed_draws import (
    NUMBERS_AT_ONCE,
    Block,
    Parameters,
    block_of,
    even_sizes,
    weighted_gradients,
)
from vipack.posterior.vectorize import Vectorizer, vmap_or_loop
from vipack.program import seeded
from vipack.program.evaluation.evaluation import Evaluation

__all__ = ["Function", "Functions"]

Function = Callable[[dict[str, Tensor]], Any]

_MOST_ELEMENTS = 500  # that are asked for without a function


class Functions:
    """`function` of the latents and deterministic sites of one draw, by default each of their elements.

    Attributes:
        shapes: name -> the shape of what has that name.

    Raises:
        UsageError: there are too many elements, or the function's values are no tensors that depend on latents smoothly.
    """

    def __init__(self, function: Function | None, evaluation: Evaluation, parameters: Parameters) -> None:
        self._evaluation, self._parameters = evaluation, parameters
        self._vectorizer = Vectorizer()
        self._vectorizer.allowed = ("vmap", "loop")
        self._computed = bool({s.name for s in evaluation.table.of_kind("deterministic")} - evaluation.varying)
        self._function = function if function is not None else self._elements
        if function is None:
            self._check_number()
        first = self._of_draws(block_of(evaluation, 2, 1.0, 0))
        if function is None:
            first = {name: value for name, value in first.items() if value.requires_grad}
        self.shapes = {name: value.shape[1:] for name, value in first.items()}
        for name, value in first.items():
            if not value.requires_grad:
                raise UsageError(
                    f"linear_response: {_label(name)} does not depend on the latents by a gradient. Linear response differentiates "
                    "it: give a smooth function, not one of comparisons or whole numbers, of the draw that it is called with."
                )

    @property
    def names(self) -> list[str]:
        """Of all elements, as ``theta[0]``, in the order of the columns of :meth:`values`."""
        return [element_name(name, index) for name, shape in self.shapes.items() for index in np.ndindex(*shape)]

    def values(self, number: int, seed: int) -> Tensor:
        """``(S, G)`` at `number` draws, float64, without gradients."""
        with torch.no_grad():
            return torch.cat([self._columns(self._of_draws(block)) for block in self._blocks(number, seed)])

    def gradients(self, number: int, seed: int) -> Tensor:
        """``(G, P)``: those of the means over `number` draws in the guide's parameters, float64."""
        count = len(self.names)
        total = torch.zeros(count, len(self._parameters), dtype=torch.float64)
        for block in self._blocks(number, seed):
            means = self._columns(self._of_draws(block)).sum(0) / number
            at_once = max(1, NUMBERS_AT_ONCE // max(1, self._evaluation.numbers * block.number))
            for start in range(0, count, at_once):
                chosen = torch.eye(count, dtype=means.dtype, device=means.device)[start : start + at_once]
                rows = weighted_gradients(self._parameters, [means], [chosen])
                total[start : start + at_once] += rows.cpu()
        return total

    def by_name(self, columns: Tensor) -> dict[str, Tensor]:
        """``(G,)`` as name -> its own shape."""
        pieces = columns.split([math.prod(shape) for shape in self.shapes.values()])
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def _blocks(self, number: int, seed: int) -> list[Block]:
        sizes = even_sizes(number, NUMBERS_AT_ONCE // max(1, self._evaluation.numbers))
        return [block_of(self._evaluation, size, 1.0, (1_000 * seed + i) % 2**32) for i, size in enumerate(sizes)]

    def _columns(self, values: Mapping[str, Tensor]) -> Tensor:
        pieces = []
        for name in self.shapes:
            piece = values[name].reshape(len(values[name]), -1).double()
            if not bool(piece.isfinite().all()):
                raise NonFiniteError(
                    f"linear_response: {_label(name)} is NaN or infinite at some draws of the guide; leave it out by a function "
                    "of the others."
                )
            pieces.append(piece)
        return torch.cat(pieces, dim=1)

    def _of_draws(self, block: Block) -> dict[str, Tensor]:
        evaluation = self._evaluation

        def one(noise: dict[str, Tensor]) -> dict[str, Tensor]:
            with FromNoise(noise):
                latents = evaluation.draw()[0]
            computed = evaluation.sites(latents) if self._computed else {}
            return _named(self._function({**latents, **computed}), self._function)

        with self._parameters.running(evaluation.arguments), seeded(block.seed):
            methods = vmap_or_loop(one, block.noise, block.number)
            values: dict[str, Tensor] = self._vectorizer.run("function", methods, evaluation.arguments)
        return values

    def _elements(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in values.items() if value.is_floating_point()}

    def _check_number(self) -> None:
        table = self._evaluation.table
        sites = {s.name: math.prod(s.batch_shape + s.event_shape) for s in table.of_kind("latent", "deterministic")}
        count = sum(sites.values())
        if count > _MOST_ELEMENTS:
            largest = max(sites, key=lambda name: sites[name])
            others = [name for name in sites if name != largest] or [largest]
            raise UsageError(
                f"linear_response: the latent and deterministic sites have {count:,} elements, {sites[largest]:,} of them of "
                f"{largest!r}, and each is a system of equations; give the function that you need, such as "
                f"fit.linear_response(lambda z: z[{others[0]!r}]), of at most some hundred numbers."
            )


def _named(value: Any, function: Any) -> dict[str, Tensor]:
    values = value if isinstance(value, Mapping) else {_name_of(function): value}
    for name, each in values.items():
        if not isinstance(each, Tensor) or not each.is_floating_point():
            kind = f"a tensor of {each.dtype}" if isinstance(each, Tensor) else f"a {type(each).__name__}"
            raise UsageError(
                f"linear_response: {_label(str(name))} is {kind}; expected a tensor of floats, or a dict of them, "
                "computed with torch from the draw that the function is called with."
            )
    return {str(name): each for name, each in values.items()}


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", "function")
    return "function" if name == "<lambda>" else str(name)


def _label(name: str) -> str:
    return "the function's value" if name == "function" else repr(name)
