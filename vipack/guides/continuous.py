"""What our guides over one unconstrained vector share: flat priors and supports that depend on other latents."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoContinuous, init_to_median
from pyro.infer.autoguide.initialization import InitMessenger
from torch import Tensor

from vipack.compat.autoguides import ReadsModel, model_of, set_model
from vipack.program.densities.substitution import Transformed
from vipack.program.running.flat import flat_priors_sampled

__all__ = ["Continuous"]


class Continuous(ReadsModel, AutoContinuous):  # type: ignore[misc]
    """A Pyro ``AutoContinuous`` that starts under flat priors and follows supports that depend on other latents.

    Pyro's own take each latent's support from one run of the model, so that for ``b ~ Uniform(0, a)`` they draw values
    outside the support. Here such a model is run for every draw, and gives each latent the support that it has there.

    Attributes:
        latent_dim: D, the length of the unconstrained vector, once the guide has seen its model.
        follows_supports: whether a support depends on other latents or on parameters of the model.
    """

    latent_dim: int
    follows_supports: bool

    def __init__(self, model: Callable[..., Any], init_loc_fn: Callable[..., Any] = init_to_median) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn)
        self.init_loc_fn = init_loc_fn
        set_model(self, (model,))

    def read_model(self, *args: Any, **kwargs: Any) -> None:
        """Run the model once, where ``init_loc_fn`` starts, and see whether supports depend on latents."""
        model = model_of(self)
        set_model(self, (InitMessenger(self.init_loc_fn)(model[0]),))
        try:
            with flat_priors_sampled():
                super().read_model(*args, **kwargs)
        finally:
            set_model(self, model)
        self.follows_supports = self._supports_depend(args, kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """A draw of every latent by name, made by ``pyro.sample`` statements."""
        if self.prototype_trace is None:
            self.read_model(*args, **kwargs)
        if not self.follows_supports:
            drawn: dict[str, Tensor] = super().forward(*args, **kwargs)
            return drawn
        latent = self.sample_latent(*args, **kwargs)
        plates = self.open_plates(*args, **kwargs)
        transformed = self._transformed(latent, args, kwargs)
        result = {}
        for name, site in self.prototype_trace.iter_stochastic_nodes():
            density = dist.Delta(transformed.values[name], -transformed.log_dets[name], event_dim=site["fn"].event_dim)
            with contextlib.ExitStack() as stack:
                for frame in self.frames_of(name):
                    stack.enter_context(plates[frame.name])
                result[name] = pyro.sample(name, density)
        return result

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The median of each latent, where the family knows it."""
        loc, _ = self.loc_and_scale(*args, **kwargs)
        return self._transformed(loc.detach(), args, kwargs).values

    def _transformed(self, latent: Tensor, args: Any, kwargs: Any) -> Transformed:
        """The values that the vector `latent` stands for."""
        pieces = self.slices_of(latent)
        transformed = Transformed(pieces, None)
        with poutine.block(hide_fn=lambda message: message["type"] == "sample"), transformed:
            self.model(*args, **kwargs)
        return transformed

    def _supports_depend(self, args: Any, kwargs: Any) -> bool:
        with torch.enable_grad():
            latent = self.start().requires_grad_(True)
            transformed = self._transformed(latent, args, kwargs)
        return any(map(_needs_grad, transformed.supports.values()))


def _needs_grad(value: Any) -> bool:
    """Whether a constraint holds a tensor that depends on what is differentiated."""
    if isinstance(value, Tensor):
        return value.requires_grad
    if isinstance(value, list | tuple):
        return any(map(_needs_grad, value))
    return isinstance(value, torch.distributions.constraints.Constraint) and any(map(_needs_grad, vars(value).values()))
