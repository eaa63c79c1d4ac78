"""Likelihoods of real and binary elements: pixels that are 0 or 1, grey levels in [0, 1], and real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, final, get_args

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.vae.likelihoods.likelihood import Likelihood, shape_of

__all__ = ["Bernoulli", "ContinuousBernoulli", "Gaussian"]

Scale = Literal["shared", "feature", "entry"]


@checked_class
@final
class Bernoulli(Likelihood):
    """Elements that are 0 or 1, by their logits. Grey levels are refused, since they have no probability here.

    For grey images draw 0 or 1 from them, anew for every batch if you can, or take :class:`ContinuousBernoulli`.
    """

    def __init__(self, shape: int | Sequence[int]) -> None:
        sizes = shape_of("Bernoulli", shape)
        super().__init__(sizes, (1, *sizes))

    def forward(self, parameters: Tensor, x: Tensor | None = None) -> Any:
        """See :class:`Likelihood`."""
        (logits,) = self.split(parameters)
        return dist.Bernoulli(logits=logits).to_event(len(self.shape))

    def features(self, x: Tensor) -> Tensor:
        """The data themselves."""
        return x

    def problem(self, x: Tensor) -> str:
        """See :class:`Likelihood`."""
        grey = (x > 0) & (x < 1)
        wrong = ~((x == 0) | (x == 1))
        if not bool(wrong.any()):
            return ""
        if bool((wrong & ~grey).any()):
            return _range_problem("Bernoulli", x, wrong & ~grey)
        return (
            f"Bernoulli takes values that are 0 or 1, found grey levels such as {_some(x, grey)}; draw binary pixels from them, "
            "as in torch.bernoulli(x), or take ContinuousBernoulli for the grey levels themselves."
        )

    def initialize(self, x: Tensor) -> Tensor:
        """Logits of each element's mean."""
        return _logits(x)[None]


@checked_class
@final
class ContinuousBernoulli(Likelihood):
    """Grey levels in [0, 1] with density proportional to ``p^x (1 - p)^(1 - x)``.

    Source: Loaiza-Ganem and Cunningham (2019), arXiv:1907.06845.
    """

    def __init__(self, shape: int | Sequence[int]) -> None:
        sizes = shape_of("ContinuousBernoulli", shape)
        super().__init__(sizes, (1, *sizes))

    def forward(self, parameters: Tensor, x: Tensor | None = None) -> Any:
        """See :class:`Likelihood`."""
        (logits,) = self.split(parameters)
        # torch normalises by p, which is 0 or 1 to rounding beyond such logits.
        return dist.ContinuousBernoulli(logits=logits.clamp(-15, 15)).to_event(len(self.shape))

    def features(self, x: Tensor) -> Tensor:
        """The data themselves."""
        return x

    def problem(self, x: Tensor) -> str:
        """See :class:`Likelihood`."""
        wrong = ~((x >= 0) & (x <= 1))
        return _range_problem("ContinuousBernoulli", x, wrong) if bool(wrong.any()) else ""

    def initialize(self, x: Tensor) -> Tensor:
        """Logits that give each element about its mean."""
        return 3 * _logits(x)[None]  # the mean of the density moves less with the logit than p does


