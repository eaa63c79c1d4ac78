"""Stand-ins, while a step is captured, for the few lines of Pyro that read a tensor back into Python.

Pyro's objectives return Python floats and look for NaN as they go, which a tracer refuses. None of the stand-ins changes
a number: the loss stays a tensor, NaN is looked for by the caller, and the one branch on data (Dice leaves out terms of
probability zero) is written as a ``where``.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro.ops import packed
from pyro.ops.einsum.adjoint import require_backward
from pyro.ops.rings import MarginalRing
from torch import Tensor

from vipack.compat.enumerated import adjoint_result, packed_dims, run_adjoint, set_packed_dims, summing_expectations_by
from vipack.compat.patching import patched
from vipack.compat.pytorch import is_fake

__all__ = ["pure_objectives"]


@contextlib.contextmanager
def pure_objectives() -> Iterator[None]:
    """Inside the block, ``pyro.infer`` objectives neither read tensors back nor branch on them."""
    with contextlib.ExitStack() as stack:
        for module in [m for n, m in list(sys.modules.items()) if n.startswith(_ROOMS) and m is not None]:
            own = {name: stand_in for name, stand_in in _FUNCTIONS.items() if name in module.__dict__}
            if own:
                stack.enter_context(patched(module, **own))
        stack.enter_context(patched(torch.Tensor, item=_item))
        stack.enter_context(summing_expectations_by(_compute_expectation))
        yield


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


_own_item: Any = torch.Tensor.item


def _item(self: Tensor) -> Any:
    """A traced tensor's item is itself, without gradient; where Python needs a number, the tracer still refuses."""
    traced = is_fake(self) and self.constant is None  # type: ignore[attr-defined]
    return self.detach().reshape(()) if traced else _own_item(self)


def _compute_expectation(costs: dict[Any, list[Any]], log_factors_of: Callable[[Any], list[Any]]) -> Any:
    """``Dice.compute_expectation`` of Pyro 1.9 with a ``where`` for its branch on ``mask.all()``."""
    with shared_intermediates() as cache:
        ring = MarginalRing(cache=cache)
        expected_cost: Any = 0.0
        for ordinal, cost_terms in costs.items():
            all_factors = log_factors_of(ordinal)
            scale = math.exp(sum(x for x in all_factors if not isinstance(x, Tensor)))
            log_factors = [x for x in all_factors if isinstance(x, Tensor)]
            queries: dict[frozenset[Any], Any] = {frozenset(packed_dims(cost)): None for cost in cost_terms}
            for log_factor in log_factors:
                key = frozenset(packed_dims(log_factor))
                if key in queries and queries[key] is None:
                    queries[key] = log_factor
            for cost in cost_terms:
                key = frozenset(packed_dims(cost))
                if queries[key] is None:
                    query = torch.zeros_like(cost)
                    set_packed_dims(query, packed_dims(cost))
                    log_factors.append(query)
                    queries[key] = query
            dims = set().union(*(packed_dims(x) for x in log_factors)) - ordinal
            for query in queries.values():
                require_backward(query)
            root = ring.sumproduct(log_factors, dims)
            run_adjoint(root)
            probs = {key: adjoint_result(query).exp() for key, query in queries.items()}
            for cost in cost_terms:
                key = frozenset(packed_dims(cost))
                prob = probs[key]
                set_packed_dims(prob, packed_dims(queries[key]))
                cost, prob = packed.broadcast_all(cost, prob)
                expected_cost = expected_cost + scale * (prob * torch.where(prob > 0, cost, 0.0)).sum()
    return expected_cost
