"""Rates taken many at a time are those that the schedule gives one by one, and the schedule stands where it should."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch.optim import lr_scheduler

from vipack.engine.optimizers.default_optimizer import DefaultOptimizer
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


SIZES = (0.1, 0.03)  # learning rates of two groups, where there are two


def made(name, num_groups=1):
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(num_groups)]
    for parameter in parameters:
        parameter.grad = torch.zeros(2)
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(parameters, SIZES, strict=False)]
    if name == "clipped Adam":
        return ClippedAdam(groups, lrd=0.9), None
    if name == "the default":
        return DefaultOptimizer(20, network_weights=lambda: parameters[1:])(parameters)
    optimizer = torch.optim.SGD(groups, lr=0.1)
    return optimizer, SCHEDULES[name](optimizer)


def one_by_one(name, number, num_groups):
    optimizer, scheduler = made(name, num_groups)
    rates = []
    for _ in range(number):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if isinstance(optimizer, ClippedAdam):
            rates[-1] = [group["lr"] for group in optimizer.param_groups]  # it decays before it steps
    return np.array(rates)


def taken(rates, optimizer, number):
    by_group = rates.take(number)
    return np.stack([by_group[id(group)] for group in optimizer.param_groups], axis=1)


@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("name", [*SCHEDULES, "clipped Adam", "the default"])
def test_rates_are_those_of_single_steps(name, num_groups):
    optimizer, scheduler = made(name, num_groups)
    if not isinstance(optimizer, ClippedAdam):
        optimizer.step()
    rates = Rates(optimizer, scheduler)
    found = np.concatenate([taken(rates, optimizer, number) for number in (5, 1, 7)])
    np.testing.assert_allclose(found, one_by_one(name, 13, num_groups), rtol=1e-12)


@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("name", [*SCHEDULES, "clipped Adam", "the default"])
def test_a_state_is_gone_back_to(name, num_groups):
    optimizer, scheduler = made(name, num_groups)
    if not isinstance(optimizer, ClippedAdam):
        optimizer.step()
    rates = Rates(optimizer, scheduler)
    rates.take(3)
    state = copy.deepcopy(rates.state())
    expected = taken(rates, optimizer, 6)
    rates.restore(state)
    np.testing.assert_array_equal(taken(rates, optimizer, 6), expected)


def test_a_schedule_that_goes_by_losses_is_asked_step_by_step():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    rates = Rates(optimizer, lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5))
    assert rates.one_by_one
    for loss, rate in [(1.0, 0.1), (2.0, 0.1), (3.0, 0.05)]:
        assert taken(rates, optimizer, 1).tolist() == [[rate]]
        rates.look(loss)