@checked_class
@final
class Gaussian(Likelihood):
    """Real numbers, normal about the decoder's output with a learned scale.

    Args:
        scale: "shared", one for all; "feature", one for each element of an observation; "entry", computed by the decoder
            for each element of each observation.
        floor: the least scale, as a fraction of the data's standard deviation (of 1 before ``initialize``). A scale
            without one goes to zero where a decoder learns an element exactly, and the ELBO to infinity.

    Source: Dehaene and Brossard (2021), arXiv:2106.13739, on softplus for scales.
    """

    def __init__(self, shape: int | Sequence[int], *, scale: Scale = "feature", floor: float = 1e-3) -> None:
        sizes = shape_of("Gaussian", shape)
        if scale not in get_args(Scale):
            raise UsageError(
                f"Gaussian: scale must be one of {', '.join(map(repr, get_args(Scale)))}, found {scale!r}."
            )
        if not 0 < floor < 1:
            raise UsageError(f"Gaussian: floor must lie between 0 and 1, found {floor!r}.")
        super().__init__(sizes, (2 if scale == "entry" else 1, *sizes))
        self.scale: Scale = scale
        self.floor = floor
        spread_shape = () if scale == "shared" else sizes
        self.standardize = Standardize(sizes, spread_shape)
        if scale != "entry":
            self.raw_scale = nn.Parameter(torch.full(spread_shape, _ONE))

    def forward(self, parameters: Tensor, x: Tensor | None = None) -> Any:
        """See :class:`Likelihood`."""
        loc, *raw = self.split(parameters)
        scale = softplus(raw[0] if raw else self.raw_scale) + self.floor
        center, spread = self.standardize.center, self.standardize.spread
        return dist.Normal(center + spread * loc, spread * scale).to_event(len(self.shape))

    def features(self, x: Tensor) -> Tensor:
        """The data, standardised."""
        standardized: Tensor = self.standardize(x)
        return standardized

    def problem(self, x: Tensor) -> str:
        """See :class:`Likelihood`."""
        wrong = ~torch.isfinite(x)
        if not bool(wrong.any()):
            return ""
        return (
            f"Gaussian takes finite numbers, found {int(wrong.sum())} NaN or infinite value(s); remove or impute them, or take "
            "MixedColumns, which leaves missing entries out."
        )

    def initialize(self, x: Tensor) -> Tensor:
        """Standardise by the data; the scale starts at their standard deviation."""
        spread = deviations(x) if self.standardize.spread.dim() else deviations(x.reshape(-1, 1))[0]
        with torch.no_grad():
            self.standardize.center.copy_(x.mean(0))
            self.standardize.spread.copy_(spread)
        parameters = x.new_zeros(self.parameter_shape)
        parameters[1:] = _ONE
        return parameters


_ONE = 0.5413  # softplus of it is 1
_FAR = 10.0  # standard deviations: a pixel that is hardly ever on would drown all others


class Standardize(nn.Module):
    """Subtracts a center and divides by a spread; 0 and 1 until they are set."""

    center: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, ...], spread_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(shape))
        self.register_buffer("spread", torch.ones(spread_shape))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, *shape)``, values that lie far out cut off."""
        return ((x - self.center) / self.spread).clamp(-_FAR, _FAR)


def deviations(x: Tensor) -> Tensor:
    """The standard deviation of each element of x ``(N, ...)``; that of all for an element that is always the same.

    Each is judged by itself, since columns may be of any size.
    """
    spread, all_of_them = x.std(0, correction=0), x.std(correction=0)
    constant = spread <= 1e-6 * x.abs().amax(0)
    return torch.where(constant, torch.where(all_of_them > 0, all_of_them, torch.ones_like(all_of_them)), spread)


def _logits(x: Tensor) -> Tensor:
    """Of each element's mean, counting one half of each value more than there is."""
    return torch.logit((x.sum(0) + 0.5) / (len(x) + 1))


def _range_problem(name: str, x: Tensor, wrong: Tensor) -> str:
    if bool(torch.isnan(x).any()):
        return f"{name} found {int(torch.isnan(x).sum())} NaN value(s); remove or impute them."
    low, high = float(x.min()), float(x.max())
    cure = "rescale the data"
    if low >= 0 and 1 < high <= 255:
        cure = f"these look like levels from 0 to {255 if high > 16 else int(high)}, so divide by {255 if high > 16 else int(high)}"
        cure += ", or take DiscretizedLogisticMixture for the levels themselves"
    return f"{name} takes values in [0, 1], found {_some(x, wrong)}, in all from {low:g} to {high:g}; {cure}."


def _some(x: Tensor, chosen: Tensor) -> list[float]:
    return [round(value, 4) for value in x[chosen].flatten()[:3].tolist()]
