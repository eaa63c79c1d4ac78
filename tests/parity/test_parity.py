"""The same numbers in every tier, and those numbers are Pyro's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.parity.table import CASES
from tests.parity.tiers import STEPS, fitted, traced_with_gradients

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}  # relative, of losses and gradients

COMPILED = [name for name, case in CASES.items() if case.compiled]
LATER = [name for name, case in CASES.items() if not case.compiled]
DOUBLE = [name for name, case in CASES.items() if not case.single]


def assert_same_losses(fit, eager):
    tolerance = TOLERANCE[next(iter(fit.params.values())).dtype]
    assert len(fit.losses) == len(eager.losses) == STEPS
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=tolerance, atol=tolerance)


def assert_same_gradients(ours, theirs, tolerance):
    assert ours.loss == pytest.approx(theirs.loss, rel=tolerance)
    assert set(ours.gradients) >= set(theirs.gradients)
    largest = max(float(gradient.abs().max()) for gradient in theirs.gradients.values())
    assert largest > 0
    for name, gradient in theirs.gradients.items():
        torch.testing.assert_close(ours.gradients[name], gradient, rtol=tolerance, atol=tolerance * largest, msg=name)


def test_the_table_is_wide_enough():
    assert len(CASES) >= 40
    assert len(COMPILED) >= 12


@pytest.mark.parametrize("name", CASES)
def test_the_captured_graph_takes_pyros_steps(name):
    fit, pairs = traced_with_gradients(name)
    assert fit.engine.reason == ""
    assert fit.engine.tier == "traced"
    assert fit.engine.steps["traced"] >= STEPS - 10
    assert_same_losses(fit, fitted(name, "eager"))
    assert pairs
    for ours, theirs in pairs:
        dtype = next(iter(theirs.gradients.values())).dtype
        assert_same_gradients(ours, theirs, TOLERANCE[dtype])


@pytest.mark.parametrize("name", COMPILED)
def test_the_compiled_loop_takes_pyros_steps(name):
    assert_compiled(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LATER)
def test_the_compiled_loop_takes_pyros_steps_elsewhere_too(name):
    assert_compiled(name)


def assert_compiled(name):
    fit = fitted(name, "compiled")
    if CASES[name].loop:
        assert fit.engine.reason == ""
    assert fit.engine.tier == "compiled"
    assert fit.engine.steps["compiled"] >= STEPS - 10
    assert_same_losses(fit, fitted(name, "eager"))


@pytest.mark.slow
@pytest.mark.parametrize("name", DOUBLE)
def test_only_rounding_parts_the_tiers(name):
    """In double precision, nothing of what single precision may hide is left."""
    fit = fitted(name, "traced", double=True)
    assert fit.engine.tier == "traced"
    assert fit.params[next(iter(fit.params))].dtype == torch.float64
    assert_same_losses(fit, fitted(name, "eager", double=True))
