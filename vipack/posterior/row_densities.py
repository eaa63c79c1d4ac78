"""log q(z | x) and log p(x, z) of each observation as functions of its latents, side by side in one vector."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints

from vipack.errors import UsageError
from vipack.posterior.posterior import Posterior
from vipack.program.densities.densities import compute, row_sums
from vipack.program.densities.substitution import Given
from vipack.program.running.runs import trace_model

__all__ = ["RowDensities", "bounded_latents"]


def bounded_latents(posterior: Posterior) -> list[str]:
    """Latents that are not on all of R^d, as labels and scales, each with its distribution."""
    bounded = []
    for site in posterior.table.of_kind("latent"):
        support = site.support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        if support not in (constraints.real, constraints.real_vector):
            bounded.append(f"{site.name!r} is a {site.distribution}")
    return bounded


class RowDensities:
    """Of a posterior whose latents each belong to an observation; pure, differentiable and vmappable.

    Args:
        moved: whether they will be evaluated at other values than draws.

    Raises:
        UsageError: latents are to be moved, and one is not on all of R^d.
    """

    def __init__(self, posterior: Posterior, *, moved: bool = True) -> None:
        self._posterior = posterior
        plate = posterior.evaluation.row_plate
        assert plate is not None
        self._plate: str = plate
        self._axes: dict[str, int] = {}
        self._shapes: dict[str, torch.Size] = {}
        self._widths: dict[str, int] = {}
        self._types = {
            site.name: posterior.evaluation.model_trace.nodes[site.name]["value"].dtype
            for site in posterior.table.of_kind("latent")
        }
        if moved and (bounded := bounded_latents(posterior)):
            raise UsageError(f"latents that are moved must be on all of R^d, and {bounded[0]}; use fit.log_evidence().")
        for site in posterior.table.of_kind("latent"):
            axis = site.dim_names.index(plate)
            shape = torch.Size([*site.batch_shape, *site.event_shape])
            self._axes[site.name], self._shapes[site.name] = axis, shape
            self._widths[site.name] = torch.Size([*shape[:axis], *shape[axis + 1 :]]).numel()

    def flat(self, latents: dict[str, Tensor]) -> Tensor:
        """``(C, N, D)``, the latents of each observation side by side."""
        moved = [latents[name].movedim(1 + axis, 1) for name, axis in self._axes.items()]
        rows = [value.reshape(*value.shape[:2], -1) for value in moved]
        return torch.cat(rows, -1).contiguous()

    def sites(self, z: Tensor) -> dict[str, Tensor]:
        """Latents ``site -> site shape`` of one chain ``(N, D)``."""
        sites = {}
        for name, values in zip(self._widths, z.split(list(self._widths.values()), -1), strict=True):
            shape, axis = self._shapes[name], self._axes[name]
            moved = torch.Size([shape[axis], *shape[:axis], *shape[axis + 1 :]])
            sites[name] = values.reshape(moved).movedim(0, axis).to(self._types[name])
        return sites

    def log_q(self, z: Tensor) -> Tensor:
        """log q(z | x) ``(N,)`` in nats at one draw ``(N, D)``; inside ``Posterior.running()``."""
        with Given(self.sites(z)):
            trace = trace_model(self._posterior.program.guide, self._posterior.arguments)
        return row_sums(compute(trace), self._plate)

    def log_p(self, z: Tensor) -> Tensor:
        """log p(x, z) ``(N,)`` in nats at one draw ``(N, D)``; inside ``Posterior.running()``."""
        return row_sums(self._posterior.evaluation.model(self.sites(z)), self._plate)
