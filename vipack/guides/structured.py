"""Latents of plates given the global ones: location and log scale affine in the globals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import init_to_median
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import Transform

from vipack.guides.continuous import Continuous
from vipack.hints import checked_class

__all__ = ["Structured"]


@checked_class
class Structured(Continuous):
    """A guide for hierarchical models: a full-rank Gaussian of the globals, and each row of a plate given them.

    Globals are the latents outside plates, ``g = loc + L eps_g``. The latents of each row of a plate (or of several
    crossed ones) are ``loc + A eps_g + exp(B eps_g) * (L eps)`` on the unconstrained space, so that both where they lie
    and how wide they are may follow the globals: what the funnel of a centred hierarchy asks for. Rows are independent
    given the globals, which costs ``N d (2 G + d)`` numbers for N rows of d latents and G globals. Plates are found in
    the model by themselves.

    Args:
        init_scale: initial standard deviation of every element on the unconstrained space.
    """

    def __init__(
        self, model: Callable[..., Any], *, init_loc_fn: Callable[..., Any] = init_to_median, init_scale: float = 0.1
    ) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn)
        self._init_scale = init_scale

    def read_model(self, *args: Any, **kwargs: Any) -> None:
        """See which latents stand in which plates."""
        super().read_model(*args, **kwargs)
        common, rows = self._layout()
        start = self.start()
        self._shapes = [tuple(index.shape) for index in rows]
        self._num_globals = len(common)
        order = torch.cat([common, *(index.reshape(-1) for index in rows)])
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())
        self.loc = nn.Parameter(start[order])
        self.scale = PyroParam(torch.full_like(start, self._init_scale), constraints.softplus_positive)
        if len(common) > 1:
            self.tril = nn.Parameter(start.new_zeros(len(common), len(common)))
        for index, (number, size) in enumerate(self._shapes):
            if size > 1:
                setattr(self, f"tril_{index}", nn.Parameter(start.new_zeros(number, size, size)))
            if len(common):
                setattr(self, f"shift_{index}", nn.Parameter(start.new_zeros(number, size, len(common))))
                setattr(self, f"widen_{index}", nn.Parameter(start.new_zeros(number, size, len(common))))

    def _layout(self) -> tuple[Tensor, list[Tensor]]:
        """Indices in the unconstrained vector: of the globals ``(G,)``, and of each set of plates ``(rows, d)``."""
        common, grouped, offset = [], dict[frozenset[str], list[Tensor]](), 0
        for name, _ in self.prototype_trace.iter_stochastic_nodes():
            size = math.prod(self.unconstrained_shape(name))
            indices = torch.arange(offset, offset + size)
            offset += size
            frames = [frame for frame in self.frames_of(name) if frame.vectorized]
            number = math.prod(frame.size for frame in frames)
            if frames and size % number == 0:
                grouped.setdefault(frozenset(f.name for f in frames), []).append(indices.reshape(number, -1))
            else:
                common.append(indices)
        return torch.cat(common) if common else torch.arange(0), [torch.cat(g, -1) for g in grouped.values()]

    def get_base_dist(self) -> Any:
        """The distribution of the noise."""
        zeros = torch.zeros_like(self.loc)
        return dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)

    def get_transform(self, *args: Any, **kwargs: Any) -> Any:
        """The map from the noise to the unconstrained vector."""
        locs, scales = (self._split(value) for value in (self.loc, self.scale))
        common = _Rows(locs[0], scales[0], getattr(self, "tril", None), None, None)
        rows = [
            _Rows(loc, scale, *(getattr(self, f"{name}_{index}", None) for name in ("tril", "shift", "widen")))
            for index, (loc, scale) in enumerate(zip(locs[1:], scales[1:], strict=True))
        ]
        return _Given(common, rows, self.order, self.back)

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The distribution of the unconstrained vector."""
        return dist.TransformedDistribution(self.get_base_dist(), [self.get_transform()])

    def _split(self, value: Tensor) -> list[Tensor]:
        pieces = value.split([self._num_globals, *(math.prod(shape) for shape in self._shapes)])
        return [pieces[0], *(piece.reshape(shape) for piece, shape in zip(pieces[1:], self._shapes, strict=True))]


@dataclass(frozen=True)
class _Rows:
    """``loc + shift eps_g + exp(widen eps_g) * scale * ((I + tril) eps)`` for rows of d elements.

    Attributes:
        loc, scale: ``(*rows, d)``.
        tril: ``(*rows, d, d)``, of which the part below the diagonal counts.
        shift, widen: ``(*rows, d, G)``.
    """

    loc: Tensor
    scale: Tensor
    tril: Tensor | None
    shift: Tensor | None
    widen: Tensor | None

    def out(self, eps: Tensor, common: Tensor) -> tuple[Tensor, Tensor]:
        """Values of noise `eps` ``(*draws, *rows, d)``, and the log scale of each."""
        if self.tril is not None:
            eps = eps + _times(self.tril.tril(-1), eps)
        loc, log_scale = self._moved(common)
        return loc + log_scale.exp() * eps, log_scale

    def back(self, value: Tensor, common: Tensor) -> tuple[Tensor, Tensor]:
        """The noise of values, and the log scale of each."""
        loc, log_scale = self._moved(common)
        eps = (value - loc) * (-log_scale).exp()
        if self.tril is not None:
            lower = self.tril.tril(-1) + torch.eye(eps.shape[-1], dtype=eps.dtype, device=eps.device)
            eps = torch.linalg.solve_triangular(lower, eps[..., None], upper=False, unitriangular=True).squeeze(-1)
        return eps, log_scale

    def _moved(self, common: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.loc, self.scale.log()
        if self.shift is None or self.widen is None:
            return loc, log_scale
        given = common[..., None, :]
        return loc + _times(self.shift, given), log_scale + _times(self.widen, given)


class _Given(Transform):
    """Globals first, then the rows of every plate given them."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, common: _Rows, rows: Sequence[_Rows], order: Tensor, back: Tensor) -> None:
        super().__init__()
        self._common, self._rows, self._order, self._back = common, rows, order, back

    def _call(self, x: Tensor) -> Tensor:
        eps = self._split(x)
        given = eps[0]
        values = [self._common.out(given, given)[0]]
        values += [row.out(piece, given)[0].flatten(-2) for row, piece in zip(self._rows, eps[1:], strict=True)]
        return torch.cat(values, -1)[..., self._back]

    def _inverse(self, y: Tensor) -> Tensor:
        values = self._split(y[..., self._order])
        given = self._common.back(values[0], values[0])[0]
        eps = [row.back(piece, given)[0].flatten(-2) for row, piece in zip(self._rows, values[1:], strict=True)]
        return torch.cat([given, *eps], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |dy/dx| ``(...)``."""
        given = self._split(x)[0]
        total = self._common.scale.log().sum().expand(x.shape[:-1])
        for row in self._rows:
            log_scale = row._moved(given)[1]
            total = total + log_scale.sum((-2, -1))
        return total

    def _split(self, x: Tensor) -> list[Tensor]:
        sizes = [self._common.loc.numel(), *(row.loc.numel() for row in self._rows)]
        first, *others = x.split(sizes, -1)
        shapes = [row.loc.shape for row in self._rows]
        return [first, *(piece.unflatten(-1, shape) for piece, shape in zip(others, shapes, strict=True))]


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """``(*rows, d, k)`` times ``(*draws, *rows, k)``."""
    return (matrix * vector[..., None, :]).sum(-1)
