"""Draws of a guide from fixed noise, twice differentiable in the guide's parameters.

Normals are located and scaled. Gamma, Beta and Dirichlet draws are quantiles at fixed levels, as Taylor polynomials of the second
order in the concentration, since torch has no second derivative of its own draws. Other distributions draw by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.special
import torch
from pyro.distributions import Delta
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import (
    Beta,
    Dirichlet,
    Gamma,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

from vipack.errors import GuideError
from vipack.program.sites.sites import sample_nodes

__all__ = ["FromNoise", "base_noise", "check_drawable", "drawn_sites"]

Noise = dict[str, Tensor]  # site, or site and kind of number -> (S, *shape)

_RELATIVE_STEP = 1e-3  # in a concentration, for the derivatives of a quantile
_SERIES_BELOW = -23.0  # log of a gamma quantile, below which one term of the series is exact to 1e-10
_KINDS = ("level", "slope", "curvature", "centre")


class FromNoise(Messenger):  # type: ignore[misc]
    """Inside the block the guide's sites are made of the noise at hand, that of one draw."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._noise = noise

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if not msg["done"] and msg["value"] is None and (name in self._noise or f"{name}/level" in self._noise):
            own = {kind: self._noise[key] for kind in _KINDS if (key := f"{name}/{kind}") in self._noise}
            msg["value"] = _drawn(msg["fn"], self._noise.get(name), own)
            msg["done"] = True


def check_drawable(trace: Trace, another: Trace) -> None:
    """
    Args:
        trace, another: two runs of the guide with different draws.

    Raises:
        GuideError: a site of the guide is no differentiable function of noise that does not depend on its parameters.
    """
    for name, node in drawn_sites(trace):
        if not getattr(node["fn"], "has_rsample", False):
            raise GuideError(
                f"linear_response: guide site {name!r} draws from {type(node['fn']).__name__}, whose draws are no differentiable "
                "function of the guide's parameters; sum a discrete latent out (TraceEnum_ELBO), or draw it from a "
                "reparametrized distribution."
            )
        base, others = _base(node["fn"]), another.nodes.get(name)
        if isinstance(base, Gamma | Beta | Dirichlet) and others is not None:
            one, two = _concentration(base), _concentration(_base(others["fn"]))
            if one.shape != two.shape or not torch.equal(one, two):
                raise GuideError(
                    f"linear_response: guide site {name!r} draws from {type(base).__name__} with a concentration that depends on "
                    "other draws, of which there is no second derivative; let it depend on parameters alone."
                )


def base_noise(trace: Trace, number: int, generator: torch.Generator) -> Noise:
    """Noise of `number` draws (even) for the sites of a guide's trace, in their types and on their devices.

    Normals come in mirrored pairs with unit second moments, uncorrelated where there are half as many draws as numbers or
    more. With them the moments of a Gaussian are exact. Levels of quantiles are stratified (a Latin hypercube).
    """
    noise: Noise = {}
    normal: dict[str, tuple[Sequence[int], Tensor]] = {}
    for name, node in drawn_sites(trace):
        base = _base(node["fn"])
        if isinstance(base, Normal | MultivariateNormal):
            normal[name] = base.batch_shape + base.event_shape, base.loc
        elif isinstance(base, LowRankMultivariateNormal):
            rank = base.cov_factor.shape[-1]
            normal[name] = (*base.batch_shape, rank + base.event_shape[0]), base.loc
        elif isinstance(base, Gamma | Beta | Dirichlet):
            noise |= {f"{name}/{kind}": value for kind, value in _quantiles(base, number, generator).items()}
    numbers = sum(math.prod(shape) for shape, _ in normal.values())
    values = _mirrored(number, numbers, generator)
    for name, (shape, like) in normal.items():
        size = math.prod(shape)
        own, values = values[:, :size], values[:, size:]
        noise[name] = own.reshape(number, *shape).to(device=like.device, dtype=like.dtype)
    return noise


def _mirrored(number: int, numbers: int, generator: torch.Generator) -> Tensor:
    half = torch.randn(number // 2, numbers, generator=generator, dtype=torch.float64, device="cpu")
    if 0 < numbers <= len(half):
        basis, upper = torch.linalg.qr(half)
        half = basis * upper.diagonal().sign() * math.sqrt(len(half))
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])


