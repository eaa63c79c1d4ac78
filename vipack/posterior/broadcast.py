"""One run of a guide or model for all draws at once, in an outermost plate, as Pyro vectorizes particles.

A program that does not broadcast may give wrong numbers here without an error, so every run is held against single runs
at a few of its draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from vipack.program import Arguments
from vipack.program.densities.densities import total, total_of_many
from vipack.program.evaluation.evaluation import Evaluation
from vipack.program.sites.sites import is_deterministic, sample_nodes

__all__ = ["Broadcast"]

_CHECKED = 8  # draws compared with single runs; a guide that tosses a coin outside its sites passes one time in 2**8

LatentsAndDensities = tuple[dict[str, Tensor], Tensor, Tensor]


class Broadcast:
    """Knows the shapes of single draws, so that many can be given to a program and taken from it.

    Results are triples: values by site ``(S, *site shape)``, log density ``(S,)``, and its rows ``(S, N)``.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._nesting = evaluation.density.nesting
        latents = evaluation.table.of_kind("latent")
        model_nodes = sample_nodes(evaluation.model_trace)
        self._shapes = {site.name: model_nodes[site.name]["value"].shape for site in latents}
        self._batch_dims = {site.name: len(site.batch_shape) for site in latents}
        self._computed = {n: s["value"].shape for n, s in model_nodes.items() if is_deterministic(s)}
        self._drawn = {n: s["value"].shape for n, s in sample_nodes(evaluation.guide_trace).items()}

    def guide(self, num_draws: int, arguments: Arguments | None = None) -> LatentsAndDensities:
        """`num_draws` draws of the guide, with log q.

        Raises:
            RuntimeError: the guide does not broadcast.
        """
        evaluation, guide = self._evaluation, self._evaluation.program.guide
        with self._plate(num_draws):
            trace = evaluation.guide(guide, arguments)
        latents = {n: _each(trace.nodes[n]["value"], num_draws, shape) for n, shape in self._shapes.items()}
        log_q, rows = total_of_many(trace, evaluation.row_plate, num_draws, self._nesting)
        drawn = {
            name: _each(node["value"], num_draws, self._drawn[name])
            for name, node in sample_nodes(trace).items()
            if type(node["fn"]).__name__ != "Delta"
        }
        for index in _some(num_draws):
            single = evaluation.guide(poutine.condition(guide, data=_draw_of(drawn, index)), arguments)
            values = {name: single.nodes[name]["value"] for name in latents}
            _check((values, total(single, None)[0]), (_draw_of(latents, index), log_q[index]))
        return latents, log_q, rows

    def model(self, latents: Mapping[str, Tensor]) -> LatentsAndDensities:
        """The model at many `latents`: deterministic sites, with log p.

        Raises:
            RuntimeError: the model does not broadcast.
        """
        evaluation = self._evaluation
        num_draws = len(next(iter(latents.values())))
        given = {}
        for name, value in latents.items():
            padding = (1,) * (self._nesting - self._batch_dims[name])
            given[name] = value.reshape(num_draws, *padding, *self._shapes[name])
        with self._plate(num_draws):
            trace = evaluation.model(given)
        log_p, rows = total_of_many(trace, evaluation.row_plate, num_draws, self._nesting)
        values = {n: _each(trace.nodes[n]["value"], num_draws, shape) for n, shape in self._computed.items()}
        for index in _some(num_draws):
            _check(evaluation.evaluate(_draw_of(latents, index))[:2], (_draw_of(values, index), log_p[index]))
        return values, log_p, rows

    def _plate(self, num_draws: int) -> Any:
        return pyro.plate("_vipack_draws", num_draws, dim=-1 - self._nesting)


def _check(single: tuple[dict[str, Tensor], Tensor], many: tuple[dict[str, Tensor], Tensor]) -> None:
    (values, density), (many_values, many_density) = single, many
    same = all(torch.allclose(values[n].double(), v.double(), rtol=1e-3, atol=1e-4) for n, v in many_values.items())
    if not (same and torch.allclose(density, many_density, rtol=1e-5, atol=1e-3, equal_nan=True)):
        raise RuntimeError("the program does not broadcast over draws")


def _each(value: Tensor, num_draws: int, shape: torch.Size) -> Tensor:
    """`value` as ``(S, *shape)``; one that is the same for all draws is repeated."""
    if value.shape == shape and value.numel() != num_draws * shape.numel():
        return value.expand(num_draws, *shape)
    return value.reshape(num_draws, *shape)


def _some(num_draws: int) -> list[int]:
    return sorted({round(i * (num_draws - 1) / max(1, _CHECKED - 1)) for i in range(_CHECKED)})


def _draw_of(values: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    return {name: value[index] for name, value in values.items()}
