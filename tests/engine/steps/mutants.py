"""Steps that are wrong in one thing: each mutation of a step's graph, or of what stands around it, by name."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import fx

__all__ = ["AROUND", "IN_GRAPH", "mutated"]

aten = torch.ops.aten

IN_GRAPH = {}  # name -> function of (graph, write to change, its other writes, rng), on a copy_ into a step's memory
AROUND = {}  # name -> function of (runner, memory, steps, rng): takes the steps wrongly


def in_graph(kind):
    """`kind`: which memory the mutation is of: value, state or buffer, or draws."""

    def register(function):
        IN_GRAPH[function.__name__] = (kind, function)
        return function

    return register


def around(function):
    AROUND[function.__name__] = function
    return function


def mutated(step, name, place, rng):
    """`step` with a mutation of the `place`-th thing of its kind; None where there is no such thing."""
    kind, function = IN_GRAPH[name]
    graph = copy.deepcopy(step.single.graph)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    num_values = len(step.groups)
    num_states = sum(len(group.rule.state) for group in step.groups)
    first = step.num_draws
    of_kind = {
        "draw": range(step.num_draws),
        "value": range(first, first + num_values),
        "state": range(first + num_values, first + num_values + num_states),
    }
    end = first + num_values + num_states
    buffers = [i for i in range(end, len(inputs)) if any(u.target is aten.copy_.default for u in inputs[i].users)]
    of_kind["buffer"] = buffers[: len(buffers) - step.checked]
    chosen = list(of_kind[kind])
    if place >= len(chosen):
        return None
    node = inputs[chosen[place]]
    if kind == "draw":
        example = step.examples[chosen[place]]
        if not function(graph, node, example, rng):
            return None
    else:
        write = next((u for u in node.users if u.target is aten.copy_.default and u.args[0] is node), None)
        if write is None:
            return None
        example = step.examples[chosen[place]]
        with graph.inserting_before(write):
            new = function(graph, node, write.args[1], example, rng)
        if new is None:
            return None
        write.args = (node, new)
    module = fx.GraphModule({}, graph)
    made = dataclasses.replace(step, single=module)
    made.__dict__["module"] = module
    return made


def call(graph, target, *arguments):
    return graph.call_function(target, arguments)


def moved(graph, old, new, factor):
    """The old value, moved `factor` times as far."""
    way = call(graph, aten.mul.Tensor, call(graph, aten.sub.Tensor, new, old), factor)
    return call(graph, aten.add.Tensor, old, way)


@in_graph("value")
def drop_an_update(graph, old, new, example, rng):
    return call(graph, aten.clone.default, old)


@in_graph("value")
def halve_an_update(graph, old, new, example, rng):
    return moved(graph, old, new, 0.5)


@in_graph("value")
def double_an_update(graph, old, new, example, rng):
    return moved(graph, old, new, 2.0)


@in_graph("value")
def a_tenth_more(graph, old, new, example, rng):
    return moved(graph, old, new, 1.1)


@in_graph("value")
def update_in_the_other_direction(graph, old, new, example, rng):
    return moved(graph, old, new, -1.0)


def at(graph, old, new, example, where):
    """`new` at some places, and `old` elsewhere."""
    mask = torch.zeros(example.shape, dtype=torch.bool)
    mask.view(-1)[where] = True
    if bool(mask.all()) or not bool(mask.any()):
        return None
    name = f"mask_{len(graph.nodes)}"
    node = call(graph, aten.gt.Scalar, fixed(graph, mask.float(), name), 0.5)
    return call(graph, aten.where.self, node, new, old)


def fixed(graph, tensor, name):
    """A constant, written out."""
    flat = [call(graph, aten.full.default, [1], value) for value in tensor.reshape(-1).tolist()]
    whole = call(graph, aten.cat.default, flat)
    return call(graph, aten.reshape.default, whole, list(tensor.shape))


@in_graph("value")
def drop_the_update_of_one_element(graph, old, new, example, rng):
    if not 1 < example.numel() <= 64:
        return None
    one = rng.randrange(example.numel())
    return at(graph, old, new, example, [i for i in range(example.numel()) if i != one])


@in_graph("value")
def drop_the_update_of_the_last_elements(graph, old, new, example, rng):
    if not 3 < example.numel() <= 64:
        return None
    return at(graph, old, new, example, list(range(example.numel() - example.numel() % 4 - (example.numel() % 4 == 0))))


@in_graph("value")
def swap_two_elements(graph, old, new, example, rng):
    if not 1 < example.numel() <= 64:
        return None
    order = list(range(example.numel()))
    one, two = rng.sample(order, 2)
    order[one], order[two] = two, one
    parts = [call(graph, aten.slice.Tensor, new, 0, i, i + 1) for i in order]
    return call(graph, aten.cat.default, parts)


@in_graph("value")
def shift_elements(graph, old, new, example, rng):
    return call(graph, aten.roll.default, new, [1], [0]) if example.numel() > 1 else None


@in_graph("value")
def round_to_half_precision(graph, old, new, example, rng):
    half = call(graph, aten._to_copy.default, new)
    half.kwargs = {"dtype": torch.float16}
    whole = call(graph, aten._to_copy.default, half)
    whole.kwargs = {"dtype": example.dtype}
    return whole


@in_graph("value")
def not_a_number_in_one_element(graph, old, new, example, rng):
    if not 1 < example.numel() <= 64:
        return None
    bad = call(graph, aten.full_like.default, new, float("nan"))
    one = rng.randrange(example.numel())
    return at(graph, bad, new, example, [i for i in range(example.numel()) if i != one])


@in_graph("state")
def drop_a_state(graph, old, new, example, rng):
    return call(graph, aten.clone.default, old)


@in_graph("state")
def halve_a_gradient_in_a_state(graph, old, new, example, rng):
    return moved(graph, old, new, 0.5)


@in_graph("state")
def reset_a_state(graph, old, new, example, rng):
    return call(graph, aten.zeros_like.default, new)


@in_graph("state")
def swap_two_elements_of_a_state(graph, old, new, example, rng):
    return swap_two_elements(graph, old, new, example, rng)


@in_graph("state")
def decay_a_state_once_more(graph, old, new, example, rng):
    return call(graph, aten.mul.Tensor, new, 0.9)


@in_graph("buffer")
def drop_a_buffer(graph, old, new, example, rng):
    return call(graph, aten.clone.default, old)


@in_graph("buffer")
def move_a_buffer_twice(graph, old, new, example, rng):
    return call(graph, aten.add.Tensor, new, call(graph, aten.sub.Tensor, new, old))


def replaced_use(graph, node, make):
    users = list(node.users)
    if not users:
        return False
    first = next(n for n in graph.nodes if n.op != "placeholder")
    with graph.inserting_before(first):
        new = make(node)
    for user in users:
        if user is not new:
            user.replace_input_with(node, new)
    return True


@in_graph("draw")
def shift_a_draw(graph, node, example, rng):
    if example.numel() < 2:
        return False
    flat = [example.numel()]

    def make(draw):
        rolled = call(graph, aten.roll.default, call(graph, aten.reshape.default, draw, flat), [1], [0])
        return call(graph, aten.reshape.default, rolled, list(example.shape))

    return replaced_use(graph, node, make)


@in_graph("draw")
def leave_out_a_draw(graph, node, example, rng):
    return replaced_use(graph, node, lambda draw: call(graph, aten.mul.Tensor, draw, 0.0))


@in_graph("draw")
def move_a_draw(graph, node, example, rng):
    return replaced_use(graph, node, lambda draw: call(graph, aten.add.Tensor, draw, 0.3))


@in_graph("draw")
def shrink_a_draw(graph, node, example, rng):
    return replaced_use(graph, node, lambda draw: call(graph, aten.mul.Tensor, draw, 0.9))


# --- around the graph: `steps(batches, number)` takes them rightly


@around
def one_step_too_few(runner, memory, steps, batches, number, rng):
    losses = steps(batches, number)
    before = memory.snapshot()
    memory.restore(dataclasses.replace(before, values=runner.before_last.values))
    return losses


@around
def a_loss_that_is_off(runner, memory, steps, batches, number, rng):
    return steps(batches, number) * (1 + 1e-3)


@around
def losses_in_the_other_order(runner, memory, steps, batches, number, rng):
    losses = steps(batches, number)
    return losses[::-1].copy() if len(losses) > 1 else losses + 1.0


@around
def counts_that_stand_still(runner, memory, steps, batches, number, rng):
    before = memory.snapshot().counts
    losses = steps(batches, number)
    memory.restore(dataclasses.replace(memory.snapshot(), counts=before))
    return losses if before else None


@around
def counts_that_run_ahead(runner, memory, steps, batches, number, rng):
    losses = steps(batches, number)
    after = memory.snapshot()
    memory.restore(dataclasses.replace(after, counts=tuple(count + 1 for count in after.counts)))
    return losses if after.counts else None


@around
def a_generator_left_behind(runner, memory, steps, batches, number, rng):
    before = memory.snapshot().generator
    losses = steps(batches, number)
    before.install()
    return losses


@around
def a_generator_ahead(runner, memory, steps, batches, number, rng):
    losses = steps(batches, number)
    torch.randn(1)
    return losses


@around
def a_draw_before_the_steps(runner, memory, steps, batches, number, rng):
    torch.randn(1)
    return steps(batches, number)


@around
def a_rate_that_stands_still(runner, memory, steps, batches, number, rng):
    before = memory.snapshot().rates
    losses = steps(batches, number)
    after = memory.snapshot()
    if [rate for rate, _ in after.rates] == [rate for rate, _ in before]:
        return None
    memory.restore(dataclasses.replace(after, rates=before))
    return losses


@around
def numbers_of_the_step_before(runner, memory, steps, batches, number, rng):
    """Bias corrections and rates are a step late."""
    coefficients, last = runner._memory.coefficients, []

    def late(count):
        made = coefficients(count)
        last.append(made)
        return coefficients_before if len(last) == 1 else last[-2]

    start = memory.snapshot()
    if not start.counts or min(start.counts) < 2:
        return None
    memory.restore(dataclasses.replace(start, counts=tuple(count - 1 for count in start.counts)))
    coefficients_before = coefficients(1)
    memory.restore(start)
    if (coefficients_before == coefficients(1)).all():
        memory.restore(start)
        return None
    memory.restore(start)
    runner._memory.coefficients = late
    try:
        return steps(batches, number)
    finally:
        del runner._memory.coefficients


@around
def two_parameters_swapped(runner, memory, steps, batches, number, rng):
    losses = steps(batches, number)
    by_size = {}
    for group, pieces in enumerate(memory.pieces.pieces):
        start = 0
        for _, size in pieces:
            by_size.setdefault(size, []).append((group, start))
            start += size
    pairs = [pair for pair in by_size.items() if len(pair[1]) > 1]
    if not pairs:
        return None
    size, places = pairs[rng.randrange(len(pairs))]
    (one, i), (two, j) = rng.sample(places, 2)
    a, b = memory.values[one][i : i + size], memory.values[two][j : j + size]
    held = a.clone()
    a.copy_(b)
    b.copy_(held)
    return losses
