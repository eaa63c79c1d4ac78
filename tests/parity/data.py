"""Small data sets, the same in every test."""

from __future__ import annotations

import torch

_RANDOM = torch.Generator().manual_seed(7)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=_RANDOM)


def _labels(p: torch.Tensor) -> torch.Tensor:
    return torch.bernoulli(p, generator=_RANDOM)


SCHOOL_EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SCHOOL_ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SCHOOLS = (SCHOOL_EFFECTS, SCHOOL_ERRORS)

FEATURES = _normal(30, 3)
TARGET = FEATURES @ torch.tensor([1.0, -2.0, 0.5]) + 0.3 * _normal(30)
CLICKS = _labels(torch.sigmoid(TARGET))
GROUPS = torch.arange(30) % 5
COUNTS = torch.poisson((0.5 * TARGET).exp(), generator=_RANDOM)
SEEN = torch.arange(30) % 4 != 0

CLUSTERED = torch.cat([_normal(12) - 3.0, _normal(12) + 3.0])
SERIES = _normal(12).cumsum(0)
LINE = torch.linspace(-1.0, 1.0, 16)
CURVE = torch.sin(3.0 * LINE) + 0.1 * _normal(16)
PICTURES = _labels(torch.sigmoid(_normal(20, 1) * _normal(12)))
WORDS = torch.poisson(torch.full((10, 15), 1.5), generator=_RANDOM)
TABLE = _normal(24, 3)
SHARES = torch.tensor([0.2, 0.3, 0.5]).expand(10, 3) + 0.1 * torch.rand(10, 3, generator=_RANDOM)
SHARES = SHARES / SHARES.sum(-1, keepdim=True)
