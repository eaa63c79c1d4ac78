"""Update rules written as arithmetic move parameters as the optimizers do, and hand their state back to them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch.optim import SGD, Adagrad, Adam, Adamax, AdamW, RMSprop

from vipack.engine.optimizers.rates import Rates
from vipack.engine.optimizers.update_rules import rule_of

STEPS = 12
OPTIMIZERS = {
    "Adam": partial(Adam, lr=0.1),
    "Adam with decay": partial(Adam, lr=0.1, weight_decay=0.3),
    "Adam with other betas": partial(Adam, lr=0.1, betas=(0.5, 0.7), eps=1e-3),
    "AMSGrad": partial(Adam, lr=0.1, amsgrad=True),
    "AdamW": partial(AdamW, lr=0.1, weight_decay=0.3),
    "Adam, decoupled": partial(Adam, lr=0.1, weight_decay=0.3, decoupled_weight_decay=True),
    "ClippedAdam": partial(ClippedAdam, lr=0.1, clip_norm=0.5, lrd=0.9),
    "ClippedAdam, centred": partial(ClippedAdam, lr=0.1, centered_variance=True, weight_decay=0.1),
    "SGD": partial(SGD, lr=0.1),
    "SGD with momentum": partial(SGD, lr=0.1, momentum=0.9),
    "SGD, dampened": partial(SGD, lr=0.1, momentum=0.9, dampening=0.4),
    "SGD, Nesterov": partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.2),
    "RMSprop": partial(RMSprop, lr=0.1),
    "RMSprop, centred": partial(RMSprop, lr=0.1, centered=True, alpha=0.8),
    "RMSprop with momentum": partial(RMSprop, lr=0.1, momentum=0.9, weight_decay=0.2),
    "RMSprop with both": partial(RMSprop, lr=0.1, momentum=0.9, centered=True),
    "Adagrad": partial(Adagrad, lr=0.1, lr_decay=0.1),
    "Adagrad, started": partial(Adagrad, lr=0.1, initial_accumulator_value=0.5, weight_decay=0.2),
}


def gradients():
    generator = torch.Generator().manual_seed(0)
    # The first element gets no gradient at all.
    return torch.randn(STEPS, 5, generator=generator, dtype=torch.float64) * torch.tensor([0.0, 1e-6, 0.1, 1.0, 50.0])


def start():
    return torch.nn.Parameter(torch.linspace(-1.0, 1.0, 5, dtype=torch.float64))


def by_optimizer(name):
    parameter = start()
    optimizer = OPTIMIZERS[name]([parameter])
    seen = []
    for gradient in gradients():
        parameter.grad = gradient.clone()
        optimizer.step()
        seen.append(parameter.detach().clone())
    return torch.stack(seen), optimizer.state[parameter]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rule_takes_its_optimizers_steps(name):
    expected, state = by_optimizer(name)
    parameter = start()
    optimizer = OPTIMIZERS[name]([parameter])
    rule = rule_of(optimizer, optimizer.param_groups[0])
    rates = Rates(optimizer, None).take(STEPS)[id(optimizer.param_groups[0])]
    rows = torch.from_numpy(np.concatenate([rule.coefficients(0, rates[:5]), rule.coefficients(5, rates[5:])]))
    assert rows.shape == (STEPS, rule.num_coefficients)
    value = parameter.detach().clone()
    held = [torch.full_like(value, first) for first in rule.first]
    for row, gradient, reached in zip(rows, gradients(), expected, strict=True):
        value, held = rule.update(value, gradient, held, list(row))
        torch.testing.assert_close(value, reached, rtol=1e-12, atol=1e-14)
    assert set(rule.state) <= set(state)
    for key, own in zip(rule.state, held, strict=True):
        torch.testing.assert_close(own, state[key], rtol=1e-12, atol=1e-14, msg=key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_other_options_are_another_rule(name):
    def key(**options):
        optimizer = OPTIMIZERS[name]([start()], **options)
        return rule_of(optimizer, optimizer.param_groups[0]).key

    assert key() == key(lr=0.2)  # rates are numbers of the row
    assert key() != key(weight_decay=0.77)


def test_what_is_not_known_has_no_rule():
    for optimizer in (
        Adamax([start()]),
        Adam([start()], maximize=True),
        Adam([start()], lr=torch.tensor(0.1)),
        Adam([start()], differentiable=True),
    ):
        assert rule_of(optimizer, optimizer.param_groups[0]) is None


def test_a_subclass_may_do_anything_and_has_no_rule():
    class Mine(Adam):
        pass

    optimizer = Mine([start()])
    assert rule_of(optimizer, optimizer.param_groups[0]) is None


def test_a_clipped_adam_of_an_older_pyro_has_the_rule_without_centring():
    optimizer = OPTIMIZERS["ClippedAdam"]([start()])
    group = optimizer.param_groups[0]
    older = {name: value for name, value in group.items() if name != "centered_variance"}
    assert rule_of(optimizer, older).key == rule_of(optimizer, group).key
