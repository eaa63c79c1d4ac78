"""torch's tracer of functions of tensors, and a shorter way through it for the operations that most programs consist of."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from vipack.compat.names import named
from vipack.compat.patching import patched
from vipack.compat.pytorch import FAKE, NO_VALUES, TENSOR_TYPES, OpOverload, schema_of

__all__ = ["recorded", "traced_with_values", "traced_without_values"]

_TRACER = "torch.fx.experimental.proxy_tensor"


def _takes(argument: str) -> None:
    if argument not in inspect.signature(importlib.import_module(_TRACER).make_fx).parameters:
        raise AttributeError(argument)


TRACING = named("torch", "torch._guards.TracingContext", without="graphs of log densities take twice as long to make")
NON_FAKE = named(
    "torch",
    "make_fx(_allow_non_fake_inputs=)",
    lambda: _takes("_allow_non_fake_inputs"),
    without=NO_VALUES,
    stops="graphs",
)
READS = named(
    "torch",
    "make_fx(_error_on_data_dependent_ops=)",
    lambda: _takes("_error_on_data_dependent_ops"),
    without="a model that reads numbers from its data cannot be run for many points at once",
)
_LONGER = "graphs take longer to make"
NO_FUNCTIONS = named(
    "torch",
    "make_fx(_disable_torch_fn_metadata_mode=)",
    lambda: _takes("_disable_torch_fn_metadata_mode"),
    without=_LONGER,
)
LAZY_TRACE = named("torch", "torch.fx._lazy_graph_module._use_lazy_graph_module", without=_LONGER)


def traced_without_values(step: Callable[..., Any]) -> Callable[..., fx.GraphModule]:
    """``make_fx`` with tensors that have no values: whatever would read one is refused, rather than frozen into the graph."""
    return _tracer(step, tracing_mode="fake", _allow_non_fake_inputs=True)


def traced_with_values(step: Callable[..., Any]) -> Callable[..., fx.GraphModule]:
    """``make_fx`` with tensors that have values; what would read one is refused."""
    return _tracer(step, tracing_mode="real")


def recorded(function: Callable[..., Any], freeze: bool) -> Callable[..., fx.GraphModule]:
    """Likewise, of a graph that is only run, whose nodes need not say what they give, but for those that make tensors of numbers.

    Args:
        freeze: let values that are read be frozen into the graph.
    """
    options = {"_error_on_data_dependent_ops": False} if freeze and READS.there else {}
    return _tracer(function, described=False, tracing_mode="real", **options)


def _tracer(function: Callable[..., Any], *, described: bool = True, **options: Any) -> Callable[..., fx.GraphModule]:
    from torch.fx import _lazy_graph_module
    from torch.fx.experimental import proxy_tensor

    if NO_FUNCTIONS.there:
        options["_disable_torch_fn_metadata_mode"] = True
    real = options["tracing_mode"] == "real"

    def trace(*example: Any) -> fx.GraphModule:
        with contextlib.ExitStack() as stack:
            if real:
                stack.enter_context(_one_fake_mode())
            if LAZY_TRACE.there:
                stack.enter_context(_lazy_graph_module._use_lazy_graph_module(True))
            if PROXY_MODE.there:
                stack.enter_context(
                    patched(proxy_tensor.ProxyTorchDispatchMode, __torch_dispatch__=_quick_dispatch(described))
                )
            module: fx.GraphModule = proxy_tensor.make_fx(function, **options)(*example)
        return module

    return trace


@contextlib.contextmanager
def _one_fake_mode() -> Iterator[None]:
    """Inside the block, a tracer of tensors with values describes all of them by one mode, where it made one for each."""
    if not (FAKE.there and TRACING.there):
        yield
        return
    from torch._guards import TracingContext, tracing
    from torch._subclasses.fake_tensor import FakeTensorMode

    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        yield


@functools.cache
def _quick_dispatch(describe: bool) -> Callable[..., Any]:
    """In place of the tracer's own method, which is asked only where an operation is not a plain one on tensors of the trace.

    It looks at each argument a dozen times, for what our programs do not have: sizes that are symbols, objects of other
    libraries, tables of decompositions. That took half of the time of a trace.

    Args:
        describe: let nodes say in ``meta["val"]`` of what shape and type their results are; those without tensors always do.
    """
    from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager
    from torch.fx.experimental import proxy_tensor
    from torch.fx.traceback import has_preserved_node_meta

    whole = _own_dispatch()
    val_of, set_slot, tracked = proxy_tensor.extract_val, proxy_tensor.set_proxy_slot, proxy_tensor._ProxyTensor
    no_python, tracer_type = torch._C._DisablePythonDispatcher, proxy_tensor.PythonKeyTracer
    device, detach = torch.ops.prim.device.default, torch.ops.aten.detach.default

    def described(value: Any) -> Any:
        """A tensor of the same shape and type without values, of which autograd knows nothing."""
        if type(value) is not FakeTensor:
            return val_of(value)
        mode = value.fake_mode
        with no_python(), in_kernel_invocation_manager(mode):
            apart = detach(value)
        return FakeTensor(mode, apart, value.fake_device)

    def dispatch(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is device and type(args[0]) is FakeTensor:  # autograd asks several times an operation
            return args[0].fake_device
        tracer, kwargs = self.tracer, kwargs or {}
        if not _is_plain(func) or self.pre_dispatch or func in self.decomposition_table:
            return whole(self, func, types, args, kwargs)
        nodes = [_node(tracer.tensor_tracker, value) for value in args]
        options = {name: _node(tracer.tensor_tracker, value) for name, value in kwargs.items()}
        unusual = (
            type(tracer) is not tracer_type
            or tracer.symnode_tracker.sym_node_dict  # numbers and sizes that depend on values
            or has_preserved_node_meta()
            or getattr(self, "emulate_precision_casts", False)
        )
        if unusual or any(value is _UNKNOWN for value in (*nodes, *options.values())):
            return whole(self, func, types, args, kwargs)
        node = tracer.graph.create_node("call_function", func, name=func.overloadpacket.__name__)
        node.args, node.kwargs = tuple(nodes), options  # not above, where each is looked at for symbols once more
        result = func(*args, **kwargs)
        set_slot(result, tracer, tracked(fx.Proxy(node, tracer), None))
        if describe or not any(isinstance(value, fx.Node) for value in (*nodes, *options.values())):
            node.meta["val"] = described(result)
        return result

    return dispatch


@functools.cache
def _own_dispatch() -> Any:
    """The tracer's method, looked up before it is another one."""
    from torch.fx.experimental import proxy_tensor

    return proxy_tensor.ProxyTorchDispatchMode.__torch_dispatch__


