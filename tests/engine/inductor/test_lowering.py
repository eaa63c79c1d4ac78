"""Loops over many rows of a few numbers are vectorized over the rows, and compute nothing small again for each row."""

from __future__ import annotations

import re

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from vipack.engine.inductor import lowering
from vipack.engine.inductor.plan import read_plan


def lowered(function, *examples):
    return lowering.lower(make_fx(function)(*examples), examples, 1)


def loops(code):
    return [int(size) for size in re.findall(r"<static_cast<int64_t>\((\d+)L\); x\d\+=", code)]


def responsibilities(y, loc, scale):
    """What each component of a mixture gets of every row, the components along the last dimension."""
    each = -((y[:, None] - loc) ** 2) / scale
    shares = each.exp() / each.exp().sum(-1, keepdim=True)
    return (shares * y[:, None]).sum(0), (shares * each).sum(0)


def test_rows_of_three_numbers_lie_column_by_column():
    code = lowered(responsibilities, torch.randn(500), torch.randn(3), torch.rand(3))
    assert "transpose_mxn" not in code
    assert not re.search(r"x0<static_cast<int64_t>\(500L\); x0\+=static_cast<int64_t>\(1L\)", code)  # one by one


def weighed(y, z):
    """Stick-breaking weights of three components, used at every row."""
    sticks = z.sigmoid().clamp(1e-6, 1 - 1e-6)
    weights = torch.stack([sticks[0], sticks[1] * (1 - sticks[0]), (1 - sticks[0]) * (1 - sticks[1])])
    return (y[None, :] * (weights / weights.sum()).clamp(1e-6, 1.0)[:, None]).cos().sum()


def test_what_is_small_is_kept_for_many_rows(monkeypatch):
    examples = torch.randn(500), torch.randn(2)
    kept = lowered(weighed, *examples)
    monkeypatch.setattr(lowering, "_MANY", 1 << 30)
    assert len(loops(kept)) > len(loops(lowered(weighed, *examples)))


@pytest.mark.parametrize(("size", "apart"), [(8, False), (5_000, True)])
def test_many_numbers_are_turned_round_by_the_library(size, apart):
    code = lowered(lambda x: x.flip(1) * x.exp(), torch.randn(3, size))
    assert ("aten.flip" in code) is apart


def test_a_graph_is_lowered_alike_whatever_was_lowered_before():
    """One process compiles one step after another."""
    examples = torch.randn(500), torch.randn(2)

    def plan():
        return read_plan(lowered(weighed, *examples), [("float32", (500,), (1,)), ("float32", (2,), (1,))])

    first = plan()
    lowered(responsibilities, torch.randn(400), torch.randn(3), torch.rand(3))
    assert plan() == first