def _quantiles(base: Any, number: int, generator: torch.Generator) -> Noise:
    """The logs of standard gamma quantiles, their first two derivatives in the concentration, and where these are."""
    own = _concentration(base).detach()
    centre = own.cpu().double().numpy()
    uniform = torch.rand(2, number, own.numel(), generator=generator, dtype=torch.float64, device="cpu")
    # One level in each of as many equal intervals, anywhere in it: midpoints would leave out what lies in the tails.
    probabilities = ((uniform[0].argsort(0) + uniform[1]) / number).reshape(number, *own.shape).numpy()
    low, middle, high = (
        _log_quantile(centre * (1 + step), probabilities) for step in (-_RELATIVE_STEP, 0.0, _RELATIVE_STEP)
    )
    step = _RELATIVE_STEP * centre
    kinds = {
        "level": middle,
        "slope": (high - low) / (2 * step),
        "curvature": (high - 2 * middle + low) / step**2,
        "centre": np.broadcast_to(centre, middle.shape).copy(),
    }
    return {kind: torch.from_numpy(value).to(device=own.device, dtype=own.dtype) for kind, value in kinds.items()}


def _log_quantile(concentration: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The log of the standard gamma quantile; near zero, where the quantile itself underflows, by its series."""
    series = (np.log(probabilities) + scipy.special.gammaln(concentration + 1)) / concentration
    with np.errstate(divide="ignore"):
        whole = np.log(scipy.special.gammaincinv(concentration, probabilities))
    result: np.ndarray = np.where(series < _SERIES_BELOW, series, whole)
    return result


def _drawn(fn: Any, noise: Tensor | None, kinds: Mapping[str, Tensor]) -> Tensor:
    """A value of `fn` as a function of its parameters and of the noise of one draw."""
    if isinstance(fn, Independent | MaskedDistribution):
        return _drawn(fn.base_dist, noise, kinds)
    if isinstance(fn, TransformedDistribution):
        value = _drawn(fn.base_dist, noise, kinds)
        for transform in fn.transforms:
            value = transform(value)
        return value
    if noise is not None:
        return _normal(fn, noise)
    concentration = _concentration(fn)
    away = concentration - kinds["centre"]
    logs = kinds["level"] + kinds["slope"] * away + 0.5 * kinds["curvature"] * away.square()
    if isinstance(fn, Gamma):
        tiny = torch.finfo(logs.dtype).tiny
        value = (logs.exp() / fn.rate).clamp(min=tiny)
    elif isinstance(fn, Beta):
        value = torch.sigmoid(logs[..., 0] - logs[..., 1])
        eps = torch.finfo(value.dtype).eps
        value = value.clamp(min=torch.finfo(value.dtype).tiny, max=1 - eps)
    else:
        value = torch.softmax(logs, -1).clamp(min=torch.finfo(logs.dtype).tiny)
    return value


def _normal(fn: Any, noise: Tensor) -> Tensor:
    if isinstance(fn, MultivariateNormal):
        value: Tensor = fn.loc + (fn.scale_tril @ noise[..., None])[..., 0]
    elif isinstance(fn, LowRankMultivariateNormal):
        rank = fn.cov_factor.shape[-1]
        common, own = noise[..., :rank], noise[..., rank:]
        value = fn.loc + (fn.cov_factor @ common[..., None])[..., 0] + fn.cov_diag.sqrt() * own
    else:
        value = fn.loc + fn.scale * noise
    return value


def _concentration(base: Any) -> Tensor:
    """Of standard gammas that a draw is made of; a Beta's two in the last dimension."""
    if isinstance(base, Beta):
        return torch.stack([base.concentration1, base.concentration0], -1)
    concentration: Tensor = base.concentration
    return concentration


def _base(fn: Any) -> Any:
    while isinstance(fn, Independent | MaskedDistribution | TransformedDistribution):
        fn = fn.base_dist
    return fn


def drawn_sites(trace: Trace) -> Iterator[tuple[str, Any]]:
    """The latents of a guide's trace that it draws, rather than computes, by name."""
    for name, node in sample_nodes(trace).items():
        if not node["is_observed"] and not isinstance(_base(node["fn"]), Delta):
            yield name, node