_UNKNOWN = object()
_CONSTANT = {int, float, bool, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format, str}


def _node(tracker: Any, value: Any) -> Any:
    """An argument as it stands in a graph; `_UNKNOWN` where the tracer itself must see to it."""
    kind = type(value)
    if kind in TENSOR_TYPES:
        traced = tracker.get(value)
        return _UNKNOWN if traced is None or traced.constant is not None else traced.proxy.node
    if kind in _CONSTANT:
        return value
    if kind in (list, tuple):
        nodes = [_node(tracker, each) for each in value]
        return _UNKNOWN if any(node is _UNKNOWN for node in nodes) else kind(nodes)
    return _UNKNOWN


@functools.cache
def _is_plain(func: Any) -> bool:
    """Whether an operator gives one tensor, whose size depends on no value, and is not written in terms of others."""
    if not isinstance(func, OpOverload) or func.namespace != "aten" or func is torch.ops.aten.lift_fresh.default:
        return False
    if [str(result.type) for result in schema_of(func).returns] != ["Tensor"]:
        return False
    exact = getattr(torch.Tag, "needs_exact_strides", None)
    tells = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, exact}.intersection(func.tags)
    composite = func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    return not tells and not composite


def _trace_quickly() -> None:
    from torch.fx.experimental import proxy_tensor

    with patched(proxy_tensor.ProxyTorchDispatchMode, __torch_dispatch__=_quick_dispatch(True)):
        for mode in ("fake", "real"):
            proxy_tensor.make_fx(lambda x: [x.clone().add_(1)], tracing_mode=mode)(torch.zeros(1))


PROXY_MODE = named("torch", f"{_TRACER}.ProxyTorchDispatchMode", _trace_quickly, without=_LONGER)
