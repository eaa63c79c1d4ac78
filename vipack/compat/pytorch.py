"""Private names of torch's tensors, storages, operators and distributions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from torch import Tensor, fx, nn
from torch.distributions import lowrank_multivariate_normal, multivariate_normal, normal, studentT

from vipack.compat.names import named
from vipack.compat.patching import patched
from vipack.compat.versions import warn_if_untested

__all__ = [
    "TENSOR_TYPES",
    "OpOverload",
    "copy_validation",
    "csr_arrays",
    "graph_module",
    "is_fake",
    "is_left_over_from_vmap",
    "overload_of",
    "plain_normals",
    "pretend_parameter",
    "schema_of",
    "storage_address",
    "storage_holders",
    "validate_sample",
    "validation_noted",
    "validation_refused",
    "version_of",
]

warn_if_untested(torch.__version__, pyro.__version__)

OpOverload: Any = type(torch.ops.aten.add.Tensor)

_FAKE: tuple[type, ...] = ()
with contextlib.suppress(ImportError):
    from torch._subclasses.fake_tensor import FakeTensor as _FakeTensor

    _FAKE = (_FakeTensor,)

TENSOR_TYPES: tuple[Any, ...] = (Tensor, *_FAKE)  # those that a program meets as it is traced

_LAZY: Any = fx.GraphModule
with contextlib.suppress(ImportError):
    from torch.fx._lazy_graph_module import _LazyGraphModule as _LAZY

NO_VALUES = "a program cannot be traced with tensors that have no values"
_LEFT = "vipack.SVI leaves every parameter where it lies, which makes steps of many parameters slower"
OUTSIDE_FUNC = named("torch", "torch._C._DisableFuncTorch", without="fits without a guide cannot take sparse counts")
VERSION = named(
    "torch",
    "torch.Tensor._version",
    lambda: torch.zeros(1)._version,
    without="a graph would not see that somebody has written to a tensor that it reads",
    stops="graphs",
)
FAKE = named("torch", "torch._subclasses.fake_tensor.FakeTensor", without=NO_VALUES, stops="graphs")
IS_PARAM = named(
    "torch",
    "torch.Tensor._is_param",
    lambda: _acts_as_parameter(),
    without="a PyroModule would not declare its parameters to a graph",
    stops="graphs",
)
SCHEMA = named(
    "torch",
    "OpOverload._schema",
    lambda: torch.ops.aten.add.Tensor._schema.arguments,
    without="which operators of a graph write to their arguments is not known",
    stops="graphs",
)
OVERLOAD_NAME = named(
    "torch",
    "OpOverload._overloadname",
    lambda: torch.ops.aten.add.Tensor._overloadname,
    without="the operators of a graph cannot be told apart by name",
    stops="graphs",
)
WRAPPED = named(
    "torch",
    "torch._C._functorch.is_functorch_wrapped_tensor",
    without="what a run under vmap leaves behind cannot be told from tensors of the program",
    stops="graphs",
)
LAZY_GRAPH = named(
    "torch",
    "torch.fx._lazy_graph_module._LazyGraphModule",
    without="the Python text of every graph is written, which takes longer",
)
STORAGE_ADDRESS = named(
    "torch", "UntypedStorage._cdata", lambda: torch.zeros(1).untyped_storage()._cdata, without=_LEFT
)
STORAGE_HOLDERS = named("torch", "torch._C._storage_Use_Count", without=_LEFT)
IS_ALL_TRUE = named(
    "torch", "torch._is_all_true", without="a program that validates its distributions in this way is not captured"
)
STANDARD_NORMAL = named(
    "torch",
    "torch.distributions.utils._standard_normal",
    lambda: [module._standard_normal for module in _NORMALS],
    without="draws under vmap are made one by one",
)
VALIDATE_SAMPLE = named(
    "torch",
    "Distribution._validate_sample",
    "torch.distributions:Distribution._validate_sample",
    without="Multinomial does not validate the values that it is evaluated at under vmap",
)
VALIDATE_ARGS = named(
    "torch",
    "Distribution._validate_args",
    lambda: torch.distributions.Normal(0.0, 1.0, validate_args=False).__dict__["_validate_args"],
    without="a distribution with validate_args=False is checked like others",
)

_NORMALS: list[Any] = [normal, multivariate_normal, lowrank_multivariate_normal, studentT]


def version_of(tensor: Tensor) -> int:
    """How often a tensor has been written to; always 0 where torch does not say, and then there are no graphs."""
    return getattr(tensor, "_version", 0)


def is_fake(value: Any) -> bool:
    """Whether it is a tracer's tensor, which has no values."""
    return isinstance(value, _FAKE)


