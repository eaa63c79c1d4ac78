"""The same numbers in every tier, and those numbers are Pyro's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.parity.table import CASES
from tests.parity.tiers import STEPS, captured, fit, fitted

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}  # relative, of losses and gradients

NATIVE = [name for name, case in CASES.items() if case.native]
COMPILED = [name for name, case in CASES.items() if case.compiled]
LATER = [
    (name, engine)
    for engine, now in [("interpreted", NATIVE), ("compiled", COMPILED)]
    for name in CASES
    if name not in now
]
DOUBLE = [name for name, case in CASES.items() if not case.single]


def test_the_table_is_wide_enough():
    assert len(CASES) >= 40
    assert len(NATIVE) >= 12
    assert len(COMPILED) >= 3


@pytest.mark.parametrize("name", CASES)
def test_the_captured_graph_takes_pyros_steps(name):
    assert_tier(name, "traced")


@pytest.mark.parametrize("name", CASES)
def test_the_captured_graph_has_pyros_gradients(name):
    steps = captured(name)[1]
    assert steps
    for _, ours, theirs in steps:
        assert_same_gradients(ours, theirs)


@pytest.mark.parametrize("name", NATIVE)
def test_the_interpreter_takes_pyros_steps(name):
    assert_tier(name, "interpreted")


@pytest.mark.parametrize("name", COMPILED)
def test_the_compiled_loop_takes_pyros_steps(name):
    assert_tier(name, "compiled")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "engine"), LATER)
def test_native_code_takes_pyros_steps_elsewhere_too(name, engine):
    assert_tier(name, engine)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOUBLE)
def test_only_rounding_parts_the_tiers(name):
    """In double precision, nothing of what single precision may hide is left."""
    ours = fit(name, "traced", double=True)
    assert ours.engine.tier == "traced"
    assert_same_losses(ours, fit(name, "eager", double=True))


def assert_tier(name, engine):
    ours = fitted(name, engine)
    if engine not in CASES[name].without:
        assert ours.engine.reason == ""
        assert ours.engine.tier == engine
        assert ours.engine.steps[engine] >= STEPS - 10
    assert_same_losses(ours, fitted(name, "eager"))


def assert_same_losses(ours, eager):
    tolerance = TOLERANCE[next(iter(ours.params.values())).dtype]
    assert len(ours.losses) == len(eager.losses) == STEPS
    np.testing.assert_allclose(ours.losses, eager.losses, rtol=tolerance, atol=tolerance)


def assert_same_gradients(ours, theirs):
    tolerance = TOLERANCE[next(iter(theirs.gradients.values())).dtype]
    assert ours.loss == pytest.approx(theirs.loss, rel=tolerance)
    largest = max(float(gradient.abs().max()) for gradient in theirs.gradients.values())
    assert largest > 0
    for name, gradient in theirs.gradients.items():
        torch.testing.assert_close(ours.gradients[name], gradient, rtol=tolerance, atol=tolerance * largest, msg=name)
