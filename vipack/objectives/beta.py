"""The ELBO with its divergence from the prior weighted, or free up to a number of nats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from vipack.compat.autoguides import traces_of
from vipack.errors import GuideError, UsageError
from vipack.hints import checked_class
from vipack.program.densities.divergences import elementwise_divergence
from vipack.program.running.step_numbers import step_numbers
from vipack.program.sites.sites import sample_nodes

__all__ = ["BetaELBO"]

Scheduled = float | Callable[[int], float]
Weight = float | Tensor


@checked_class
class BetaELBO(ELBO):  # type: ignore[misc]
    """``E[log p(x | z)] - beta KL(q(z | x) || p(z))`` in nats (Higgins et al. 2017), for VAEs.

    The divergence is exact where torch knows it and a Monte Carlo estimate elsewhere. With free bits no latent dimension
    gains from a divergence below so many nats, which keeps a strong decoder from ignoring its latents
    (Kingma et al. 2016, arXiv:1606.04934, appendix C.8). Only with ``beta=1`` and ``free_bits=0`` is this a bound on
    the evidence: judge a fit by ``fit.elbo()``, which is not affected.

    Args:
        beta: the weight, or a function from the number of the gradient step (from 0) to it, such as
            ``vipack.schedules.Linear(0.0, 1.0, 1_000)``. ``vipack.fit`` gives its numbers to the captured and the compiled
            step, and a fit that is resumed or loaded goes on with them. With ``vipack.SVI`` it keeps steps in the eager engine.
        free_bits: nats for each element of a latent's event, as a mean over the rows of its plates; or a function of the step,
            as of `beta`.
        num_particles: draws for each gradient.
        vectorize_particles: evaluate them in one pass of a model and guide that are written for batches.

    Raises:
        UsageError: `beta` or `free_bits` is negative or no number.
        GuideError: when first used: a draw is not reparametrized, or `free_bits` meets a latent whose elements' divergence is
            not known.
    """

    def __init__(
        self,
        beta: Scheduled = 1.0,
        *,
        free_bits: Scheduled = 0.0,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: float = math.inf,
    ) -> None:
        super().__init__(
            num_particles=num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting
        )
        for name, value in (("beta", beta), ("free_bits", free_bits)):
            if not callable(value):
                _check(name, value)
        self.beta = beta
        self.free_bits = free_bits
        self._step = 0

    def __repr__(self) -> str:
        beta, free_bits = (getattr(value, "__name__", value) for value in (self.beta, self.free_bits))
        return f"BetaELBO(beta={beta}, free_bits={free_bits}, num_particles={self.num_particles})"

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The loss in nats, with the weight of the step to come."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The loss in nats; gradients are added to the parameters' ``grad``, and a schedule moves on by one step."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        self._step += 1
        return loss.item()

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss ``()`` in nats."""
        beta, free_bits = self._weights()
        traces = list(traces_of(self, model, guide, args, kwargs))
        terms = [self._term(model_trace, guide_trace, beta, free_bits) for model_trace, guide_trace in traces]
        loss: Tensor = torch.stack(terms).sum() / self.num_particles
        return loss

    @property
    def schedules(self) -> dict[str, Callable[[int], float]]:
        """What follows the number of the step, by name; a fit gives the numbers in this order."""
        return {name: value for name, value in (("beta", self.beta), ("free_bits", self.free_bits)) if callable(value)}

    def _weights(self) -> list[Weight]:
        """`beta` and `free_bits` of this step."""
        scheduled: dict[str, Weight] = dict(zip(self.schedules, step_numbers(), strict=False))
        for name, function in self.schedules.items():
            if name in scheduled:
                continue
            if get_proxy_mode() is not None:
                raise RuntimeError(f"{name} follows a schedule, which changes from step to step outside the graph")
            scheduled[name] = value = function(self._step)
            _check(f"{name} at step {self._step}", value)
        return [scheduled.get(name, getattr(self, name)) for name in ("beta", "free_bits")]

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        traces: tuple[Trace, Trace] = get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
        return traces

    def _term(self, model_trace: Trace, guide_trace: Trace, beta: Weight, free_bits: Weight) -> Tensor:
        likelihood: Tensor = torch.zeros(())
        divergence: Tensor = torch.zeros(())
        for name, site in sample_nodes(model_trace).items():
            if site["is_observed"] or name not in guide_trace:
                likelihood = likelihood + site["log_prob_sum"]
            else:
                divergence = divergence + self._divergence(name, site, guide_trace.nodes[name], free_bits)
        for name, site in sample_nodes(guide_trace).items():
            if not getattr(site["fn"], "has_rsample", False):
                raise GuideError(
                    f"guide site {name!r}: {type(site['fn']).__name__} draws without a gradient to its parameters, which "
                    "BetaELBO needs; relax it, or sum it out."
                )
            if name not in model_trace:  # auxiliary
                if self.free_bits:
                    raise _no_elements(name)
                divergence = divergence + site["log_prob_sum"]
        return beta * divergence - likelihood

    def _divergence(self, name: str, model_site: Any, guide_site: Any, free_bits: Weight) -> Tensor:
        masked = guide_site["mask"] is not None or model_site["mask"] is not None
        elements = None if masked else elementwise_divergence(guide_site["fn"], model_site["fn"])
        if self.free_bits:
            if elements is None:
                raise _no_elements(name)
            event_dim = guide_site["fn"].event_dim
            rows = elements.flatten(0, elements.dim() - event_dim - 1) if elements.dim() > event_dim else elements[None]
            mean = rows.mean(0)
            if isinstance(free_bits, Tensor):
                free: Tensor = torch.maximum(mean, free_bits.to(mean))
            else:
                free = mean.clamp(min=free_bits)
            return torch.as_tensor(guide_site["scale"]) * len(rows) * free.sum()
        if elements is not None:
            return torch.as_tensor(guide_site["scale"]) * elements.sum()
        estimate: Tensor = guide_site["log_prob_sum"] - model_site["log_prob_sum"]
        return estimate


def _no_elements(name: str) -> GuideError:
    return GuideError(
        f"site {name!r}: the divergence of its elements is not known, so free_bits cannot be given to them; draw it from a "
        "Normal in model and guide, or leave free_bits out."
    )


def _check(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UsageError(f"BetaELBO: {what} must be a number of at least 0, found {value!r}.")