def pretend_parameter(tensor: Tensor) -> None:
    """Let a tensor that has a graph pass for an ``nn.Parameter``."""
    tensor._is_param = True


def is_left_over_from_vmap(tensor: Tensor) -> bool:
    """Whether a run under vmap left it behind, such as the rows of an automatic guide's plates: nobody can read it."""
    return WRAPPED.there and bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def schema_of(target: Any) -> Any:
    """What an operator declares of its arguments and results; None for anything else."""
    return getattr(target, "_schema", None)


def overload_of(target: Any) -> str:
    """The name of an operator's overload."""
    return str(target._overloadname)


def graph_module(root: Any, graph: fx.Graph) -> fx.GraphModule:
    """A module that runs `graph`, whose Python text is written only if it is called."""
    module: fx.GraphModule = (_LAZY if LAZY_GRAPH.there else fx.GraphModule)(root, graph)
    return module


def csr_arrays(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """crow, col and values of a CSR tensor, which torch.func's gradients have no rule for."""
    with torch._C._DisableFuncTorch() if OUTSIDE_FUNC.there else contextlib.nullcontext():
        return matrix.crow_indices(), matrix.col_indices(), matrix.values()


def storage_address(tensor: Tensor) -> int:
    """What tells one storage from another."""
    storage = tensor.untyped_storage()
    return int(storage._cdata if STORAGE_ADDRESS.there else storage.data_ptr())


def storage_holders(tensor: Tensor) -> int | None:
    """How many tensors, arrays and the like hold the storage; None where torch does not say."""
    if not (STORAGE_ADDRESS.there and STORAGE_HOLDERS.there):
        return None
    return _counted(tensor) - _more_than_tensors()


def _counted(tensor: Tensor) -> int:
    return int(torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))


@functools.cache
def _more_than_tensors() -> int:
    """Whether torch counts the Python object of a storage, which looking at it makes: 2.13 does, 2.8 does not."""
    return _counted(torch.zeros(1, device="cpu")) - 1


@contextlib.contextmanager
def validation_noted(note: Callable[[Tensor], bool]) -> Iterator[None]:
    """Inside the block, distributions and handlers ask `note` whether what they validate is true."""
    with patched(torch, _is_all_true=note) if IS_ALL_TRUE.there else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def plain_normals() -> Iterator[None]:
    """vmap cannot give each example its own draw of ``empty(shape).normal_()``, but can of ``randn(shape)``."""

    def standard_normal(shape: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    with contextlib.ExitStack() as stack:
        for module in _NORMALS if STANDARD_NORMAL.there else ():
            stack.enter_context(patched(module, _standard_normal=standard_normal))
        yield


def validate_sample(distribution: Any, value: Tensor) -> None:
    """Raise for a value outside of the support, if the distribution validates its arguments."""
    if VALIDATE_ARGS.there and VALIDATE_SAMPLE.there and distribution._validate_args:
        distribution._validate_sample(value)


def copy_validation(distribution: Any, other: Any) -> None:
    """Let `other`, made from `distribution`, validate what it is given as that does."""
    if VALIDATE_ARGS.there:
        other._validate_args = distribution._validate_args


def validation_refused(distribution: Any) -> bool:
    """Whether the user wrote ``validate_args=False`` for this very distribution."""
    return distribution.__dict__.get("_validate_args") is False


def _acts_as_parameter() -> None:
    tensor = torch.zeros(1)
    pretend_parameter(tensor)
    if not isinstance(tensor, nn.Parameter):
        raise AttributeError("_is_param")
