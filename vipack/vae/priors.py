"""Priors p(z): the standard normal, and others that are learned with the rest or fitted to encodings afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from vipack.errors import ShapeError, UsageError
from vipack.hints import checked_class
from vipack.vae.flows import CouplingLayers, flow_options
from vipack.vae.posteriors import FLOOR

__all__ = ["Flat", "FlowPrior", "MixturePrior", "Prior", "StandardNormal", "VampPrior"]

Mixer = Callable[[Tensor], Any]  # the posterior, from an encoder's inputs


class Prior(nn.Module, ABC):
    """p(z); it gets its weights when a builder learns the number of latents.

    After training it can be replaced by one that is fitted to the encodings of the data, whose mean over the data is the
    prior that the ELBO would choose: ``vi.fit(prior.model, prior.guide, data=encodings)``, with many draws for each observation.

    Attributes:
        reads_inputs: whether it is made of the encoder's posteriors.
        proper: whether it is a distribution.
    """

    reads_inputs = False
    proper = True
    _sizes: tuple[int, tuple[int, ...]] | None = None

    @final
    def build(self, num_latents: int, input_shape: tuple[int, ...] = ()) -> None:
        """Make the weights; does nothing for the sizes that it has already.

        Args:
            input_shape: of what the encoder reads, for priors that use it.

        Raises:
            UsageError: it was built for other sizes, in another model.
        """
        sizes = (num_latents, input_shape if self.reads_inputs else ())
        if self._sizes == sizes:
            return
        if self._sizes is not None:
            raise UsageError(
                f"prior: this {type(self).__name__} already belongs to a model with {_described(self._sizes)}, found "
                f"{_described(sizes)}; make a new one for each model."
            )
        self._build(*sizes)
        self._sizes = sizes

    @abstractmethod
    def forward(self, encoder: Mixer | None = None) -> Any:
        """The distribution of z ``(num_latents,)``, one event dimension.

        Args:
            encoder: gives the posterior of what it reads, for priors that use it.
        """

    @abstractmethod
    def _build(self, num_latents: int, input_shape: tuple[int, ...]) -> None: ...

    @final
    def register(self) -> None:
        """Declare the weights to Pyro, where there are any."""
        if any(True for _ in self.parameters()):
            pyro.module("prior", self)

    @final
    def model(self, z: Tensor) -> None:
        """A Pyro model of encodings ``(N, num_latents)``, to fit the prior to them.

        Raises:
            ShapeError: `z` is no matrix, or has another number of columns than the prior has latents.
        """
        if z.dim() != 2 or (self._sizes is not None and z.shape[1] != self._sizes[0]):
            expected = "num_latents" if self._sizes is None else self._sizes[0]
            raise ShapeError(f"site 'z': expected encodings of shape (N, {expected}), found {tuple(z.shape)}.")
        self.build(z.shape[1])
        self.register()
        with pyro.plate("data", len(z)):
            pyro.sample("z", self(), obs=z)

    @final
    def guide(self, z: Tensor) -> None:
        """The guide of `model`, which has no latents."""


@final
class StandardNormal(Prior):
    """Independent normals of mean zero and scale one."""

    def forward(self, encoder: Mixer | None = None) -> Any:
        """See :class:`Prior`."""
        return dist.Normal(self.zero, 1.0).expand([self._num_latents]).to_event(1)

    zero: Tensor

    def _build(self, num_latents: int, input_shape: tuple[int, ...]) -> None:
        self._num_latents = num_latents
        self.register_buffer("zero", torch.zeros(()))


@final
class Flat(Prior):
    """No preference for any z, and nothing to draw from: for :class:`~vipack.vae.posteriors.Point`.

    To generate, fit another prior to the encodings and put it in its stead.
    """

    proper = False

    def forward(self, encoder: Mixer | None = None) -> Any:
        """See :class:`Prior`."""
        return dist.ImproperUniform(constraints.real_vector, torch.Size(), torch.Size([self._num_latents]))

    def _build(self, num_latents: int, input_shape: tuple[int, ...]) -> None:
        self._num_latents = num_latents


@checked_class
@final
class MixturePrior(Prior):
    """A mixture of normals with independent elements; weights, locations and scales are learned."""

    def __init__(self, num_components: int = 20) -> None:
        super().__init__()
        self.num_components = _components("MixturePrior", num_components)

    def forward(self, encoder: Mixer | None = None) -> Any:
        """See :class:`Prior`."""
        normals = dist.Normal(self.loc, softplus(self.raw_scale) + FLOOR).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), normals)

    def _build(self, num_latents: int, input_shape: tuple[int, ...]) -> None:
        self.logits = nn.Parameter(torch.zeros(self.num_components))
        self.loc = nn.Parameter(torch.randn(self.num_components, num_latents))
        self.raw_scale = nn.Parameter(torch.full((self.num_components, num_latents), 0.5413))


@checked_class
@final
class VampPrior(Prior):
    """The mean of the posteriors of learned pseudo inputs, which stand where the encoder's inputs do.

    ``vae.initialize(x)`` starts them at observations. Source: Tomczak and Welling (2018), arXiv:1705.07120.
    """

    reads_inputs = True

    def __init__(self, num_components: int = 100) -> None:
        super().__init__()
        self.num_components = _components("VampPrior", num_components)

    def forward(self, encoder: Mixer | None = None) -> Any:
        """See :class:`Prior`."""
        if encoder is None:
            raise UsageError(
                "VampPrior: is made of an encoder's posteriors, so it is trained with its VAE; to fit a prior to encodings "
                "take MixturePrior or FlowPrior."
            )
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), encoder(self.pseudo_inputs))

    logits: Tensor

    def _build(self, num_latents: int, input_shape: tuple[int, ...]) -> None:
        if not input_shape:
            raise UsageError("VampPrior: cannot be fitted to encodings alone; take MixturePrior or FlowPrior.")
        self.register_buffer("logits", torch.zeros(self.num_components))
        self.pseudo_inputs = nn.Parameter(0.5 + 0.1 * torch.randn(self.num_components, *input_shape))

    def initialize(self, inputs: Tensor) -> None:
        """Start at random rows of the encoder's inputs ``(N, *input_shape)``."""
        rows = torch.randint(len(inputs), (self.num_components,))
        with torch.no_grad():
            self.pseudo_inputs.copy_(inputs[rows])


@checked_class
@final
class FlowPrior(Prior):
    """A standard normal moved by affine coupling layers; the standard normal at first.

    Source: Dinh et al. (2017), arXiv:1605.08803; as a prior, Chen et al. (2017), arXiv:1611.02731.
    """

    def __init__(self, num_layers: int = 6, hidden: Sequence[int] = (64,)) -> None:
        super().__init__()
        self._options = flow_options("FlowPrior", num_layers, hidden)

    def forward(self, encoder: Mixer | None = None) -> Any:
        """See :class:`Prior`."""
        base = dist.Normal(self.zero, 1.0).expand([self._num_latents]).to_event(1)
        return dist.TransformedDistribution(base, [self.layers()])

    zero: Tensor

    def _build(self, num_latents: int, input_shape: tuple[int, ...]) -> None:
        self._num_latents = num_latents
        self.register_buffer("zero", torch.zeros(()))
        self.layers = CouplingLayers(num_latents, *self._options)


def _components(name: str, count: int) -> int:
    if count < 1:
        raise UsageError(f"{name}: num_components must be at least 1, found {count}.")
    return count


def _described(sizes: tuple[int, tuple[int, ...]]) -> str:
    num_latents, inputs = sizes
    return f"{num_latents} latents" + (f" and encoder inputs {inputs}" if inputs else "")
