"""Likelihoods of counts: Poisson, negative binomial, and the latter with more zeros, for totals that are given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, final

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.vae.likelihoods.likelihood import Likelihood, shape_of

__all__ = ["NegativeBinomial", "Poisson", "ZeroInflatedNegativeBinomial"]

_LOWEST, _HIGHEST = -20.0, 20.0  # of log rates: e^20 is half a billion
_LEAST, _MOST = -7.0, 9.0  # of log concentrations: beyond, float32 cannot tell it from a Poisson distribution


class _Counts(Likelihood):
    """Counts with a log rate for each element and `num_more` numbers beside it.

    Attributes:
        typical_total: the median total of an observation in the data; the library size where no x is given.
    """

    typical_total: Tensor

    def __init__(self, name: str, shape: int | Sequence[int], *, library: bool, num_more: int = 0) -> None:
        sizes = shape_of(name, shape)
        if library and len(sizes) != 1:
            raise UsageError(
                f"{name}: library=True shares the total of an observation out among its D counts, so shape must be D; found "
                f"{sizes}."
            )
        super().__init__(sizes, (1 + num_more, *sizes))
        self.library = library
        self.register_buffer("typical_total", torch.tensor(1e4))

    def forward(self, parameters: Tensor, x: Tensor | None = None) -> Any:
        log_rate, *more = self.split(parameters)
        if self.library:
            total = self.typical_total if x is None else x.sum(-1, keepdim=True).clamp(min=1)
            log_rate = log_rate.log_softmax(-1) + total.log()
        return self._counts(log_rate.clamp(_LOWEST, _HIGHEST), more).to_event(len(self.shape))

    @abstractmethod
    def _counts(self, log_rate: Tensor, more: list[Tensor]) -> Any: ...

    @final
    def features(self, x: Tensor) -> Tensor:
        """log(1 + x)."""
        return x.log1p()

    @final
    def problem(self, x: Tensor) -> str:
        wrong = ~((x >= 0) & (x == x.round()) & (x < torch.inf))
        if not bool(wrong.any()):
            return ""
        return (
            f"{type(self).__name__} takes whole counts from 0 up, found {x[wrong].flatten()[:3].tolist()}; pass the raw counts, "
            "not normalised or logarithmised ones."
        )

    @final
    def initialize(self, x: Tensor) -> Tensor:
        """Log of the mean of each count (its share of all, with library sizes); concentrations by the method of moments."""
        mean = (x.sum(0) + 0.5) / (len(x) + 0.5)
        total = x.sum(-1, keepdim=True).clamp(min=1) if self.library else None
        expected = mean.expand(x.shape)
        if total is not None:
            mean = mean / mean.sum()
            expected = total * mean
            with torch.no_grad():
                self.typical_total.copy_(total.median())
        parameters = x.new_zeros(self.parameter_shape)
        parameters[0] = mean.log()
        parameters[1:] = self._initialize_more(x, expected)
        return parameters

    @abstractmethod
    def _initialize_more(self, x: Tensor, expected: Tensor) -> float: ...


@checked_class
@final
class Poisson(_Counts):
    """Counts by their log rates.

    Args:
        library: whether the rates of an observation are shares of its own total, as for the other counts.
    """

    def __init__(self, shape: int | Sequence[int], *, library: bool = False) -> None:
        super().__init__("Poisson", shape, library=library)

    def _counts(self, log_rate: Tensor, more: list[Tensor]) -> Any:
        return dist.Poisson(log_rate.exp())

    def _initialize_more(self, x: Tensor, expected: Tensor) -> float:
        return 0.0


@checked_class
@final
class NegativeBinomial(_Counts):
    """Counts with mean m and variance ``m + m^2 / r``; the concentration r is one parameter for each count.

    Args:
        library: whether m is the observation's own total, which is not modelled, times a softmax of the decoder's numbers;
            False takes these as log m.

    Source: Lopez et al. (2018), scVI, doi:10.1038/s41592-018-0229-2.
    """

    def __init__(self, shape: int | Sequence[int], *, library: bool = True) -> None:
        super().__init__("NegativeBinomial", shape, library=library)
        self.log_concentration = nn.Parameter(torch.zeros(self.shape))

    def _counts(self, log_rate: Tensor, more: list[Tensor]) -> Any:
        return _negative_binomial(log_rate, self.log_concentration)

    def _initialize_more(self, x: Tensor, expected: Tensor) -> float:
        _set_concentration(self.log_concentration, x, expected)
        return 0.0


@checked_class
@final
class ZeroInflatedNegativeBinomial(_Counts):
    """As :class:`NegativeBinomial`, but that each count is set to zero with a probability that the decoder computes.

    Source: Lopez et al. (2018), scVI, doi:10.1038/s41592-018-0229-2.
    """

    def __init__(self, shape: int | Sequence[int], *, library: bool = True) -> None:
        super().__init__("ZeroInflatedNegativeBinomial", shape, library=library, num_more=1)
        self.log_concentration = nn.Parameter(torch.zeros(self.shape))

    def _counts(self, log_rate: Tensor, more: list[Tensor]) -> Any:
        return dist.ZeroInflatedDistribution(_negative_binomial(log_rate, self.log_concentration), gate_logits=more[0])

    def _initialize_more(self, x: Tensor, expected: Tensor) -> float:
        _set_concentration(self.log_concentration, x, expected)
        return -2.0  # the logit of a small probability


def _negative_binomial(log_rate: Tensor, log_concentration: Tensor) -> Any:
    log_concentration = log_concentration.clamp(_LEAST, _MOST)
    return dist.NegativeBinomial(log_concentration.exp(), logits=log_rate - log_concentration)


def _set_concentration(log_concentration: nn.Parameter, x: Tensor, expected: Tensor) -> None:
    """r of ``variance = m + m^2 / r``, kept within reason."""
    excess = ((x - expected) ** 2 - expected).mean(0)
    shape = (expected**2).mean(0) / excess.clamp(min=1e-6)
    with torch.no_grad():
        log_concentration.copy_(shape.clamp(0.1, 100).log())
