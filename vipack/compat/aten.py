"""Operators of ATen with private names, which graphs are made of; without one, a step that has it runs a tier lower."""

from __future__ import annotations

import operator
from typing import Any

import torch

from vipack.compat.names import named

__all__ = [
    "LINALG_CHECK_ERRORS",
    "LOCAL_SCALAR_DENSE",
    "LOG_SOFTMAX",
    "LOG_SOFTMAX_BACKWARD",
    "READS_A_NUMBER",
    "RESHAPE_ALIAS",
    "SLOGDET_NAME",
    "SOFTMAX",
    "SOFTMAX_BACKWARD",
    "SPARSE_ADDMM",
    "TO_COPY",
    "TO_DENSE",
    "UNSAFE_INDEX",
    "UNSAFE_INDEX_PUT",
    "UNSAFE_VIEW",
]


class _Absent:
    """Stands in a table for an operator that this torch does not have; no node of a graph is one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"this torch has no aten.{self._name}")


def _operator(name: str, without: str = "the interpreter calls torch's library for what takes its place") -> Any:
    named("torch", f"aten.{name}", lambda: operator.attrgetter(name)(torch.ops.aten), without=without)
    try:
        return operator.attrgetter(name)(torch.ops.aten)
    except AttributeError:
        return _Absent(name)


LINALG_CHECK_ERRORS = _operator("_linalg_check_errors.default")
READS_A_NUMBER = "_local_scalar_dense"  # in what a tracer says of a program that does
SLOGDET_NAME = "_linalg_slogdet"
LOCAL_SCALAR_DENSE = _operator(
    "_local_scalar_dense.default", "a program that reads numbers from tensors into Python is not captured"
)
LOG_SOFTMAX = _operator("_log_softmax.default")
LOG_SOFTMAX_BACKWARD = _operator("_log_softmax_backward_data.default")
RESHAPE_ALIAS = _operator("_reshape_alias.default")
SOFTMAX = _operator("_softmax.default")
SOFTMAX_BACKWARD = _operator("_softmax_backward_data.default")
SPARSE_ADDMM = _operator("_sparse_addmm.default", "torch.sparse.mm keeps a step with sparse data from native code")
TO_COPY = _operator("_to_copy.default")
TO_DENSE = _operator("_to_dense.default", "x.to_dense() keeps a step with sparse data from native code")
UNSAFE_INDEX = _operator("_unsafe_index.Tensor")
UNSAFE_INDEX_PUT = _operator("_unsafe_index_put.default")
UNSAFE_VIEW = _operator("_unsafe_view.default")
