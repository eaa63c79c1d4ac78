"""Operations over the same rows are joined into loops over blocks of rows, and give what they gave one by one."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from tests.engine.interpreter.interpreted import run
from tests.engine.interpreter.test_random_graphs import check, evaluated, programs
from vipack.engine.compiled import compiler
from vipack.engine.interpreter import blocks
from vipack.engine.interpreter.bound_program import InterpretedStep, kernels_of
from vipack.engine.interpreter.source import KERNELS
from vipack.engine.interpreter.translate import translate
from vipack.engine.native.operations import LoopSpec

ROWS, COLUMNS = 100, 300
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


def written(folder, step, inputs):
    """The program of a step that writes to its inputs."""
    module = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    return translate(module, kernels_of(folder / KERNELS))


def run_in_place(folder, step, inputs, times=1):
    inputs = [value.clone() for value in inputs]
    program = written(folder, step, inputs)
    native = InterpretedStep(program, folder / KERNELS, compiler.bridge(), LoopSpec((), ()), inputs)
    for _ in range(times):
        native([], np.empty(1))
    return inputs, program


def loops(program):
    return [line for line in program.operations if line.kernel == "blocks"]


def agree(folder, function, *inputs):
    found, _ = run(folder, function, inputs)
    for got, wanted in zip(found, function(*inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_an_optimizer_is_one_loop_that_needs_a_block_for_each_of_its_tensors(folder):
    torch.manual_seed(0)
    p, g, m, v = (torch.rand(100_000, dtype=torch.float64) for _ in range(4))

    def step(p, g, m, v):
        gradient = 2 * g
        mean, square = m + 0.1 * (gradient - m), 0.9 * v + 0.1 * gradient * gradient
        new = p - 0.01 * mean / (square.sqrt() + 1e-8)
        p.copy_(new)
        m.copy_(mean)
        v.copy_(square)
        return [new.sum()]

    ours, program = run_in_place(folder, step, [p, g, m, v], times=3)
    theirs = [value.clone() for value in (p, g, m, v)]
    for _ in range(3):
        step(*theirs)
    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
    (loop,) = loops(program)
    assert loop.extra[1] == 100_000
    large = [size for size in program.buffers if size >= p.nbytes]
    buffers = {
        line.out.base.index for line in program.operations if line.out is not None and line.out.base.kind == "buffer"
    }
    assert sum(program.buffers[index] >= p.nbytes for index in buffers) == 1, "all but the sum's argument lie in blocks"
    assert large


def test_rows_columns_and_numbers_broadcast(folder):
    x, row, column = torch.randn(ROWS, COLUMNS).double(), torch.randn(COLUMNS).double(), torch.randn(ROWS, 1).double()

    def chain(x, row, column):
        y = (x * row + column).tanh()
        shares = (y - y.mean(-1, keepdim=True)).softmax(-1)
        total = (shares * x).sum(-1, keepdim=True)
        return [y, shares, total, (shares + total.abs()).log() * column, y.sum(0), y.t().exp(), (y > 0).double() * 2]

    agree(folder, chain, x, row, column)


def test_what_is_read_in_other_rows_is_read_whole(folder):
    x = torch.randn(ROWS, ROWS, 9).double()
    agree(folder, lambda x: [(y := x.exp()) + y.transpose(0, 1), y.flip(0) * y, y[1:] - y[:-1], y + y[0]], x)


def test_a_matrix_and_its_transpose_are_not_in_one_loop(folder):
    agree(folder, lambda x: [(y := x.exp()) + y.t()], torch.randn(200, 200).double())


@pytest.mark.parametrize("late", [False, True])
def test_a_clone_is_left_out_unless_it_is_read_after_its_source_is_written(folder, late):
    p, q = torch.randn(20_000).double(), torch.randn(20_000).double()

    def step(p, q):
        old = p.clone()
        shifted = old.roll(1) + q
        p.copy_(old * 2 + q)
        q.copy_(shifted + old if late else shifted)
        return [shifted.sum()]

    ours, program = run_in_place(folder, step, [p, q])
    step(p, q)
    for got, wanted in zip(ours, (p, q), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    copies = [line for line in program.operations if line.kernel == "copy_f64_f64" and line.out.base.kind == "buffer"]
    assert len(copies) == int(late)


def test_statistics_that_batch_norm_writes_are_copied_first(folder):
    x, mean, var = torch.randn(ROWS, 200).double(), torch.zeros(200).double(), torch.ones(200).double()
    weight, bias = torch.ones(200).double(), torch.zeros(200).double()

    def step(x, mean, var, weight, bias):
        before, spread = mean.clone(), var.clone()
        normal = torch.ops.aten.native_batch_norm.default(x, weight, bias, before, spread, True, 0.1, 1e-5)[0]
        difference = before - mean
        mean.copy_(before)
        var.copy_(spread)
        return [(normal * difference).sum()]

    ours, _ = run_in_place(folder, step, [x, mean, var, weight, bias])
    normal = torch.nn.functional.batch_norm(x, mean, var, weight, bias, True, 0.1, 1e-5)
    assert normal.abs().max() > 0
    torch.testing.assert_close(ours[1], mean)
    torch.testing.assert_close(ours[2], var)


def test_calls_that_draw_stay_in_order(folder):
    p, noise = torch.full((20_000,), 0.5).double(), torch.zeros(20_000).double()

    def step(p, noise):
        first, second = torch.bernoulli(p), torch.bernoulli(p * 0.9)
        noise.copy_(second - 2 * first)
        return [first.sum()]

    torch.manual_seed(1)
    (_, ours), _ = run_in_place(folder, step, [p, noise])
    torch.manual_seed(1)
    step(p, noise)
    assert torch.equal(ours, noise)


def test_what_repeats_itself_is_computed_once(folder):
    theta, x = torch.rand(COLUMNS).double() + 0.5, torch.rand(ROWS, COLUMNS).double()

    def function(theta, x):
        wide = theta.expand(ROWS, COLUMNS)
        return [torch.lgamma(wide) + x, (wide.exp() * 2).t().reshape(-1), torch.digamma(wide).sum(0)]

    agree(folder, function, theta, x)
    program = written(folder, lambda theta, x: [function(theta, x)[0].sum()], [theta, x])
    (line,) = (line for line in program.operations if line.kernel == "lgamma_f64")
    assert line.size == (COLUMNS,)


def test_small_tensors_stay_as_they_are(folder):
    x = torch.randn(30).double()
    assert not loops(written(folder, lambda x: [(x.exp() + x).tanh().sum()], [x]))


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_FEWEST", 2)
    monkeypatch.setattr(blocks, "_NUMBERS", 3)


@settings(max_examples=60, **QUIET)
@given(program=programs(), seed=st.integers(0, 10))
def test_random_graphs_in_blocks_of_three_numbers(folder, small_blocks, program, seed):
    check(folder, program, seed)


@pytest.mark.slow
@settings(max_examples=1_000, **QUIET)
@given(program=programs(), seed=st.integers(0, 10_000))
def test_many_random_graphs_in_blocks_of_three_numbers(folder, small_blocks, program, seed):
    check(folder, program, seed)


@settings(max_examples=60, **QUIET)
@given(program=programs(), seed=st.integers(0, 10), order=st.permutations(range(3)))
def test_random_graphs_that_write_to_their_inputs(folder, small_blocks, program, seed, order):
    kinds, steps = program
    torch.manual_seed(seed)
    inputs = [torch.randn(shape, dtype=torch.float64) for shape, _ in kinds]

    def step(*flat):
        results = evaluated(steps, flat)
        new = [next(r for r in reversed(results) if r.shape == x.shape and r.dtype == x.dtype) + 1 for x in flat]
        loss = results[-1].double().sum()
        for number in (n for n in order if n < len(flat)):
            flat[number].copy_(new[number])
        return [loss]

    ours, _ = run_in_place(folder, step, inputs)
    step(*inputs)
    for got, wanted in zip(ours, inputs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=2e-4, atol=2e-4)
