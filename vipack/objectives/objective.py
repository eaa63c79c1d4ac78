"""What our objectives share: particles side by side, and log q as a function of the draws alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from torch import Tensor

from vipack.errors import UsageError
from vipack.objectives.particles import Particles, Values, particles_of

__all__ = ["Evaluated", "Objective"]


@dataclass(frozen=True)
class Evaluated:
    """Particles of one step.

    Attributes:
        drawn: what the guide drew by name ``(S, ...)``, with the gradient to its parameters.
        latents: what the model's latents are made of.
        log_q: ``(S,)`` in nats, without gradient.
        scores: d log q / d drawn by name, with the guide's parameters held fixed; empty where no gradient is wanted.
        weights: ``(S,)``, of the particles in a mean, with the gradient to the guide's parameters; None for equal ones.
    """

    particles: Particles
    drawn: Values
    latents: Values
    log_q: Tensor
    scores: Values
    weights: Tensor | None

    def mean(self, values: Tensor) -> Tensor:
        """Mean ``()`` over particles of `values` ``(S,)``, the weights held fixed."""
        return values.mean() if self.weights is None else (self.weights.detach() * values).sum()

    def along(self, slopes: Values) -> Tensor:
        """``(S,)``: sum of slope times draw, whose gradient is that of a function of the draws with these slopes."""
        number = len(self.log_q)
        terms = [(slopes[name] * value).reshape(number, -1).sum(-1) for name, value in self.drawn.items()]
        return torch.stack(terms).sum(0)


class Objective(ELBO):  # type: ignore[misc]
    """An objective that evaluates `num_particles` draws of the guide side by side."""

    num_particles: int

    def __init__(self, num_particles: int, *, antithetic: bool = False) -> None:
        name = type(self).__name__
        if isinstance(num_particles, bool) or not isinstance(num_particles, int) or num_particles < 1:
            raise UsageError(f"{name}: num_particles must be a positive integer, found {num_particles!r}.")
        if antithetic and num_particles % 2:
            raise UsageError(
                f"{name}: antithetic draws come in pairs, so num_particles must be even, found {num_particles}."
            )
        super().__init__(num_particles=num_particles)
        self.antithetic = antithetic
        self._known: Particles | None = None

    def __repr__(self) -> str:
        mirrored = ", antithetic=True" if self.antithetic else ""
        return f"{type(self).__name__}(num_particles={self.num_particles}{mirrored})"

    @abstractmethod
    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss ``()`` in nats, whose gradient is the estimate of the objective's."""

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The loss in nats."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The loss in nats; gradients are added to the parameters' ``grad``."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.item()

    def _evaluated(self, model: Callable[..., Any], guide: Callable[..., Any], call: tuple[Any, Any]) -> Evaluated:
        known = self._known
        if known is None or known.model != model or known.guide != guide:
            known = self._known = particles_of(model, guide, call)
        drawn, latents, weights = known.draw(self.num_particles, call, antithetic=self.antithetic)
        if not torch.is_grad_enabled():
            return Evaluated(known, drawn, latents, known.log_q(drawn, latents, call), {}, weights)
        # The draws without their graph: the derivative with respect to them is the score, without that of the parameters.
        inputs = {name: value.detach().requires_grad_() for name, value in drawn.items()}
        log_q = known.log_q(inputs, latents, call)
        scores = {name: torch.zeros_like(value) for name, value in inputs.items()}
        if log_q.requires_grad:
            gradients = torch.autograd.grad(log_q.sum(), list(inputs.values()), allow_unused=True)
            scores |= {name: score for name, score in zip(inputs, gradients, strict=True) if score is not None}
        return Evaluated(known, drawn, latents, log_q.detach(), scores, weights)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # A copy for another fit must not carry this fit's model and guide with it.
        return {**self.__dict__, "_known": None}
