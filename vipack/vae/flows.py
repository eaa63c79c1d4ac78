"""Invertible maps of latents as modules: coupling and inverse autoregressive layers, which may depend on features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from pyro.distributions import transforms
from torch import Tensor, nn

from vipack.errors import UsageError
from vipack.guides.coupling import Coupling, Layer, alternating_masks

__all__ = ["AutoregressiveLayers", "CouplingLayers", "flow_options"]


class CouplingLayers(nn.Module):
    """Affine coupling layers; the identity at first.

    Args:
        num_features: of what they depend on beside the latents; 0 for nothing.

    Source: Dinh et al. (2017), arXiv:1605.08803.
    """

    masks: Tensor

    def __init__(self, num_latents: int, num_layers: int, hidden: Sequence[int], num_features: int = 0) -> None:
        super().__init__()
        self.register_buffer("masks", alternating_masks(num_latents, num_layers, torch.empty(())))
        self.networks = nn.ModuleList(_network([num_latents, *hidden, 2 * num_latents]) for _ in range(num_layers))
        width = hidden[0] if hidden else 2 * num_latents
        self.contexts = nn.ModuleList(
            nn.Linear(num_features, width, bias=False) for _ in range(num_layers if num_features else 0)
        )

    def forward(self, features: Tensor | None = None) -> Coupling:
        """The map, given features ``(N, num_features)``."""
        layers = []
        for index, mask in enumerate(self.masks.unbind()):
            linear = [m for m in self.networks[index].modules() if isinstance(m, nn.Linear)]
            biases = [m.bias for m in linear]
            if self.contexts:
                biases[0] = biases[0] + self.contexts[index](features)
            layers.append(Layer("affine", mask, [m.weight for m in linear], biases))
        return Coupling(layers)


class AutoregressiveLayers(nn.Module):
    """Affine inverse autoregressive layers, each in the order opposite to that of the one before; the identity at first.

    A draw and its density take one pass; the density of another point as many as there are latents.

    Source: Kingma et al. (2016), arXiv:1606.04934.
    """

    def __init__(self, num_latents: int, num_layers: int, hidden: Sequence[int], num_features: int) -> None:
        super().__init__()
        self.num_latents = num_latents
        self.layers = nn.ModuleList(
            transforms.conditional_affine_autoregressive(num_latents, num_features, list(hidden))
            for _ in range(num_layers)
        )
        for layer in self.layers:
            last = [m for m in layer.modules() if isinstance(m, nn.Linear)][-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> list[Any]:
        """The maps, given features ``(N, num_features)``."""
        maps: list[Any] = []
        backwards = torch.arange(self.num_latents - 1, -1, -1, device=features.device)
        for index, layer in enumerate(self.layers):
            maps += [transforms.Permute(backwards)] if index else []
            condition: Any = layer.condition  # of Pyro's, which has no types
            maps.append(condition(features))
        return maps


def flow_options(name: str, num_layers: int, hidden: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """
    Raises:
        UsageError: there are no layers, or a width is not positive.
    """
    if num_layers < 1 or not hidden or any(width < 1 for width in hidden):
        raise UsageError(
            f"{name}: num_layers and each width in hidden must be at least 1, found num_layers={num_layers}, "
            f"hidden={tuple(hidden)}."
        )
    return num_layers, tuple(hidden)


def _network(widths: Sequence[int]) -> nn.Sequential:
    linear = [nn.Linear(width_in, width_out) for width_in, width_out in pairwise(widths)]
    for layer in linear:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(linear[-1].weight)
    return nn.Sequential(*linear)
