"""A mixture of distributions over one vector, drawn so that its components keep their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.score_parts import ScoreParts
from torch import Tensor
from torch.distributions import constraints

__all__ = ["MixtureOf"]


class MixtureOf(TorchDistribution):  # type: ignore[misc]
    """``sum_k weight_k q_k`` of distributions with event ``(D,)`` and no batch.

    A draw comes from one component, along which its gradient goes; the choice of the component enters Pyro's objectives by the
    score function, which is unbiased but noisy. :meth:`stratified` draws from every component and needs no such term.

    Args:
        logits: ``(K,)``, unnormalised log weights.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, components: Sequence[Any], logits: Tensor, batch_shape: tuple[int, ...] = ()) -> None:
        self.components = tuple(components)
        self.log_weights = logits.log_softmax(-1)
        self._last: tuple[Tensor | None, Tensor | None] = (None, None)
        super().__init__(torch.Size(batch_shape), self.components[0].event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> MixtureOf:
        """The same for a larger batch of independent draws."""
        return MixtureOf(self.components, self.log_weights, torch.Size(batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws ``(*sample_shape, *batch_shape, D)``."""
        shape = torch.Size(sample_shape) + self.batch_shape
        draws = torch.stack([component.rsample(shape) for component in self.components], -2)
        # By inversion, whose uniform noise does not depend on the weights, so that an engine can make it beforehand.
        uniform = torch.rand(shape, dtype=draws.dtype, device=draws.device)
        below = uniform[..., None] > self.log_weights.detach().exp().cumsum(-1)[:-1]
        chosen = below.sum(-1)
        value = draws.gather(-2, chosen[..., None, None].expand(*shape, 1, draws.shape[-1])).squeeze(-2)
        self._last = (value, chosen)
        return value

    def stratified(self, number: int) -> tuple[Tensor, Tensor]:
        """At least `number` draws ``(S, D)``, the same number from every component, and their weights ``(S,)``.

        The weighted sum of a function is an unbiased estimate of its mean, with a gradient to the mixture's weights.
        """
        each = -(-number // len(self.components))
        draws = torch.cat([component.rsample((each,)) for component in self.components])
        return draws, (self.log_weights.exp() / each).repeat_interleave(each)

    def log_prob(self, value: Tensor) -> Tensor:
        """log density in nats."""
        terms = torch.stack([component.log_prob(value) for component in self.components], -1)
        return (terms + self.log_weights).logsumexp(-1)

    def score_parts(self, x: Tensor, *args: Any, **kwargs: Any) -> ScoreParts:
        """For Pyro's objectives: the score function of the choice alone, where `x` is the last draw."""
        log_prob = self.log_prob(x)
        value, chosen = self._last
        if chosen is None or x is not value:
            return ScoreParts(log_prob, 0, log_prob)
        # At least one dimension: Pyro tests whether a single number is zero, which a tracer cannot read.
        score = self.log_weights[chosen.reshape(chosen.shape or (1,))]
        return ScoreParts(log_prob, score, log_prob)
