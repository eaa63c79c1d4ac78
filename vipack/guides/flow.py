"""A normalizing flow of coupling layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import init_to_median
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform

from vipack.errors import UsageError
from vipack.guides.continuous import Continuous
from vipack.guides.coupling import KINDS, Coupling, Kind, Layer, alternating_masks, numbers_per_element
from vipack.hints import checked_class

__all__ = ["Flow"]


@checked_class
class Flow(Continuous):
    """A flow ``u = loc + scale * T(eps)`` with ``eps ~ N(0, I)`` on the unconstrained space.

    T is `num_layers` coupling layers, each moving one half of the vector by numbers that a tanh network computes from
    the other half (Dinh et al. 2017, arXiv:1605.08803). T is the identity at first, so the guide starts at
    ``N(loc, diag(scale^2))``. For badly scaled or correlated posteriors put it in whitened coordinates, as in
    ``Whitened(model, Flow, loc=..., scale_tril=...)``.

    Args:
        num_layers: K; every element of the vector is moved by half of them.
        hidden: widths of the network's layers.
        kind: "affine" scales and shifts, its log scale bounded by ``2 tanh(s / 2)``; "spline" moves by monotone rational
            quadratic splines on (-5, 5) (Durkan et al. 2019, arXiv:1906.04032), through zuko.
        init_loc_fn: where `loc` starts, a strategy of ``pyro.infer.autoguide``.
        init_scale: where `scale` starts.

    Raises:
        UsageError: an option is out of its range.
        MissingExtraError: "spline" without zuko.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        num_layers: int = 8,
        hidden: Sequence[int] = (32,),
        kind: Kind = "affine",
        *,
        init_loc_fn: Callable[..., Any] = init_to_median,
        init_scale: float = 0.1,
    ) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn)
        if kind not in KINDS:
            raise UsageError(f"guide Flow: kind must be one of {', '.join(map(repr, KINDS))}, found {kind!r}.")
        if num_layers < 1 or any(width < 1 for width in hidden) or not 0 < init_scale < math.inf:
            raise UsageError(
                "guide Flow: num_layers and each width in hidden must be at least 1 and init_scale positive, found "
                f"num_layers={num_layers}, hidden={tuple(hidden)}, init_scale={init_scale}."
            )
        self.num_layers = num_layers
        self.hidden = tuple(hidden)
        self.kind: Kind = kind
        self._init_scale = init_scale

    def read_model(self, *args: Any, **kwargs: Any) -> None:
        """Make the layers, as wide as the model has latents."""
        super().read_model(*args, **kwargs)
        loc = self.start()
        self.loc = nn.Parameter(loc)
        self.scale = PyroParam(torch.full_like(loc, self._init_scale), constraints.softplus_positive)
        self.register_buffer("masks", alternating_masks(len(loc), self.num_layers, loc))
        widths = [len(loc), *self.hidden, len(loc) * numbers_per_element(self.kind)]
        # One tensor for all layers: fewer parameters to name, hand over and update.
        for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
            weight = loc.new_zeros(self.num_layers, width_out, width_in)
            if index < len(self.hidden):
                weight.normal_(0, width_in**-0.5)
            setattr(self, f"weight_{index}", nn.Parameter(weight))
            setattr(self, f"bias_{index}", nn.Parameter(loc.new_zeros(self.num_layers, width_out)))

    def get_base_dist(self) -> Any:
        """The distribution of ``eps``."""
        zeros = torch.zeros_like(self.loc)
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)

    def get_transform(self, *args: Any, **kwargs: Any) -> Any:
        """The map from ``eps`` to ``u``."""
        affine = AffineTransform(self.loc, self.scale, event_dim=1)
        return dist.transforms.ComposeTransform([Coupling(self._layers()), affine])

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The distribution of ``u``."""
        return dist.TransformedDistribution(self.get_base_dist(), list(self.get_transform().parts))

    def _layers(self) -> list[Layer]:
        depth = len(self.hidden) + 1
        weights = [getattr(self, f"weight_{index}").unbind() for index in range(depth)]
        biases = [getattr(self, f"bias_{index}").unbind() for index in range(depth)]
        masks: tuple[Tensor, ...] = self.masks.unbind()
        return [Layer(self.kind, mask, [w[k] for w in weights], [b[k] for b in biases]) for k, mask in enumerate(masks)]
