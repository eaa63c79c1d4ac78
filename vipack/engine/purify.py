"""Stand-ins, while a step is captured, for the few lines of Pyro that read a tensor back into Python.

Pyro's objectives return Python floats and look for NaN as they go, which a tracer refuses. None of the stand-ins changes
a number: the loss stays a tensor, NaN is looked for by the caller, and the one branch on data (Dice leaves out terms of
probability zero) is written as a ``where``.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro.infer import util
from pyro.ops import packed
from pyro.ops.einsum.adjoint import require_backward
from pyro.ops.rings import MarginalRing
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

__all__ = ["pure_objectives"]


@contextlib.contextmanager
def pure_objectives() -> Iterator[None]:
    """Inside the block, ``pyro.infer`` objectives neither read tensors back nor branch on them."""
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for module in [m for n, m in list(sys.modules.items()) if n.startswith(_ROOMS) and m is not None]:
            names = module.__dict__
            for name, stand_in in _FUNCTIONS.items():
                if name in names:
                    replaced.append((names, name, names[name]))
                    names[name] = stand_in
        expectation = util.Dice.compute_expectation
        util.Dice.compute_expectation = _compute_expectation
        tensor: Any = torch.Tensor
        tensor.item = _item
        yield
    finally:
        del tensor.item  # what shows again is the inherited method
        util.Dice.compute_expectation = expectation
        for names, name, original in replaced:
            names[name] = original


def _torch_item(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _unwarned(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value


def _tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """As torch's, by row and column numbers: a mask makes a size that depends on data."""
    rows, columns = torch.tril_indices(mat.shape[-1], mat.shape[-1], diag, device=mat.device)
    return mat[..., rows, columns]


def _vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """Likewise; below the main diagonal, ``n + diag`` rows are a triangle of ``vec.shape[-1]`` numbers."""
    n = round((math.sqrt(1 + 8 * vec.shape[-1]) - 1) / 2) - diag
    rows, columns = torch.tril_indices(n, n, diag, device=vec.device)
    mat = vec.new_zeros((*vec.shape[:-1], n, n))
    mat[..., rows, columns] = vec
    return mat


_ROOMS = ("pyro.", "torch.distributions.")
_FUNCTIONS = {
    "torch_item": _torch_item,
    "warn_if_nan": _unwarned,
    "warn_if_inf": _unwarned,
    "tril_matrix_to_vec": _tril_matrix_to_vec,
    "vec_to_tril_matrix": _vec_to_tril_matrix,
}


def _item(self: Tensor) -> Any:
    """A traced tensor's item is itself, without gradient; where Python needs a number, the tracer still refuses."""
    traced = isinstance(self, FakeTensor) and self.constant is None
    return self.detach().reshape(()) if traced else torch._C.TensorBase.item(self)


def _compute_expectation(self: util.Dice, costs: dict[Any, list[Any]]) -> Any:
    """``Dice.compute_expectation`` of Pyro 1.9 with a ``where`` for its branch on ``mask.all()``."""
    with shared_intermediates() as cache:
        ring = MarginalRing(cache=cache)
        expected_cost: Any = 0.0
        for ordinal, cost_terms in costs.items():
            all_factors = self._get_log_factors(ordinal)
            scale = math.exp(sum(x for x in all_factors if not isinstance(x, Tensor)))
            log_factors = [x for x in all_factors if isinstance(x, Tensor)]
            queries: dict[frozenset[Any], Any] = {frozenset(cost._pyro_dims): None for cost in cost_terms}
            for log_factor in log_factors:
                key = frozenset(log_factor._pyro_dims)  # type: ignore[attr-defined]
                if key in queries and queries[key] is None:
                    queries[key] = log_factor
            for cost in cost_terms:
                key = frozenset(cost._pyro_dims)
                if queries[key] is None:
                    query = torch.zeros_like(cost)
                    query._pyro_dims = cost._pyro_dims  # type: ignore[attr-defined]
                    log_factors.append(query)
                    queries[key] = query
            dims = set().union(*(x._pyro_dims for x in log_factors)) - ordinal  # type: ignore[attr-defined]
            for query in queries.values():
                require_backward(query)
            root = ring.sumproduct(log_factors, dims)
            root._pyro_backward()
            probs = {key: query._pyro_backward_result.exp() for key, query in queries.items()}
            for cost in cost_terms:
                key = frozenset(cost._pyro_dims)
                prob = probs[key]
                prob._pyro_dims = queries[key]._pyro_dims
                cost, prob = packed.broadcast_all(cost, prob)
                expected_cost = expected_cost + scale * (prob * torch.where(prob > 0, cost, 0.0)).sum()
    return expected_cost
