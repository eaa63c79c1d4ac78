"""A network with its last layer: features to a posterior of latents, and latents to the distribution of data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vipack.errors import ShapeError, UsageError
from vipack.program.running.runs import mixes_types
from vipack.vae.likelihoods import Likelihood
from vipack.vae.posteriors import Posterior

__all__ = ["Decoder", "Encoder", "joined", "output_shape"]

_TRIED = 2  # observations of a trial run
_HEAD_GAIN = 0.5  # little enough that a first decoder gives about what `initialize` sets: the data's mean and spread


class Encoder(nn.Module):
    """q(z | x): a network, and the posterior that its features become.

    Args:
        input_shape: of what the network reads of one observation, a condition included.
        num_given: numbers that join the features before the posterior is made of them.
    """

    def __init__(
        self,
        network: nn.Module,
        posterior: Posterior,
        input_shape: tuple[int, ...],
        num_latents: int,
        num_given: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.posterior = posterior
        self.input_shape = input_shape
        posterior.build(math.prod(output_shape("encoder", network, input_shape)) + num_given, num_latents)

    def forward(self, inputs: Tensor, given: Tensor | None = None) -> Any:
        """The distribution of z, given inputs ``(N, *input_shape)`` and, perhaps, numbers ``(..., N or 1, num_given)``.

        Raises:
            ShapeError: the network cannot be run on them, as BatchNorm on a batch of one.
        """
        with _run("encoder", self.network, inputs):
            features = self.network(inputs)
        return self.posterior(joined(features.flatten(1), given))


class Decoder(nn.Module):
    """p(x | z): a network, the last layer that makes the likelihood's numbers of its features, and the likelihood.

    A network that gives a vector gets a linear layer. One that gives ``(F, H, W)`` for images ``(C, H, W)`` gets a
    convolution over single pixels. Each has a bias for each number, which ``initialize`` sets by the data.

    Args:
        head: False where the network puts out the likelihood's numbers itself, ``prod(parameter_shape)`` of them.

    Raises:
        ShapeError: it does not.
    """

    def __init__(self, network: nn.Module, likelihood: Likelihood, num_inputs: int, head: bool = True) -> None:
        super().__init__()
        self.network = network
        self.likelihood = likelihood
        size = output_shape("decoder", network, (num_inputs,))
        wanted = likelihood.parameter_shape
        self.head: nn.Module | None = None
        if head:
            pixelwise = len(size) == 3 and len(wanted) == 4 and size[1:] == wanted[2:]
            numbers = math.prod(wanted)
            self.head = (
                nn.Conv2d(size[0], wanted[0] * wanted[1], 1, bias=False)
                if pixelwise
                else nn.Linear(math.prod(size), numbers, bias=False)
            )
            nn.init.xavier_uniform_(self.head.weight, gain=_HEAD_GAIN)
            self.bias = nn.Parameter(torch.zeros(wanted))
        elif math.prod(size) != math.prod(wanted):
            raise ShapeError(
                f"site 'x': the decoder puts out {size} for an observation, and {type(likelihood).__name__} of "
                f"{likelihood.shape} needs {wanted}, {math.prod(wanted)} numbers; widen its last layer, or leave head=False "
                "out, so that a last layer is made."
            )

    def forward(self, inputs: Tensor, x: Tensor | None = None) -> Any:
        """The distribution of x, given latents and condition ``(..., num_inputs)``; x is what the likelihood may read.

        Raises:
            ShapeError: the network cannot be run on them, as BatchNorm on a batch of one.
        """
        leading = inputs.shape[:-1]
        if inputs.dim() > 2:  # one dimension more for particles or draws
            inputs = inputs.reshape(-1, inputs.shape[-1])
        with _run("decoder", self.network, inputs):
            outputs = self.network(inputs)
        if self.head is not None:
            outputs = self.head(outputs if isinstance(self.head, nn.Conv2d) else outputs.flatten(1))
        parameters = outputs.reshape(*leading, *self.likelihood.parameter_shape)
        if self.head is not None:
            parameters = parameters + self.bias
        return self.likelihood(parameters, x)


def joined(inputs: Tensor, condition: Tensor | None) -> Tensor:
    """`inputs` ``(..., D)`` with a condition ``(..., K)`` beside them, ``(N, C, H, W)`` with it as K more channels."""
    if condition is None:
        return inputs
    if inputs.dim() == 4 and len(inputs) == len(condition):
        maps = condition[:, :, None, None].expand(-1, -1, *inputs.shape[2:])
        return torch.cat([inputs, maps], 1)
    leading = torch.broadcast_shapes(inputs.shape[:-1], condition.shape[:-1])
    return torch.cat([inputs.expand(*leading, -1), condition.expand(*leading, -1)], -1)


def output_shape(name: str, network: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what `network` makes of one input, found by running it.

    Raises:
        UsageError: it is no module.
        ShapeError: it cannot be run on inputs of that shape, or gives no tensor with one row for each.
    """
    if not isinstance(network, nn.Module):
        raise UsageError(f"{name}: expected a torch.nn.Module, found {type(network).__name__} {network!r}.")
    first = next(network.parameters(), torch.empty(()))
    inputs = first.new_zeros((_TRIED, *input_shape))
    training = [module for module in network.modules() if module.training]
    devices = [first.device] if first.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices), _run(name, network, inputs):
        network.eval()
        try:
            outputs = network(inputs)
        finally:
            for module in training:
                module.training = True
    if not isinstance(outputs, Tensor) or outputs.dim() < 2 or len(outputs) != _TRIED:
        kind = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ShapeError(
            f"{name}: expected features of shape ({_TRIED}, ...) for inputs {tuple(inputs.shape)}, found {kind}; the last "
            "layers, for locations, scales and logits, are made by the builder."
        )
    return tuple(outputs.shape[1:])


@contextmanager
def _run(name: str, network: nn.Module, inputs: Tensor) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        # Those of other classes are the engine's, which asks why a run ended; types that differ are explained elsewhere.
        if type(error) not in (RuntimeError, ValueError, IndexError) or mixes_types(error):
            raise
        site = "z" if name == "encoder" else "x"
        cure = "its first layer must take what it is given: for a conditional model that is the condition too"
        if "Expected more than 1 value per channel" in str(error):
            cure = "BatchNorm needs two observations in training: take larger batches, or LayerNorm"
        raise ShapeError(
            f"site {site!r}: the {name} {type(network).__name__} cannot be run on inputs of shape {tuple(inputs.shape)}: "
            f"{' '.join(str(error).split())[:200]}; {cure}."
        ) from error
