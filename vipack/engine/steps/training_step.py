"""One whole training step as a graph: batch gathered, loss and gradients, the optimizer's update written in place."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from vipack.compat.pytorch import OpOverload, graph_module, overload_of, schema_of
from vipack.engine.capture.checks import LITERAL
from vipack.engine.capture.noise import LiftedGraph, copy_graph
from vipack.engine.capture.tracing import CaptureError, collecting_later
from vipack.engine.graph.common_subexpressions import without_repeats
from vipack.engine.graph.invariants import Invariants, checks_taken_out, taken_out
from vipack.engine.graph.step_graph import Feed, StepGraph
from vipack.engine.optimizers.parameter_groups import ParameterGroup
from vipack.program import Parameters, TorchState

__all__ = ["assemble"]

aten = torch.ops.aten


def assemble(
    lifted: LiftedGraph,
    groups: Sequence[ParameterGroup],
    buffers: Sequence[Tensor],
    feed: Feed,
    parameters: Parameters,
    order: Sequence[int],
    active: Sequence[bool],
    copies: int | None = None,
    *,
    keeping: bool = False,
) -> StepGraph:
    """Put gather, loss, gradients and update into one graph.

    Args:
        parameters: of the program, of whose type and on whose device the step computes.
        groups: hold every parameter once.
        order: for each parameter that `lifted` takes, its place among those of the groups.
        active: for each group, whether the step updates it.
        keeping: let a step in which Pyro would have raised leave everything as it was.
        copies: R, for R fits side by side: draws, values, states, buffers and the loss then have a leading dimension R,
            and all fits see the same batches but for the leaves of their own.
    """
    main, constants = _constants_as_inputs(lifted.module)
    num_draws, num_groups = len(lifted.draws), len(groups)
    width = sum(group.rule.width for group in groups)
    slots = [len(group.rule.state) for group in groups]
    num_places = sum(len(group.places) for group in groups)
    num_parameters = len(order)
    first_check = 1 + num_parameters + len(buffers)
    pure, before, num_invariants = _is_pure(main), None, 0
    if pure:
        without_repeats(main.graph)
        before = _invariants(main, constants, num_draws + num_parameters + len(buffers), feed, first_check)
    if before is not None:
        found = [value.contiguous() for value in before(feed.leaves)]
        constants, num_invariants = constants + found, len(found)
    checked = len(_output(main).args[0]) > first_check

    def around(flat: Sequence[Tensor], program: Callable[..., Sequence[Tensor]]) -> list[Tensor]:
        take = _Taker(flat)
        draws, values = take(num_draws), take(num_groups)
        states = [take(number) for number in slots]
        held, well, (row,), fixed, data, rows = (
            take(len(buffers)),
            take(int(checked)),
            take(1),
            take(len(constants)),
            take(len(feed.leaves)),
            take.rest(),
        )
        parts = _split(groups, values, num_places)
        batch = [v.index_select(0, rows[0]) if g else v for v, g in zip(data, feed.gathered, strict=True)]
        loss, *outputs = program(*fixed, *draws, *(parts[place] for place in order), *held, *batch, *rows)
        gradients = dict(zip(order, outputs[:num_parameters], strict=True))
        new_buffers, checks = outputs[num_parameters : first_check - 1], outputs[first_check - 1 :]
        new_values, new_states = [], []
        for group, updates, value, state in zip(groups, active, values, states, strict=True):
            if updates:
                numbers = [row[group.row + i] for i in range(group.rule.width)]
                value, state = group.rule.update(value, _gradient(group, gradients), state, numbers)
            new_values.append(value)
            new_states += state
        new = [*new_values, *new_states, *new_buffers]
        if checked:
            is_well = functools.reduce(torch.logical_and, checks)
            loss = torch.where(is_well, loss, torch.full_like(loss, math.nan))
            if keeping:
                old = [*values, *(vector for state in states for vector in state), *held]
                new = [
                    value if value is kept else torch.where(is_well, value, kept)
                    for value, kept in zip(new, old, strict=True)
                ]
            new.append(is_well.to(well[0].dtype))
        return [loss, *new]

    dtype, device = parameters.dtype, parameters.device
    first = [
        *(torch.zeros(draw.shape, dtype=draw.dtype, device=device) for draw in lifted.draws),
        *(torch.zeros(group.size, dtype=dtype, device=device) for group in groups),
        *(torch.zeros(group.size, dtype=dtype, device=device) for group in groups for _ in group.rule.state),
    ]
    if copies is not None:
        first = [value.expand(copies, *value.shape).clone() for value in first]
    separate = feed.own or (False,) * len(feed.leaves)
    common = [torch.zeros(width, dtype=dtype, device=device), *constants]
    rows = () if feed.indices is None else (feed.indices,)
    lead = () if copies is None else (copies,)
    kept = [*buffers, *([torch.ones(lead, dtype=dtype, device=device)] if checked else [])]
    examples = [*first, *kept, *common, *feed.leaves, *rows]
    several = (copies is not None,) * (len(first) + len(kept))
    own = (*several, *(False for _ in common), *separate, *(False for _ in rows))
    one = [value[0] if apart else value for value, apart in zip(examples, own, strict=True)]
    known = all(isinstance(node, fx.Node) and "val" in node.meta for node in _output(main).args[0])
    module = _enclosed(around, main, one) if known and pure else _traced(lambda *flat: around(flat, main), one)
    changed = range(num_draws, num_draws + num_groups + sum(slots) + len(kept))
    module = _simplified(module)
    together = None
    if copies is not None:
        unwritten = graph_module({}, copy_graph(module.graph))
        together = lambda: _written_back(_side_by_side(unwritten, own, examples), changed)  # noqa: E731
    single = _written_back(module, changed)
    return StepGraph(
        single,
        tuple(groups),
        tuple(constants),
        tuple(examples),
        own,
        num_draws,
        width,
        checked,
        together,
        before,
        num_invariants,
    )


def _invariants(
    main: fx.GraphModule, constants: Sequence[Tensor], num_between: int, feed: Feed, first_check: int
) -> Invariants | None:
    """Take out of `main` what depends on constants and steady leaves alone, checks among it."""
    steady = feed.steady or (False,) * len(feed.leaves)
    rows = () if feed.indices is None else (False,)
    known = (*(True for _ in constants), *(False for _ in range(num_between)), *steady, *rows)
    checks = checks_taken_out(main, known, first_check)
    program = taken_out(main, known, len(constants))
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
        module: fx.GraphModule = make_fx(pure, tracing_mode="fake", _allow_non_fake_inputs=True)(*examples)
    generators.install()
    return module


def _is_pure(module: fx.GraphModule) -> bool:
    """Let nothing in a graph be written in place, if that takes no more than another name of the operator."""
    place = {node: i for i, node in enumerate(module.graph.nodes)}
    for node in module.graph.nodes:
        if not isinstance(node.target, OpOverload) or not schema_of(node.target).is_mutable:
            continue
        written, pure = node.args[0], _without_writing(node.target)
        owned = written.op == "call_function" and not _may_alias(written.target)
        if pure is None or not owned or any(_may_alias(user.target) for user in written.users if user is not node):
            return False
        for user in [user for user in written.users if place[user] > place[node]]:
            user.replace_input_with(written, node)
        node.target = pure
    return True


def _without_writing(target: OpOverload) -> OpOverload | None:
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
    """What `around` does, with the nodes of `main` put where it calls its program: they need not be traced again."""
    results = [node.meta["val"] for node in _output(main).args[0]]
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
    ends = list(_output(shell).args[0])
    inner: dict[fx.Node, fx.Node] = {}
    given = iter(ends[:num_given])
    for node in main.graph.nodes:
        if node.op == "placeholder":
            inner[node] = copies[next(given)]
        elif node.op != "output":
            inner[node] = graph.node_copy(node, lambda n: inner[n])
    for placeholder, node in zip(placeholders[len(examples) :], _output(main).args[0], strict=True):
        copies[placeholder] = inner[node]
    for node in nodes:
        if node in late and node.op not in ("placeholder", "output"):
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output([copies[end] for end in ends[num_given:]])
    return graph_module(shell, graph)


def _output(module: fx.GraphModule) -> Any:
    return next(iter(reversed(module.graph.nodes)))


class _Taker:
    """Hands out the inputs of a step from left to right."""

    def __init__(self, flat: Sequence[Tensor]) -> None:
        self._flat = list(flat)

    def __call__(self, number: int) -> list[Tensor]:
        taken, self._flat = self._flat[:number], self._flat[number:]
        return taken

    def rest(self) -> list[Tensor]:
        return self(len(self._flat))


def _split(groups: Sequence[ParameterGroup], values: Sequence[Tensor], num_parameters: int) -> list[Tensor]:
    """The parameters in the layout's order and shapes, out of the groups' vectors."""
    parts: list[Any] = [None] * num_parameters
    for group, value in zip(groups, values, strict=True):
        pieces = value.split([shape.numel() for shape in group.shapes])
        for place, shape, piece in zip(group.places, group.shapes, pieces, strict=True):
            parts[place] = piece.reshape(shape)
    return parts


def _gradient(group: ParameterGroup, gradients: Mapping[int, Tensor]) -> Tensor:
    found = [gradients[place] for place in group.places]
    if group.clip is not None:
        found = [group.clip(gradient) for gradient in found]
    flat = [gradient.reshape(-1) for gradient in found]
    return torch.cat(flat) if len(flat) > 1 else flat[0]


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


# Nothing is written in place any more, and nothing is differentiated.
_IDENTITIES = {aten.detach.default, aten.alias.default, aten.lift_fresh_copy.default, aten.lift_fresh.default}


def _written_back(module: fx.GraphModule, targets: range) -> fx.GraphModule:
    """With all results but the first copied into the inputs that they are the new values of."""
    module.graph.set_codegen(fx.graph.CodeGen())
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    output = next(iter(reversed(module.graph.nodes)))
    loss, *results = output.args[0]
    with module.graph.inserting_before(output):
        for index, result in zip(targets, results, strict=True):
            if result is not placeholders[index]:
                module.graph.call_function(aten.copy_.default, (placeholders[index], result))
    output.args = ((loss,),)
    module.recompile()
    return module
