"""A mixture of guides."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.infer.autoguide import AutoContinuous, init_to_median, init_to_uniform
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from vipack.compat.autoguides import set_up
from vipack.errors import GuideError, UsageError
from vipack.guides.continuous import Continuous
from vipack.guides.mixing import MixtureOf
from vipack.hints import checked_class
from vipack.program.running.flat import flat_priors_sampled

__all__ = ["Mixture"]


@checked_class
class Mixture(Continuous):
    """A mixture ``sum_k weight_k q_k`` of guides over one unconstrained vector, for posteriors with several modes.

    With :class:`vipack.objectives.StickingTheLanding` every step draws from each component and weights them exactly
    (Morningstar et al. 2021, arXiv:2003.01687, section 3), which is stable; with Pyro's own objectives the weights are
    trained by the score function, which is unbiased but noisy.

    Args:
        components: AutoContinuous classes, ``functools.partial`` of them, or guides of this model, such as one ``Whitened``
            for each mode. Classes start at different random points, within (-2, 2) of the unconstrained space.
        weights: ``(K,)``, where the mixture's weights start; equal ones by default.

    Raises:
        UsageError: no components, or weights that do not fit them.
        GuideError: a component is not a guide over one unconstrained vector; when the mixture first sees its model: a component is
            a guide of other latents.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        components: Sequence[Any],
        *,
        weights: Tensor | None = None,
        init_loc_fn: Callable[..., Any] = init_to_median,
    ) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn)
        if not isinstance(components, list | tuple) or not components:
            raise UsageError("guide Mixture: components must be a list of at least one AutoContinuous class or guide.")
        weights = torch.ones(len(components)) if weights is None else weights
        if tuple(weights.shape) != (len(components),) or not bool((weights > 0).all()):
            raise UsageError(
                f"guide Mixture: weights must be {len(components)} positive numbers, found {weights.tolist()}."
            )
        self._weights = weights / weights.sum()
        self._names = [f"component_{index}" for index in range(len(components))]
        for name, component in zip(self._names, components, strict=True):
            setattr(self, name, _component(component, model))

    def read_model(self, *args: Any, **kwargs: Any) -> None:
        """Let every component read the model."""
        super().read_model(*args, **kwargs)
        for name in self._names:
            component = getattr(self, name)
            if component.prototype_trace is None:
                with flat_priors_sampled():
                    set_up(component, *args, **kwargs)
                    component.get_posterior(*args, **kwargs)  # some families make their parameters here
            self._check_prototype(component.prototype_trace)
        like = self.start()
        self.logits = nn.Parameter(self._weights.to(like).log())

    def _check_prototype(self, other_trace: Trace) -> None:
        own, theirs = ([n for n, _ in trace.iter_stochastic_nodes()] for trace in (self.prototype_trace, other_trace))
        if own != theirs:
            raise GuideError(
                f"guide Mixture: a component is a guide of the latents {theirs}, the model's are {own}; make every component from "
                "the same model."
            )

    def get_posterior(self, *args: Any, **kwargs: Any) -> MixtureOf:
        """The distribution of the unconstrained vector."""
        return MixtureOf([getattr(self, name).get_posterior(*args, **kwargs) for name in self._names], self.logits)


def _component(component: Any, model: Callable[..., Any]) -> AutoContinuous:
    guide = component
    if not isinstance(component, AutoContinuous) and callable(component):
        options = {}
        accepted = inspect.signature(component).parameters
        if "init_loc_fn" in accepted and accepted["init_loc_fn"].default is init_to_median:
            options["init_loc_fn"] = init_to_uniform  # from one point all components would train alike
        guide = component(model, **options)
    if not isinstance(guide, AutoContinuous):
        raise GuideError(
            f"guide Mixture: every component must be an AutoContinuous class, functools.partial of one, or such a guide; found "
            f"{component!r}."
        )
    return guide
