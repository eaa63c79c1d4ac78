"""What drawing from a fitted guide gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from vipack.display import Readable, listed

__all__ = ["Draws"]


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
