"""Model, guide, objective and batch as one pure graph of tensor operations, from parameters to loss and gradients."""

from __future__ import annotations

import contextlib
import operator
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor, fx

from vipack.compat.messengers import handlers
from vipack.compat.names import lacking
from vipack.compat.param_store import stored
from vipack.compat.pytorch import is_fake, pretend_parameter, schema_of
from vipack.engine.capture.annealed import as_numbers, asks_for_types, number_of
from vipack.engine.capture.checks import collected_checks, keep_open_checks
from vipack.engine.capture.losses import functions_of
from vipack.engine.capture.reads import Read
from vipack.engine.capture.tracing import CaptureError, refuse_numbers_that_change, traced, write_dtypes
from vipack.engine.guards.arguments import replaced, tensors_in
from vipack.engine.guards.execution import Execution
from vipack.engine.guards.python_state import PythonState, sharing_memory
from vipack.engine.guards.slots import comparable
from vipack.program import Arguments, Parameters, Program, TorchState
from vipack.program.running.params import BASELINE

__all__ = ["Graph", "Layout", "capture", "tensors_of"]


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in the flat vector that the optimizer changes.

    Attributes:
        names: one name for each distinct tensor.
        aliases: every name -> the one of `names` that stands for the same tensor.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, parameters: Parameters) -> Layout:
        """The layout of a program's parameters, in order of declaration."""
        first: dict[int, str] = {}
        aliases = {}
        for name, value in parameters.unconstrained.items():
            aliases[name] = first.setdefault(id(value), name)
        names = tuple(first.values())
        return cls(names, tuple(parameters.unconstrained[name].shape for name in names), aliases)

    @property
    def sizes(self) -> list[int]:
        """Number of elements of each."""
        return [shape.numel() for shape in self.shapes]

    def values(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        """Every name -> its tensor among `tensors`, which are in the order of ``names``."""
        by_name = dict(zip(self.names, tensors, strict=True))
        return {name: by_name[owner] for name, owner in self.aliases.items()}


@dataclass(frozen=True)
class Graph:
    """One captured step: ``module(*parameters, *buffers, *arrays) -> (loss, *gradients, *new buffers, *checks)``.

    Random draws stand in the graph as they stood in the program, so that running it from some state of the generator
    gives what ``pyro.infer.SVI`` gives from there.

    Attributes:
        touched: parameters that the program asks for, which an optimizer then updates.
        unused: parameters that the loss does not depend on.
        num_checks: how many truth values say that Pyro would raise nothing.
        seconds: that capturing took.
        state: the Python variables that the program reads, which the graph holds as they were.
        reads: what it reads from tensors, likewise; checks say whether it still does.
        annealed: whether numbers among the arguments are tensors to it.
    """

    module: fx.GraphModule
    layout: Layout
    touched: frozenset[str]
    unused: frozenset[str]
    num_checks: int
    seconds: float
    state: PythonState
    reads: tuple[Read, ...] = ()
    annealed: bool = False

    @property
    def num_nodes(self) -> int:
        """Number of operations, by which compile time is predicted."""
        return sum(node.op == "call_function" for node in self.module.graph.nodes)

    def __call__(self, parameters: list[Tensor], buffers: list[Tensor], arrays: list[Tensor]) -> list[Tensor]:
        """Run the graph operation by operation."""
        result: list[Tensor] = self.module(*parameters, *buffers, *arrays)
        return result


def tensors_of(arguments: Arguments) -> tuple[list[Tensor], Callable[[list[Tensor]], Arguments]]:
    """The tensors in a call, and a function that gives the call with others instead."""
    call = tuple(arguments.args), dict(arguments.kwargs)
    tensors = [*tensors_in(call), *arguments.numbers]
    first_number = len(tensors) - len(arguments.numbers)
    after_numbers = len(tensors)
    if arguments.indices is not None:
        tensors.append(arguments.indices)

    def rebuild(values: list[Tensor]) -> Arguments:
        args, kwargs = replaced(call, values[:first_number])
        indices = values[-1] if arguments.indices is not None else None
        return Arguments(args, kwargs, indices, tuple(values[first_number:after_numbers]))

    return tensors, rebuild


def capture(program: Program, loss: Any, arguments: Arguments, execution: Execution | None = None) -> Graph:
    """Trace ``loss.loss_and_grads`` on `arguments` into one graph of ATen operations.

    Args:
        execution: of a step as Pyro takes it, where one was recorded.

    Raises:
        UnmetParameterError: the program declares a parameter for the first time.
        CaptureError: control flow depends on data, values leave torch, or something but tensors is random.
    """
    started = time.perf_counter()
    missing = lacking("graphs")
    if missing:
        raise CaptureError(missing)
    step = _Step(program, loss, arguments)
    step.check_inputs(execution)
    others = [v for v in (*arguments.args, *arguments.kwargs.values()) if not isinstance(v, Tensor)]
    apart = [*program.parameters.tensors(), *step.buffers.values()]
    programs = (program.model, program.guide, *functions_of(loss), *handlers())
    state = PythonState(*programs, *others, execution=execution, apart=apart)
    if execution is not None and state.reason:
        raise CaptureError(state.reason)
    module, reads = _traced(step, state)
    module.graph.set_codegen(fx.graph.CodeGen())
    first_array = step.first_array if program.parameters.shared else None  # a fit goes back to the step before
    num_checks = keep_open_checks(module, step.num_checks + len(reads), first_array)
    write_dtypes(module)
    module.graph.eliminate_dead_code()
    module.recompile()
    return Graph(
        module,
        step.layout,
        frozenset(step.touched),
        frozenset(step.unused),
        num_checks,
        time.perf_counter() - started,
        state,
        reads=tuple(reads),
        annealed=bool(step.numbers),
    )


class _Step:
    """A step of a program as a function of its parameters, its buffers and the arrays of a call, in this order.

    Attributes:
        numbers: index of an array -> the number that it stands for.
        touched, unused, num_checks: of the step that was run last; see :class:`Graph`.
    """

    def __init__(self, program: Program, loss: Any, arguments: Arguments) -> None:
        self.program, self._loss = program, loss
        self.layout = Layout.of(program.parameters)
        declared = [program.parameters.unconstrained[name] for name in self.layout.names]
        self.parameters = [value.detach() for value in declared]
        self._trainable = [value.requires_grad for value in declared]
        self.buffers = program.parameters.buffers()
        self.arrays, self._rebuild = tensors_of(arguments)
        numbers = {index: number_of(array) for index, array in enumerate(self.arrays)}
        self.numbers = {index: number for index, number in numbers.items() if number is not None}
        self.first_array = len(self.parameters) + len(self.buffers)
        self.touched: set[str] = set()
        self.unused: set[str] = set()
        self.num_checks = 0

    def check_inputs(self, execution: Execution | None) -> None:
        """
        Raises:
            CaptureError: a graph cannot take the parameters, or tensors for numbers.
        """
        if self.numbers and (execution is None or (where := asks_for_types(execution.codes))):
            where = where if execution is not None else "a profiler hides which code runs"
            raise CaptureError(
                f"a number changes from call to call, and the program asks for the type of something ({where})"
            )
        for name, value in zip(self.layout.names, self.parameters, strict=True):
            if not value.is_contiguous():
                raise CaptureError(
                    f"the elements of parameter {name!r} are not in order of memory, as after a transposition"
                )

    def run(self, *flat: Tensor) -> list[Tensor]:
        """``(loss, *gradients, *new buffers, *checks)``."""
        # Clones: programs may write into what they are given, and the inputs must stay as they are.
        parameters = [
            value.clone().requires_grad_(own)
            for value, own in zip(flat[: len(self.parameters)], self._trainable, strict=True)
        ]
        for parameter in parameters:
            pretend_parameter(parameter)  # a PyroModule tells Pyro of its nn.Parameters only
        copies = (value.clone() for value in flat[len(parameters) : self.first_array])
        buffers = dict(zip(self.buffers, copies, strict=True))
        arrays = list(flat[self.first_array :])
        program, call, layout = self.program, self._rebuild(arrays), self.layout
        with (
            as_numbers([arrays[index] for index in self.numbers], list(self.numbers.values())),
            program.bound(call, values=layout.values(parameters), buffers=buffers),
            collected_checks() as checks,
            poutine.trace(param_only=True) as seen,
        ):
            value = self._loss.loss_and_grads(program.model, program.guide, *call.args, **call.kwargs)
            if any(name.startswith(BASELINE) for name in stored()[0]):
                raise CaptureError(
                    "the objective keeps a decaying average of costs as a baseline, outside of the graph"
                )
        self.touched.update(layout.aliases[name] for name in seen.trace.nodes if name in layout.aliases)
        self.unused.update(name for name, p in zip(layout.names, parameters, strict=True) if p.grad is None)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self.num_checks = len(checks)
        return [_total(value), *gradients, *buffers.values(), *checks]


def _traced(step: _Step, state: PythonState) -> tuple[fx.GraphModule, list[Read]]:
    """The graph of a step, and what the program reads from tensors; the Python state is put back.

    Raises:
        CaptureError: it cannot be traced, or a graph would not do what the program does.
    """
    parameters, inputs = step.program.parameters, [*step.parameters, *step.buffers.values(), *step.arrays]
    with _generators_kept() as drawn_outside:
        try:
            module, reads = traced(step.run, inputs, state.restore)
            constants = _constants(module)
            _drop_gradients(constants)
            _refuse_state(module, state, constants, drawn_outside(), range(step.first_array, len(inputs)))
        finally:
            lost = state.restore()
            _drop_gradients([*parameters.of_modules(), *state.tensors()])
    if parameters.shared and any(constant.requires_grad for constant in constants):
        raise CaptureError(
            "the program reaches a tensor that requires grad and that neither pyro.param nor pyro.module declares, and Pyro "
            "leaves its gradient in it"
        )
    # Parameters move into vectors of the engine's own, where a view of theirs would no longer follow them.
    name = sharing_memory(
        dict(zip(step.layout.names, step.parameters, strict=True)),
        [*step.buffers.values(), *step.arrays, *_tensors(constants)],
    )
    if name:
        raise CaptureError(
            f"parameter {name!r} shares its memory with another one or with a tensor that the program reads, which changes "
            "with it"
        )
    if lost:
        raise CaptureError(f"each run of the program writes to {lost!r}, which is too large to be put back")
    changing = [*range(step.first_array), *(step.first_array + index for index in step.numbers)]
    refuse_numbers_that_change(module, reads, changing)
    return module, reads


@contextlib.contextmanager
def _generators_kept() -> Iterator[Callable[[], bool]]:
    """Put the global generators back; yields whether those of Python and NumPy have been drawn from."""
    state, python, numpy = TorchState.current(), random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002

    def drawn_outside() -> bool:
        return random.getstate() != python or comparable(np.random.get_state(legacy=False)) != comparable(numpy)  # noqa: NPY002

    try:
        yield drawn_outside
    finally:
        state.install()
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _constants(module: fx.GraphModule) -> list[Any]:
    return [operator.attrgetter(str(n.target))(module) for n in module.graph.nodes if n.op == "get_attr"]


def _tensors(constants: Iterable[Any]) -> list[Tensor]:
    return [value for value in constants if isinstance(value, Tensor)]


def _drop_gradients(tensors: Iterable[Any]) -> None:
    """Remove gradients without values, which tracing leaves in tensors that require grad and are no inputs of the graph."""
    for tensor in tensors:
        if isinstance(tensor, Tensor) and tensor.is_leaf and is_fake(tensor.grad):
            tensor.grad = None


def _refuse_state(
    module: fx.GraphModule, state: PythonState, constants: list[Any], drawn_outside: bool, arrays: range
) -> None:
    """
    Args:
        arrays: indices of the program's arguments among the graph's inputs.

    Raises:
        CaptureError: a run leaves something behind in Python that the next run may read.
    """
    if drawn_outside:
        raise CaptureError("the program draws from Python's or NumPy's generator, which a graph cannot repeat")
    written = [value for node in module.graph.nodes for value in (*node.args, *node.kwargs.values())]
    if any(isinstance(value, torch.Generator) for value in (*constants, *written)):
        raise CaptureError("the program draws from a torch.Generator of its own, which a graph cannot repeat")
    written_to = _written_to(module)
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    if any(inputs[index] in written_to for index in arrays):
        raise CaptureError("each run of the program writes to one of its arguments, which the next run reads")
    name = state.changed_by_a_run() or state.hold(_tensors(constants))
    if not name and any(node.op == "get_attr" for node in written_to):
        raise CaptureError("each run of the program writes to a tensor that it keeps, which the next run reads")
    if name:
        raise CaptureError(
            f"each run of the program changes {name!r}, which it may read again: a graph would freeze it as it is"
        )


def _written_to(module: fx.GraphModule) -> set[fx.Node]:
    """Inputs and constants of a graph that it writes to, be it through a view."""
    origin: dict[fx.Node, fx.Node] = {}
    written: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            origin[node] = node
        schema = schema_of(node.target)
        if schema is None:
            continue
        for argument, declared in zip(node.args, schema.arguments, strict=False):
            if not isinstance(argument, fx.Node) or declared.alias_info is None or argument not in origin:
                continue
            if declared.alias_info.is_write:
                written.add(origin[argument])
            origin[node] = origin[argument]
    return written


def _total(value: Any) -> Tensor:
    total = sum(value if isinstance(value, tuple) else (value,))
    if not isinstance(total, Tensor):
        raise CaptureError(
            f"the objective returned {type(total).__name__} {total!r}, which no tensor was seen to enter"
        )
    return total.detach().reshape(())
