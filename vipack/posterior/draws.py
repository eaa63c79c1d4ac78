"""What drawing from a fitted guide gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vipack.display import Readable, listed
from vipack.errors import ProgramWarning, warn
from vipack.program import SiteTable

__all__ = ["Draws", "Extremes", "few_labels"]

_MOST_LABELS = 250_000_000  # of enumerated latents in all draws together, 2 GB


@dataclass(frozen=True, repr=False)
class Draws(Readable):
    """Draws from the guide, named and constrained, with their densities.

    Attributes:
        latents: site -> ``(S, *site shape)``; empty where they were not kept.
        deterministic: the model's deterministic sites at the same draws.
        log_joint: log p(x, z), ``(S,)`` in nats, float64; enumerated latents are summed out.
        log_q: log q(z), ``(S,)`` in nats, float64.
        row_log_weights: ``(S, N)`` where the weights are a product over the rows of one plate (every latent is local
            to it, in model and guide, as in a VAE); None otherwise.
        points: continuous latents with an element that is the same in every draw: the guide is a point there.
        enumerated: latents that are summed out, each drawn from its posterior given the others and the data; empty
            where they were not asked for.
        counted: latent -> which of its elements count, where a mask leaves out some that nothing depends on.
    """

    latents: dict[str, Tensor]
    deterministic: dict[str, Tensor]
    log_joint: Tensor
    log_q: Tensor
    row_log_weights: Tensor | None = None
    points: tuple[str, ...] = ()
    enumerated: dict[str, Tensor] = field(default_factory=dict)
    counted: dict[str, Tensor] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = listed(f"{name} {tuple(value.shape[1:])}" for name, value in self.sites.items())
        return f"{len(self.log_q)} draws" + (f" of {shapes}" if shapes else ", of which the densities are kept")

    @property
    def log_weights(self) -> Tensor:
        """``log p(x, z) - log q(z)``, ``(S,)`` in nats; its mean estimates the ELBO."""
        return self.log_joint - self.log_q

    @property
    def sites(self) -> dict[str, Tensor]:
        """Latents, enumerated latents and deterministic sites, by name."""
        return {**self.latents, **self.enumerated, **self.deterministic}


class Extremes:
    """The least and the largest value of each element of the free continuous latents, over draws that come in chunks."""

    def __init__(self, table: SiteTable) -> None:
        self._names = [site.name for site in table.of_kind("latent") if site.is_free]
        self._low: dict[str, Tensor] = {}
        self._high: dict[str, Tensor] = {}

    def add(self, latents: Mapping[str, Tensor]) -> None:
        """Take in draws ``site -> (S, *shape)``."""
        for name in self._names:
            low, high = latents[name].amin(0), latents[name].amax(0)
            if name not in self._low:
                self._low[name], self._high[name] = low, high
            torch.minimum(self._low[name], low, out=self._low[name])
            torch.maximum(self._high[name], high, out=self._high[name])

    def points(self) -> tuple[str, ...]:
        """Latents that are the same in every draw though they need not be."""
        return tuple(name for name in self._names if torch.equal(self._low[name], self._high[name]))


def few_labels(table: SiteTable, num_draws: int) -> bool:
    """Whether the model has enumerated latents, and so many draws of them can be kept.

    Warns:
        ProgramWarning: they cannot, and are left out.
    """
    sites = table.of_kind("enumerated")
    count = sum(math.prod(site.batch_shape + site.event_shape) for site in sites)
    if num_draws * count > _MOST_LABELS:
        warn(
            ProgramWarning(
                f"num_draws={num_draws}: draws of the enumerated latent(s) {', '.join(repr(s.name) for s in sites)} would "
                f"hold {num_draws * count:,} numbers, so they are left out, with the deterministic sites that depend on "
                f"them; ask for at most {_MOST_LABELS // count:,} draws to have them."
            )
        )
        return False
    return bool(sites)
