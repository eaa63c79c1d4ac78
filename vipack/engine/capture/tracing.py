"""A function of tensors as a graph of operations: what the tracer is asked, and why it refuses."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.aten import READS_A_NUMBER
from vipack.compat.patching import patched
from vipack.compat.pytorch import schema_of
from vipack.compat.tracer import traced_with_values, traced_without_values
from vipack.engine.capture.purify import pure_objectives
from vipack.engine.capture.reads import Answers, Read, Unanswered, observed, where_it_failed
from vipack.engine.graph.nodes import ancestors, is_random, output_of
from vipack.program import captured_scans
from vipack.program.running.params import UnmetParameterError

__all__ = ["CaptureError", "collecting_later", "refuse_numbers_that_change", "traced", "write_dtypes"]

Step = Callable[..., list[Tensor]]


class CaptureError(Exception):
    """The step is not a pure function of tensors; the message is the reason for the user."""


class _ValuesNeeded(CaptureError):
    """It reads numbers from tensors into Python."""


@contextlib.contextmanager
def collecting_later() -> Iterator[None]:
    """No collection of garbage: tracing makes many objects that live on, and each full collection visits all of torch."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def traced(step: Step, inputs: Sequence[Tensor], undo: Callable[[], object]) -> tuple[fx.GraphModule, list[Read]]:
    """Trace a step; where it reads numbers from tensors, with those that a run of it gives.

    Args:
        undo: takes back what a run leaves in Python.

    Returns:
        The graph, and what was read, for each of which the graph has a check among its last results.

    Raises:
        CaptureError: it cannot be traced.
    """
    with pure_objectives(), collecting_later(), _open_layers():
        try:
            with captured_scans():
                return _trace(step, inputs), []
        except _ValuesNeeded as error:
            undo()
            try:
                with observed() as values:
                    step(*inputs)
            except Exception:  # the run itself will tell
                raise error from None
            undo()
        answers = Answers(values)

        def answered(*flat: Tensor) -> list[Tensor]:
            with answers.given():
                return [*step(*flat), *answers.checks]

        with captured_scans():
            module = _trace(answered, inputs)
        return module, answers.reads


@contextlib.contextmanager
def _open_layers() -> Iterator[None]:
    """Inside the block, recurrent layers are written as products: a graph cannot call MKL-DNN's kernels for them."""
    mkldnn: Any = torch.backends.mkldnn
    enabled = mkldnn.enabled
    mkldnn.enabled = False
    try:
        yield
    finally:
        mkldnn.enabled = enabled


def refuse_numbers_that_change(module: fx.GraphModule, reads: Sequence[Read], changing: Iterable[int]) -> None:
    """
    Args:
        reads: whose checks are the graph's last results.
        changing: indices of inputs that other steps find changed.

    Raises:
        CaptureError: a real number depends on them, which would never be the same again.
    """
    if not reads:
        return
    results = output_of(module.graph).args[0]
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    moving = {inputs[index] for index in changing}
    for read, check in zip(reads, results[-len(reads) :], strict=True):
        if read.exact and (not moving.isdisjoint(ancestors(check)) or any(map(is_random, ancestors(check)))):
            raise CaptureError(f"a number that changes with every step is read from a tensor ({read.where})")


def _trace(step: Step, inputs: Sequence[Tensor]) -> fx.GraphModule:
    try:
        # Tensors without values: whatever would read one is refused, rather than frozen into the graph.
        module: fx.GraphModule = traced_without_values(step)(*inputs)
    except (CaptureError, UnmetParameterError):
        raise
    except Exception as error:  # the many ways in which user code can fail on tensors without values
        if "ProvenanceTensor" not in str(error):
            raise _refusal(error) from error
        # TraceGraph_ELBO follows non-reparametrized draws with a tensor subclass that needs tensors with values.
        try:
            with _conversions_refused():
                module = traced_with_values(step)(*[value.detach() for value in inputs])
        except CaptureError:
            raise
        except Exception as second:
            raise _refusal(second) from second
    _refuse_unknown_sizes(module)
    return module


def _refuse_unknown_sizes(module: fx.GraphModule) -> None:
    """A tracer with values to come makes symbols of numbers and sizes that depend on them."""
    for node in module.graph.nodes:
        value = node.meta.get("val")
        sizes = list(value.shape) if isinstance(value, Tensor) else [value]
        if any(isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool) for size in sizes):
            raise _ValuesNeeded(f"a size or number depends on the value of a tensor (in {node.target})")


def write_dtypes(module: fx.GraphModule) -> None:
    """Say of what type new tensors are: where the program leaves it to the default, that is the fit's only as it runs.

    In float64 a prior of ``torch.full((10,), 0.2)`` was else 0.2 rounded to float32.
    """
    for node in module.graph.nodes:
        arguments = getattr(schema_of(node.target), "arguments", ())
        value = node.meta.get("val")
        makes = isinstance(value, Tensor) and not any("Tensor" in str(argument.type) for argument in arguments)
        if makes and any(a.name == "dtype" for a in arguments) and node.kwargs.get("dtype") is None:
            node.kwargs = {**node.kwargs, "dtype": value.dtype}


@contextlib.contextmanager
def _conversions_refused() -> Iterator[None]:
    """Refuse conversions by which values leave tensors unseen by a tracer."""

    def refuse(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise CaptureError("values leave torch for NumPy or Python lists")

    with patched(torch.Tensor, **dict.fromkeys(("numpy", "tolist", "__array__"), refuse)):
        yield


def _refusal(error: Exception) -> CaptureError:
    """Why a trace failed, for the user, with the line of the program."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    where = where_it_failed(error)
    line = f" ({where})" if where else ""
    if isinstance(error, Unanswered):
        return CaptureError(f"numbers that the program reads from tensors lead to other ones in the next run ({text})")
    if "data-dependent" in text or "DataDependent" in name or READS_A_NUMBER in text or "GuardOnData" in name:
        return _ValuesNeeded(
            f"control flow depends on the value of a tensor (an `if`, `.item()`, `float()`, `range()` or the like){line}"
        )
    if name == "TypeError" and "FakeTensor" in text:
        return _ValuesNeeded(f"a size or number depends on the value of a tensor{line}")
    if name == "DynamicOutputShapeException":
        return _ValuesNeeded(f"a size depends on the value of a tensor{line}")
    if "numpy" in text.lower():
        return _ValuesNeeded(f"values leave torch for NumPy{line}")
    return CaptureError(f"{name}: {text[:200]}{line}")
