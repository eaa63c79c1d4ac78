"""A guide in every copy that symmetries of the model make of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TransformedDistribution
from pyro.infer.autoguide import AutoContinuous
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints

from vipack.compat.autoguides import set_up
from vipack.compat.supports import support_or_reals
from vipack.errors import GuideError, ShapeError
from vipack.guides.continuous import Continuous
from vipack.guides.mixing import MixtureOf
from vipack.hints import checked_class
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.sites.signed_permutations import SignedPermutation

__all__ = ["Copies"]


@checked_class
class Copies(Continuous):
    """An even mixture ``1/G sum_g g(q)`` of the images of a guide under symmetries of its model, for posteriors that have equal modes.

    A map g exchanges, or reflects, numbers of the constrained latents, such as the components of a mixture with their weights. In
    every copy of a mode the guide is as good as in the first.

    Args:
        base: an ``AutoContinuous`` class, ``functools.partial`` of one, or a guide of this model.
        index, sign, offset: ``(G, P)``: copy g has ``offset + sign * z[index]`` where the base has the latents z, constrained,
            flattened and one after the other in the order in which the model samples them. The first copy is the base.

    Raises:
        GuideError: `base` is no guide over one unconstrained vector, or a support depends on other latents.
        ShapeError: the maps are of other latents.
    """

    def __init__(self, model: Callable[..., Any], base: Any, *, index: Tensor, sign: Tensor, offset: Tensor) -> None:
        super().__init__(model)
        self.register_buffer("index", index.detach().clone())
        self.register_buffer("sign", sign.detach().clone())
        self.register_buffer("offset", offset.detach().clone())
        copied = base if isinstance(base, AutoContinuous) else base(model)
        if not isinstance(copied, AutoContinuous):
            raise GuideError(f"guide Copies: base must be an AutoContinuous class or such a guide, found {base!r}.")
        self.base = copied

    def read_model(self, *args: Any, **kwargs: Any) -> None:
        """See whether the model has the latents that are mapped."""
        super().read_model(*args, **kwargs)
        if self.follows_supports:
            raise GuideError("guide Copies: a support depends on other latents, so that no fixed map exchanges them.")
        if self.base.prototype_trace is None:
            with flat_priors_sampled():
                set_up(self.base, *args, **kwargs)
                self.base.get_posterior(*args, **kwargs)  # some families make their parameters here
        nodes = [site for _, site in self.prototype_trace.iter_stochastic_nodes()]
        self._shapes = [site["value"].shape for site in nodes]
        self._supports = [support_or_reals(site["fn"]) for site in nodes]
        size = sum(shape.numel() for shape in self._shapes)
        if self.index.shape[1] != size:
            raise ShapeError(f"guide Copies: the maps are of {self.index.shape[1]} numbers, the latents have {size}.")

    def _check_prototype(self, other_trace: Trace) -> None:
        own, theirs = ([n for n, _ in trace.iter_stochastic_nodes()] for trace in (self.prototype_trace, other_trace))
        if own != theirs:
            raise GuideError(f"guide Copies: base is a guide of the latents {theirs}, the model's are {own}.")

    def get_posterior(self, *args: Any, **kwargs: Any) -> MixtureOf:
        """The distribution of the unconstrained vector."""
        base = self.base.get_posterior(*args, **kwargs)
        moves = [SignedPermutation(*maps) for maps in zip(self.index, self.sign, self.offset, strict=True)]
        images = [TransformedDistribution(base, [_Moved(self, move)]) for move in moves[1:]]
        return MixtureOf([base, *images], torch.zeros(len(moves), dtype=self.sign.dtype, device=self.sign.device))

    def constrained(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The latents ``(..., P)`` at ``u`` ``(..., D)``, and ``log |dz/du|`` ``(...)``."""
        batch, pieces, gain, start = u.shape[:-1], [], u.new_zeros(u.shape[:-1]), 0
        for shape, support in zip(self._shapes, self._supports, strict=True):
            transform = biject_to(support)
            inner = transform.inverse_shape(shape)
            piece = u[..., start : start + inner.numel()].reshape(batch + inner)
            start += inner.numel()
            value = transform(piece)
            gain = gain + transform.log_abs_det_jacobian(piece, value).reshape(*batch, -1).sum(-1)
            pieces.append(value.reshape(*batch, -1))
        return torch.cat(pieces, -1), gain

    def unconstrained(self, z: Tensor) -> Tensor:
        """The inverse of :meth:`constrained`."""
        batch, pieces = z.shape[:-1], []
        for piece, shape, support in zip(
            z.split([s.numel() for s in self._shapes], -1), self._shapes, self._supports, strict=True
        ):
            pieces.append(biject_to(support).inv(piece.reshape(batch + shape)).reshape(*batch, -1))
        return torch.cat(pieces, -1)


class _Moved(Transform):
    """A symmetry, as it acts on the unconstrained vector."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, guide: Copies, move: SignedPermutation) -> None:
        super().__init__()
        self._guide, self._move = guide, move

    def _call(self, x: Tensor) -> Tensor:
        return self._guide.unconstrained(self._move(self._guide.constrained(x)[0]))

    def _inverse(self, y: Tensor) -> Tensor:
        return self._guide.unconstrained(self._move.inverse()(self._guide.constrained(y)[0]))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the changes of variables alone, since the map of the constrained latents keeps volumes."""
        gain: Tensor = self._guide.constrained(x)[1] - self._guide.constrained(y)[1]
        return gain
