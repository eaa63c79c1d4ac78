"""Rates taken many at a time are those that the schedule gives one by one, and the schedule stands where it should."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch.optim import lr_scheduler

from vipack.engine.optimizers.fit_optimizer import default_optimizer
from vipack.engine.optimizers.rates import Rates

SCHEDULES = {
    "none": lambda optimizer: None,
    "exponential": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9),
    "steps": lambda optimizer: lr_scheduler.StepLR(optimizer, 3, 0.5),
    "a function": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "a cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 10),
    "a sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 3), lr_scheduler.ExponentialLR(optimizer, 0.9)],
        milestones=[4],
    ),
}


def made(name):
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.zeros(2)
    if name == "clipped Adam":
        return ClippedAdam([parameter], lr=0.1, lrd=0.9), None
    if name == "the default":
        return default_optimizer(20)([parameter])
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    return optimizer, SCHEDULES[name](optimizer)


def one_by_one(name, number):
    optimizer, scheduler = made(name)
    rates = []
    for _ in range(number):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if isinstance(optimizer, ClippedAdam):
            rates[-1] = optimizer.param_groups[0]["lr"]  # it decays before it steps
    return rates


@pytest.mark.parametrize("name", [*SCHEDULES, "clipped Adam", "the default"])
def test_rates_are_those_of_single_steps(name):
    optimizer, scheduler = made(name)
    if not isinstance(optimizer, ClippedAdam):
        optimizer.step()
    rates = Rates(optimizer, optimizer.param_groups[0], scheduler)
    found = np.concatenate([rates.take(5), rates.take(1), rates.take(7)])
    np.testing.assert_allclose(found, one_by_one(name, 13), rtol=1e-12)


@pytest.mark.parametrize("name", [*SCHEDULES, "clipped Adam", "the default"])
def test_a_state_is_gone_back_to(name):
    optimizer, scheduler = made(name)
    if not isinstance(optimizer, ClippedAdam):
        optimizer.step()
    rates = Rates(optimizer, optimizer.param_groups[0], scheduler)
    rates.take(3)
    state = copy.deepcopy(rates.state())
    expected = rates.take(6)
    rates.restore(state)
    np.testing.assert_array_equal(rates.take(6), expected)


def test_a_schedule_that_goes_by_losses_is_asked_step_by_step():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    rates = Rates(
        optimizer, optimizer.param_groups[0], lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    )
    assert rates.one_by_one
    for loss, rate in [(1.0, 0.1), (2.0, 0.1), (3.0, 0.05)]:
        assert rates.take(1).tolist() == [rate]
        rates.look(loss)
