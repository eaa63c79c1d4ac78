"""The ELBO with the path-derivative gradient, which falls still where the guide is the posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vipack.hints import checked_class
from vipack.objectives.objective import Objective

__all__ = ["StickingTheLanding"]


@checked_class
class StickingTheLanding(Objective):
    """The ELBO in nats, with a gradient that follows the draws alone and leaves out the score of q.

    The score has expectation zero but a variance of its own; without it the gradient's variance goes to zero as the
    guide nears the posterior, so that a guide whose family holds the posterior lands on it exactly
    (Roeder, Wu, Duvenaud 2017, arXiv:1703.09194, equation 8). Far from the optimum, or with a family that cannot come
    near, it may be the noisier one.

    Draws are evaluated side by side by vmap, so that many cost little more than one; neither model nor guide need be
    written for batches. Where vmap refuses the program they are evaluated one by one. Discrete latents marked for
    enumeration are summed out. A :class:`vipack.guides.Mixture` is drawn from component by component, with its weights exact.

    Args:
        num_particles: S, draws for each gradient.
        antithetic: draw in pairs of mirrored noise; for guides that transform symmetric noise.

    Raises:
        UsageError: `num_particles` is no positive integer, or odd where draws come in pairs.
        GuideError: when first used: the guide's draws are not reparametrized, or have no mirror image.
    """

    def __init__(self, num_particles: int = 16, *, antithetic: bool = False) -> None:
        super().__init__(num_particles, antithetic=antithetic)

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the ELBO ``()`` in nats, whose gradient is the path derivative."""
        evaluated = self._evaluated(model, guide, (args, kwargs))
        log_p = evaluated.particles.log_p(evaluated.latents, (args, kwargs))
        values = log_p.detach() - evaluated.log_q
        elbo = evaluated.mean(values)
        if not evaluated.scores:
            return -elbo
        surrogate = evaluated.mean(log_p - evaluated.along(evaluated.scores))
        if evaluated.weights is not None:  # of a mixture's components, known exactly
            surrogate = surrogate + (evaluated.weights * values).sum()
        return -(elbo + (surrogate - surrogate.detach()))
