"""One whole training step as a graph: batch gathered, loss and gradients, the optimizer's update written in place."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize

from vipack.compat.pytorch import OpOverload, graph_module, overload_of, schema_of
from vipack.compat.tracer import traced_without_values
from vipack.engine.capture.checks import LITERAL
from vipack.engine.capture.noise import LiftedGraph, copy_graph
from vipack.engine.capture.tracing import CaptureError, collecting_later
from vipack.engine.graph.all_reduce import OWN_WEIGHT, summed
from vipack.engine.graph.common_subexpressions import without_repeats
from vipack.engine.graph.invariants import Invariants, split_steady_checks, split_steady_results
from vipack.engine.graph.nodes import output_of
from vipack.engine.graph.step_graph import Feed, StepGraph
from vipack.engine.optimizers.parameter_groups import gradient_of, split_parameters
from vipack.engine.steps.contracts import StepMemory
from vipack.program import Parameters, TorchState

__all__ = ["assemble"]

aten = torch.ops.aten


def assemble(
    lifted: LiftedGraph, memory: StepMemory, feed: Feed, parameters: Parameters, *, keeping: bool = False
) -> StepGraph:
    """Put gather, loss, gradients and update into one graph.

    With ``memory.copies`` R, for R fits side by side, draws, values, states, buffers and the loss have a leading dimension R,
    and all fits see the same batches but for the arrays of their own.

    Args:
        parameters: of the program, of whose type and on whose device the step computes.
        keeping: let a step in which Pyro would have raised leave everything as it was.
    """
    main, constants = _constants_as_inputs(lifted.module)
    buffers, num_draws = memory.buffers(), len(lifted.draws)
    num_between = num_draws + len(memory.order) + len(buffers)
    first_check = 1 + len(memory.order) + len(buffers)
    pure, before, num_invariants = _is_pure(main), None, 0
    if pure:
        without_repeats(main.graph)
        before = _invariants(main, constants, num_between, feed, first_check)
    if before is not None:
        invariants = [value.contiguous() for value in before(feed.arrays)]
        constants, num_invariants = constants + invariants, len(invariants)
    results = output_of(main.graph).args[0]
    step = _WholeStep(memory, feed, num_draws, len(buffers), len(constants), len(results) > first_check, keeping)
    examples, own = _examples(step, lifted, constants, parameters)
    one = [value[0] if apart else value for value, apart in zip(examples, own, strict=True)]
    known = all(isinstance(node, fx.Node) and "val" in node.meta for node in results)
    module = _simplified(_enclosed(step, main, one) if known and pure else _traced(lambda *flat: step(flat, main), one))
    num_states = sum(len(group.rule.state) for group in memory.groups)
    changed = range(num_draws, num_draws + len(memory.groups) + num_states + len(buffers) + step.checked)
    together = None
    if memory.copies is not None:
        unwritten = graph_module({}, copy_graph(module.graph))
        together = lambda: _written_back(_side_by_side(unwritten, own, examples), changed)  # noqa: E731
    single = _written_back(module, changed)
    return StepGraph(
        single,
        tuple(memory.groups),
        tuple(constants),
        tuple(examples),
        own,
        num_draws,
        sum(group.rule.num_coefficients for group in memory.groups),
        step.checked,
        together,
        before,
        num_invariants,
    )


@dataclass(frozen=True)
class _WholeStep:
    """A step around a program's graph: the batch gathered before it, parameters, states and buffers updated after it.

    Attributes:
        checked, keeping: see :class:`StepGraph` and :func:`assemble`.
    """

    memory: StepMemory
    feed: Feed
    num_draws: int
    num_buffers: int
    num_constants: int
    checked: bool
    keeping: bool

    def __call__(self, flat: Sequence[Tensor], program: Callable[..., Sequence[Tensor]]) -> list[Tensor]:
        """The loss, and what values, states, buffers and `well` become.

        Args:
            flat: the inputs of a :class:`StepGraph`.
            program: ``(*constants, *draws, *parameters, *buffers, *batch[, indices]) -> (loss, *gradients, *new buffers, *checks)``.
        """
        groups, order, take = self.memory.groups, self.memory.order, _Taker(flat)
        draws, values = take(self.num_draws), take(len(groups))
        states = [take(len(group.rule.state)) for group in groups]
        buffers, well, (coefficients,) = take(self.num_buffers), take(int(self.checked)), take(1)
        constants, data, indices = take(self.num_constants), take(len(self.feed.arrays)), take.rest()
        tensors = split_parameters(groups, values)
        batch = [v.index_select(0, indices[0]) if g else v for v, g in zip(data, self.feed.gathered, strict=True)]
        parameters = (tensors[index] for index in order)
        loss, *outputs = program(*constants, *draws, *parameters, *buffers, *batch, *indices)
        gradients = dict(zip(order, outputs[: len(order)], strict=True))
        new_buffers, checks = outputs[len(order) :][: len(buffers)], outputs[len(order) + len(buffers) :]
        is_well = functools.reduce(torch.logical_and, checks) if self.checked else None
        if is_well is not None:
            loss = torch.where(is_well, loss, torch.full_like(loss, math.nan))
        loss = self._reduced(loss, gradients)
        new = [*self._updated(values, states, coefficients, gradients), *new_buffers]
        if is_well is None:
            return [loss, *new]
        if self.keeping:
            old = [*values, *(vector for state in states for vector in state), *buffers]
            new = [
                value if value is kept else torch.where(is_well, value, kept)
                for value, kept in zip(new, old, strict=True)
            ]
        return [loss, *new, is_well.to(well[0].dtype)]

    def _reduced(self, loss: Tensor, gradients: dict[int, Tensor]) -> Tensor:
        """The loss over all processes of the run; `gradients` become so too, but for those that belong to rows of this one."""
        memory = self.memory
        if memory.reducer is None:
            return loss
        every = [index for index in sorted(gradients) if memory.names[index] not in memory.reducer.of_rows]
        own = [gradients[index] for index in every]
        of_rows = gradients.keys() - set(every)
        weight = OWN_WEIGHT(loss) if of_rows else loss
        reduced, loss = summed(memory.reducer, own, loss)
        for index in of_rows:
            gradients[index] = gradients[index] * weight
        gradients.update(zip(every, reduced, strict=True))
        return loss

    def _updated(
        self,
        values: Sequence[Tensor],
        states: Sequence[Sequence[Tensor]],
        coefficients: Tensor,
        gradients: Mapping[int, Tensor],
    ) -> list[Tensor]:
        """The new values of all groups, and then their new states."""
        new_values, new_states = list[Tensor](), list[Tensor]()
        for group, updates, value, state in zip(self.memory.groups, self.memory.active, values, states, strict=True):
            if updates:
                own = [coefficients[group.start + i] for i in range(group.rule.num_coefficients)]
                value, state = group.rule.update(value, gradient_of(group, gradients), state, own)
            new_values.append(value)
            new_states += state
        return [*new_values, *new_states]


def _examples(
    step: _WholeStep, lifted: LiftedGraph, constants: Sequence[Tensor], parameters: Parameters
) -> tuple[list[Tensor], tuple[bool, ...]]:
    """An example of each input of a step, and whether each of several fits side by side has its own."""
    memory, feed, dtype, device = step.memory, step.feed, parameters.dtype, parameters.device
    first = [
        *(torch.zeros(draw.shape, dtype=draw.dtype, device=device) for draw in lifted.draws),
        *(torch.zeros(group.size, dtype=dtype, device=device) for group in memory.groups),
        *(torch.zeros(group.size, dtype=dtype, device=device) for group in memory.groups for _ in group.rule.state),
    ]
    copies = memory.copies
    if copies is not None:
        first = [value.expand(copies, *value.shape).clone() for value in first]
    lead = () if copies is None else (copies,)
    kept = [*memory.buffers(), *([torch.ones(lead, dtype=dtype, device=device)] if step.checked else [])]
    num_coefficients = sum(group.rule.num_coefficients for group in memory.groups)
    common = [torch.zeros(num_coefficients, dtype=dtype, device=device), *constants]
    indices = () if feed.indices is None else (feed.indices,)
    several = (copies is not None,) * (len(first) + len(kept))
    separate = feed.own or (False,) * len(feed.arrays)
    own = (*several, *(False for _ in common), *separate, *(False for _ in indices))
    return [*first, *kept, *common, *feed.arrays, *indices], own


def _invariants(
    main: fx.GraphModule, constants: Sequence[Tensor], num_between: int, feed: Feed, first_check: int
) -> Invariants | None:
    """Take out of `main` what depends on constants and steady arrays alone, checks among it."""
    steady = feed.steady or (False,) * len(feed.arrays)
    indices = () if feed.indices is None else (False,)
    known = (*(True for _ in constants), *(False for _ in range(num_between)), *steady, *indices)
    checks = split_steady_checks(main, known, first_check)
    program = split_steady_results(main, known, len(constants))
    if program is None and checks is None:
        return None
    return Invariants(program, checks, tuple(constants), steady)


def _side_by_side(pure: fx.GraphModule, own: Sequence[bool], examples: Sequence[Tensor]) -> fx.GraphModule:
    """A step for several fits, each with its own of some inputs."""
    whole = torch.vmap(pure, in_dims=tuple(0 if apart else None for apart in own), randomness="different")
    return _simplified(_traced(whole, examples))


def _traced(function: Callable[..., Any], examples: Sequence[Tensor]) -> fx.GraphModule:
    # A tracer that does not know the shape of what an operator gives runs it, random ones too.
    generators = TorchState.current()
    with torch.no_grad(), collecting_later():
        pure = functionalize(function, remove="mutations")
        module: fx.GraphModule = traced_without_values(pure)(*examples)
    generators.install()
    return module


def _is_pure(module: fx.GraphModule) -> bool:
    """Let nothing in a graph be written in place, if that takes no more than another operator."""
    position, all_pure = {node: i for i, node in enumerate(module.graph.nodes)}, True
    for node in module.graph.nodes:
        if not isinstance(node.target, OpOverload) or not schema_of(node.target).is_mutable:
            continue
        pure, same = _without_writing(node.target), _same_memory(node.args[0])
        computed = same[0].op == "call_function" and not _may_alias(same[0].target)
        owned = computed or "draw" in same[0].meta  # which is made for this step
        before = {user for each in same for user in each.users if position[user] < position[node]}
        if pure is None or not owned or any(_may_alias(user.target) for user in before.difference(same)):
            all_pure = False
            continue
        for each in same:
            for user in [user for user in each.users if position[user] > position[node]]:
                user.replace_input_with(each, node)
        if pure is aten.bernoulli.p and len(node.args) == 1:  # of which one half is no default
            node.kwargs = {"p": 0.5} | node.kwargs
        node.target = pure
    return all_pure


def _same_memory(node: fx.Node) -> list[fx.Node]:
    """The nodes that are a tensor as another one, without its gradient, the one that makes it first."""
    while node.target in _SAME:
        node = node.args[0]  # type: ignore[assignment]
    aliases = [node]
    for each in aliases:
        aliases += [user for user in each.users if user.target in _SAME]
    return aliases


def _without_writing(target: OpOverload) -> OpOverload | None:
    if target in _FILLED_ANEW:
        return _FILLED_ANEW[target]
    name = schema_of(target).name.split("::")[1]
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, overload_of(target), None)


def _may_alias(target: Any) -> bool:
    if not isinstance(target, OpOverload):
        return True
    return any(result.alias_info is not None for result in schema_of(target).returns)


def _enclosed(
    around: Callable[[Sequence[Tensor], Callable[..., Sequence[Tensor]]], list[Tensor]],
    main: fx.GraphModule,
    examples: Sequence[Tensor],
) -> fx.GraphModule:
    """What `around` does, with the nodes of `main` where it calls its program: these are not traced again."""
    results = [node.meta["val"] for node in output_of(main.graph).args[0]]
    results = [torch.zeros(tuple(value.shape), dtype=value.dtype, device=value.device) for value in results]

    def apart(*flat: Tensor) -> list[Tensor]:
        given: list[Tensor] = []

        def program(*inputs: Tensor) -> Sequence[Tensor]:
            given.extend(inputs)
            return flat[len(examples) :]

        outputs = around(flat[: len(examples)], program)
        return [*given, *outputs]

    shell = _traced(apart, [*examples, *results])
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    nodes = list(shell.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    late = set(placeholders[len(examples) :])
    for node in nodes:
        if node in late or late.intersection(node.all_input_nodes):
            late.add(node)
        else:
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    num_given = sum(node.op == "placeholder" for node in main.graph.nodes)
    ends = list(output_of(shell.graph).args[0])
    inner: dict[fx.Node, fx.Node] = {}
    given = iter(ends[:num_given])
    for node in main.graph.nodes:
        if node.op == "placeholder":
            inner[node] = copies[next(given)]
        elif node.op != "output":
            inner[node] = graph.node_copy(node, lambda n: inner[n])
    for placeholder, node in zip(placeholders[len(examples) :], output_of(main.graph).args[0], strict=True):
        copies[placeholder] = inner[node]
    for node in nodes:
        if node in late and node.op not in ("placeholder", "output"):
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output([copies[end] for end in ends[num_given:]])
    return graph_module(shell, graph)


class _Taker:
    """Hands out the inputs of a step from left to right."""

    def __init__(self, flat: Sequence[Tensor]) -> None:
        self._flat = list(flat)

    def __call__(self, number: int) -> list[Tensor]:
        first, self._flat = self._flat[:number], self._flat[number:]
        return first

    def rest(self) -> list[Tensor]:
        return self(len(self._flat))


def _constants_as_inputs(module: fx.GraphModule) -> tuple[fx.GraphModule, list[Tensor]]:
    """Tensors that the graph holds become leading inputs; numbers that the program writes out become part of its text.

    A step then depends on no address and no data, so that a compiled one serves another process or data set. A tensor of one
    number that the program keeps is an input too, since others may write to it.
    """
    new = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    inputs: dict[str, fx.Node] = {}
    constants: list[Tensor] = []
    for node in module.graph.nodes:
        if node.op == "get_attr" and str(node.target) not in inputs:
            value = operator.attrgetter(str(node.target))(module)
            if value.dim() > 0 or any(user.target not in LITERAL for user in node.users):
                inputs[str(node.target)] = new.placeholder(f"constant_{len(constants)}")
                constants.append(value.detach())
    for node in module.graph.nodes:
        if node.op == "output":
            new.output(fx.map_arg(node.args[0], lambda n: copies[n]))
        elif node.op != "get_attr":
            copies[node] = new.node_copy(node, lambda n: copies[n])
        elif str(node.target) in inputs:
            copies[node] = inputs[str(node.target)]
        else:
            copies[node] = _number(new, operator.attrgetter(str(node.target))(module))
    return graph_module({}, new), constants


def _number(graph: fx.Graph, value: Tensor) -> fx.Node:
    options: dict[str, Any] = {"dtype": value.dtype, "device": value.device}
    return graph.call_function(aten.full.default, (list(value.shape), value.reshape(-1)[0].item()), options)


def _simplified(module: fx.GraphModule) -> fx.GraphModule:
    """Without what is computed twice, and without copies that nothing writes to."""
    for node in list(module.graph.nodes):
        if node.target in _IDENTITIES:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif node.op == "get_attr":  # the tracer keeps small numbers as tensors of the module
            value = getattr(module, str(node.target))
            if value.numel() != 1:
                raise CaptureError(f"a tensor of shape {tuple(value.shape)} was frozen into the step")
            with module.graph.inserting_before(node):
                number = _number(module.graph, value)
            node.replace_all_uses_with(number)
            module.graph.erase_node(node)
    without_repeats(module.graph)
    module.graph.eliminate_dead_code()
    return graph_module({}, module.graph)


_SAME = {aten.detach.default, aten.alias.default}
# Nothing is written in place any more, and nothing is differentiated.
_IDENTITIES = {*_SAME, aten.lift_fresh_copy.default, aten.lift_fresh.default}
_FILLED_ANEW = {aten.bernoulli_.float: aten.bernoulli.p, aten.normal_.default: aten.normal_functional.default}


def _written_back(module: fx.GraphModule, targets: range) -> fx.GraphModule:
    """With all results but the first copied into the inputs that they are the new values of."""
    module.graph.set_codegen(fx.graph.CodeGen())
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    output = output_of(module.graph)
    loss, *results = output.args[0]
    with module.graph.inserting_before(output):
        for index, result in zip(targets, results, strict=True):
            if result is not placeholders[index]:
                module.graph.call_function(aten.copy_.default, (placeholders[index], result))
    output.args = ((loss,),)
    module.recompile()
    return module
