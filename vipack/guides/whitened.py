"""Any guide over R^D in coordinates that a Gaussian whitens."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import (
    AutoContinuous,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormalizingFlow,
    init_to_median,
    init_to_value,
)
from torch import Tensor

from vipack.compat.autoguides import set_up
from vipack.errors import GuideError, ShapeError, UsageError
from vipack.guides.continuous import Continuous
from vipack.guides.whitening import DenseAffine, LowRankAffine, low_rank_root
from vipack.hints import checked_class

__all__ = ["Whitened"]

_SMALL = 0.01  # of a factor that must not be zero, where its gradient vanishes


@checked_class
class Whitened(Continuous):
    """A guide ``u = loc + L eps`` on the unconstrained space, where another family lives on ``eps`` in R^D.

    A posterior of badly scaled or correlated latents is near to standard normal in coordinates whitened by a first fit,
    which is what a family and its optimizer find easy. The family starts at a standard normal, so the guide starts at
    ``N(loc, L L^T)``; exactly so for AutoDiagonalNormal, AutoMultivariateNormal and :class:`Flow`, to 1e-4 of the
    covariance for AutoLowRankMultivariateNormal.

    Args:
        base: an ``AutoContinuous`` class, or ``functools.partial`` of one: the family on ``eps``.
        loc: ``(D,)``, in the order in which the model's latents are sampled, unconstrained and flattened.
        scale_tril: L as a lower triangular ``(D, D)``; or
        scale, factor: ``(D,)`` and ``(D, R)`` with ``L L^T = diag(scale^2) + factor factor^T``, for large D; a diagonal
            L where `factor` is left out.

    Raises:
        UsageError: neither or both forms of L are given, or one is not invertible.
        ShapeError: a shape is not D's; when the guide first sees its model, D is the model's.
        GuideError: `base` is not a family over one unconstrained vector.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        base: Callable[..., Any] = AutoMultivariateNormal,
        *,
        loc: Tensor,
        scale_tril: Tensor | None = None,
        scale: Tensor | None = None,
        factor: Tensor | None = None,
        init_loc_fn: Callable[..., Any] = init_to_median,
    ) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn)
        _check_base(base)
        self._make_base = base
        _check_whitening(loc, scale_tril, scale, factor)
        self.register_buffer("origin", loc.detach().clone())
        if scale_tril is not None:
            eye = torch.eye(len(loc), dtype=loc.dtype, device=loc.device)
            self.register_buffer("scale_tril", scale_tril.detach().clone())
            self.register_buffer("inverse", torch.linalg.solve_triangular(self.scale_tril, eye, upper=False))
        else:
            assert scale is not None
            factor = scale.new_zeros(len(loc), 0) if factor is None else factor
            basis, gain = low_rank_root(scale.detach(), factor.detach())
            self.register_buffer("scale", scale.detach().clone())
            self.register_buffer("basis", basis)
            self.register_buffer("gain", gain)
        self._dense = scale_tril is not None

    def read_model(self, *args: Any, **kwargs: Any) -> None:
        """See whether the model has the latents that were whitened."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.origin.dtype)  # in which flat priors start
        try:
            super().read_model(*args, **kwargs)
        finally:
            torch.set_default_dtype(before)
        if self.latent_dim != len(self.origin):
            raise ShapeError(
                f"guide Whitened: loc has {len(self.origin)} elements, but the model's latents have {self.latent_dim} "
                "unconstrained dimensions; give loc and L in the order in which the latents are sampled."
            )
        self.base = _standard(self._make_base, self.origin)

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The distribution of ``u``."""
        return dist.TransformedDistribution(self.base.get_posterior(), [self._whitening()])

    def _whitening(self) -> DenseAffine | LowRankAffine:
        if self._dense:
            return DenseAffine(self.origin, self.scale_tril, self.inverse)
        return LowRankAffine(self.origin, self.scale, self.basis, self.gain)


def _standard(make: Callable[..., Any], like: Tensor) -> AutoContinuous:
    """The family on ``eps``, at a standard normal as nearly as it can be."""
    center = torch.zeros_like(like)

    def whitened() -> None:
        pyro.sample("eps", dist.Normal(center, torch.ones_like(center)).to_event(1))

    options: dict[str, Any] = {"init_loc_fn": init_to_value(values={"eps": center}), "init_scale": 1.0}
    builder = make.func if isinstance(make, functools.partial) else make
    low_rank = _is(builder, AutoLowRankMultivariateNormal)
    if low_rank:
        options["init_scale"] = 2**0.5  # Pyro divides it between the two terms of the covariance
    # A flow of Pyro's takes init_loc_fn, but warns that it is not used.
    accepted = {*inspect.signature(make).parameters} - ({"init_loc_fn"} if _is(builder, AutoNormalizingFlow) else set())
    base: AutoContinuous = make(whitened, **{name: value for name, value in options.items() if name in accepted})
    set_up(base)
    base.get_posterior()  # some families make their parameters here
    if low_rank:
        base.cov_factor.data.mul_(_SMALL)
    return base


def _check_base(base: Any) -> None:
    builder = base.func if isinstance(base, functools.partial) else base
    if not _is(builder, AutoContinuous):
        raise GuideError(
            f"guide Whitened: base must be an AutoContinuous class such as AutoMultivariateNormal or Flow, or "
            f"functools.partial of one, found {base!r}."
        )


def _is(builder: Any, family: type) -> bool:
    return isinstance(builder, type) and issubclass(builder, family)


def _check_whitening(loc: Tensor, scale_tril: Tensor | None, scale: Tensor | None, factor: Tensor | None) -> None:
    if (scale_tril is None) == (scale is None) or (factor is not None and scale is None):
        raise UsageError("guide Whitened: give L either as scale_tril= or as scale= with an optional factor=.")
    if loc.dim() != 1:
        raise ShapeError(f"guide Whitened: loc has shape {tuple(loc.shape)}, expected (D,).")
    size = len(loc)
    for name, value, shape in (("scale_tril", scale_tril, (size, size)), ("scale", scale, (size,))):
        if value is not None and tuple(value.shape) != shape:
            raise ShapeError(f"guide Whitened: {name} has shape {tuple(value.shape)}, expected {shape} as loc has.")
    if factor is not None and (factor.dim() != 2 or len(factor) != size):
        raise ShapeError(f"guide Whitened: factor has shape {tuple(factor.shape)}, expected ({size}, R) as loc has.")
    diagonal = scale if scale_tril is None else scale_tril.diagonal()
    assert diagonal is not None
    if not bool((torch.isfinite(diagonal) & (diagonal > 0)).all()):
        which = "scale" if scale_tril is None else "the diagonal of scale_tril"
        raise UsageError(f"guide Whitened: {which} must be positive and finite, found {diagonal.min().item()}.")
