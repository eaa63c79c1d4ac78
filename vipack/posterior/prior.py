"""Draws from the prior: of the latents, and of what the model would have observed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor

from vipack.posterior.blocked_posterior import all_arguments
from vipack.posterior.posterior import Posterior
from vipack.posterior.vectorize import stacked, vmapped
from vipack.program import seeded
from vipack.program.densities.vmappable import vmappable_densities
from vipack.program.evaluation.simulation import Simulation

__all__ = ["prior_draws"]


def prior_draws(posterior: Posterior, num_draws: int, *, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draws of latents and deterministic sites, and of the observed sites: ``site -> (S, *site shape)``.

    Raises:
        ModelError: a prior is improper, or the model has a ``pyro.factor``, so that there is nothing to draw from.
    """
    program, arguments = posterior.program, all_arguments(posterior, "draws of the prior")
    with seeded(seed):
        bound = program.bound(arguments, values=program.parameters.detached(), training=False)
        with bound, pyro.validation_enabled(False), vmappable_densities(), torch.no_grad():
            simulation = Simulation(program, arguments)
            methods: dict[str, Callable[[], Any]] = {
                "vmap": lambda: vmapped(lambda _: simulation.draw(), torch.arange(num_draws)),
                "loop": lambda: stacked([simulation.draw() for _ in range(num_draws)]),
            }
            latents, computed, observed = posterior.vectorizer.run("prior", methods, arguments)
    return {**latents, **computed}, observed
