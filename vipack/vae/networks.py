"""Networks that turn data into features: a multilayer perceptron, and convolutions down to a vector and up to an image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import nn

from vipack.errors import UsageError
from vipack.hints import checked_class

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "initialize_weights"]

_KERNEL = 4  # with stride 2 and padding 1 it halves a size exactly, and every output sees as many inputs


@checked_class
class MLP(nn.Sequential):
    """Linear layers, each followed by an activation; ``(N, ...)`` in, its dimensions flattened, ``(N, hidden[-1])`` out.

    The builders put the last linear layer on top.

    Args:
        inputs: how many numbers go in: pixels or columns into an encoder, latents into a decoder, and in both as many more
            as the condition has.
        activation: a module class, such as ``nn.SiLU``, ``nn.ReLU`` or ``nn.Tanh``.
    """

    def __init__(self, inputs: int, hidden: Sequence[int] = (400, 400), activation: type[nn.Module] = nn.SiLU) -> None:
        widths = [inputs, *hidden]
        if len(widths) < 2 or any(width < 1 for width in widths):
            raise UsageError(
                f"MLP: inputs and each width in hidden must be at least 1, found {inputs}, {tuple(hidden)}."
            )
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Linear(width_in, width_out), activation()]
        super().__init__(*layers)
        initialize_weights(self)


@checked_class
class ConvEncoder(nn.Sequential):
    """Strided convolutions, each halving height and width, then a linear layer: ``(N, C, H, W)`` in, ``(N, width)`` out.

    Args:
        shape: (C, H, W); any sizes, though even ones are halved without a rest. C counts the channels of a condition too.
        channels: of each convolution.
        width: of the features that come out.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: Sequence[int] = (32, 64),
        width: int = 256,
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        sizes = _sizes("ConvEncoder", shape, channels, width=width)
        layers: list[nn.Module] = []
        for channels_in, channels_out in zip([shape[0], *channels], channels, strict=False):
            layers += [nn.Conv2d(channels_in, channels_out, _KERNEL, stride=2, padding=1), activation()]
        height, breadth = sizes[-1]
        layers += [nn.Flatten(), nn.Linear(channels[-1] * height * breadth, width), activation()]
        super().__init__(*layers)
        initialize_weights(self)


@checked_class
class ConvDecoder(nn.Sequential):
    """A linear layer and transposed convolutions, each doubling height and width: ``(N, inputs)`` in, ``(N, F, H, W)`` out.

    The builders put a convolution over single pixels on top, from F features to the likelihood's numbers.

    Args:
        inputs: latents, and the width of a condition.
        shape: (C, H, W) of the images; C is not used.
        channels: before each transposed convolution, so that an encoder's read backwards mirror it.
        features: F, of each pixel.
    """

    def __init__(
        self,
        inputs: int,
        shape: tuple[int, int, int],
        channels: Sequence[int] = (64, 32),
        features: int = 16,
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        sizes = _sizes("ConvDecoder", shape, channels, inputs=inputs, features=features)[::-1]
        height, breadth = sizes[0]
        layers: list[nn.Module] = [
            nn.Linear(inputs, channels[0] * height * breadth),
            activation(),
            nn.Unflatten(1, (channels[0], height, breadth)),
        ]
        for channels_in, channels_out, size in zip(channels, [*channels[1:], features], sizes[1:], strict=True):
            rest = (size[0] % 2, size[1] % 2)
            up = nn.ConvTranspose2d(channels_in, channels_out, _KERNEL, stride=2, padding=1, output_padding=rest)
            layers += [up, activation()]
        super().__init__(*layers)
        initialize_weights(self)


def initialize_weights(network: nn.Module) -> None:
    """Random weights that keep the size of signals and gradients from layer to layer, by the activation after each.

    Source: He et al. (2015), arXiv:1502.01852; half their variance where the activation is odd, as tanh.
    """
    layers = [m for m in network.modules() if not any(m.children())]
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if not isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            continue
        # A transposed convolution gives each output the inputs under its kernel: as many as one of stride 1, over stride².
        fan = layer.weight[0].numel()
        if isinstance(layer, nn.ConvTranspose2d):
            fan = layer.weight[:, 0].numel() // math.prod(layer.stride)
        odd = isinstance(following, nn.Tanh | nn.Sigmoid) or following is None
        nn.init.normal_(layer.weight, std=math.sqrt((1 if odd else 2) / fan))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _sizes(name: str, shape: Sequence[int], channels: Sequence[int], **widths: int) -> list[tuple[int, int]]:
    """(H, W) before and after each halving; all numbers are looked at."""
    if len(shape) != 3 or not channels:
        raise UsageError(
            f"{name}: shape must be (C, H, W) and channels not empty, found {tuple(shape)} and {tuple(channels)}."
        )
    each = {"shape": shape, "channels": channels, **{option: (width,) for option, width in widths.items()}}
    for option, values in each.items():
        if any(value < 1 for value in values):
            given = values[0] if option in widths else tuple(values)
            raise UsageError(f"{name}: {option} must be at least 1, found {given}.")
    sizes = [(shape[1], shape[2])]
    for _ in channels:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    if 0 in sizes[-1]:
        raise UsageError(
            f"{name}: {len(channels)} convolutions halve {shape[1]} x {shape[2]} pixels down to none; take fewer channels."
        )
    return sizes
