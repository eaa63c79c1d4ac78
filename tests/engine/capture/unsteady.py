"""Programs that one graph cannot repeat: each maker gives a fresh model, guide and options for ``vipack.fit``.

The models share one shape: data y around a latent z, and something in between that leaves torch.
"""

from __future__ import annotations

import itertools
import math
import random
import time

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from torch import nn
from torch.distributions import constraints

Y = torch.tensor([0.3, -0.8, 1.9, 0.4, 1.1])


def guide(y):
    loc = pyro.param("loc", torch.tensor(0.2))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    pyro.sample("z", dist.Normal(loc, scale))


def around(weight):
    """A model whose prior has the weight that `weight` makes of z."""

    def model(y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(weight(z) * z, 1.0), obs=y)

    return {"model": model, "guide": guide, "data": Y}


# --- values that leave torch


def branch():
    return around(lambda z: 1.0 if z > 0.3 else 0.5)


def item():
    return around(lambda z: math.exp(0.1 * z.item()))


def as_float():
    return around(lambda z: 1.0 + abs(float(z.detach())))


def through_numpy():
    return around(lambda z: 1.0 + float(np.abs(z.detach().numpy())))


def through_a_list():
    return around(lambda z: math.exp(0.1 * z.reshape(1).tolist()[0]))


def while_loop():
    def weight(z):
        total, value = 1.0, z.detach()
        while value < 2.0:
            total, value = total + 0.1, value + 0.7
        return total

    return around(weight)


def loop_of_random_length():
    return around(lambda z: sum(0.3 for _ in range(int(dist.Poisson(2.0).sample()))) + 1.0)


# --- randomness outside of torch's generator


def python_random():
    return around(lambda z: random.random())


def numpy_random():
    return around(lambda z: float(np.random.uniform()))  # noqa: NPY002


def own_python_generator():
    generator = random.Random(0)
    return around(lambda z: generator.random())


def own_numpy_generator():
    generator = np.random.default_rng(0)
    return around(lambda z: float(generator.uniform()))


def own_torch_generator():
    generator = torch.Generator().manual_seed(0)
    return around(lambda z: torch.rand((), generator=generator))


# --- state that goes on in Python


def counter():
    """KL annealing, as many people write it."""
    calls = 0

    def weight(z):
        nonlocal calls
        calls += 1
        return min(1.0, calls / 40)

    return around(weight)


def late_counter():
    """The graphs of two steps are the same, those of the first and the thirtieth are not."""
    state = {"calls": 0}

    def weight(z):
        state["calls"] += 1
        return 1.0 if state["calls"] < 30 else 0.5

    return around(weight)


def nested_counter():
    state = {"inner": {"calls": [0]}}

    def weight(z):
        state["inner"]["calls"][0] += 1
        return 1.0 / state["inner"]["calls"][0]

    return around(weight)


def growing_list():
    seen = []

    def weight(z):
        seen.append(None)
        return 1.0 / len(seen)

    return around(weight)


GLOBAL_WEIGHT = 1.0


def changed_global():
    global GLOBAL_WEIGHT
    GLOBAL_WEIGHT = 1.0

    def weight(z):
        global GLOBAL_WEIGHT
        GLOBAL_WEIGHT *= 0.98
        return GLOBAL_WEIGHT

    return around(weight)


class Warming(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.beta = 0.1

    def forward(self, z):
        self.beta = min(1.0, self.beta + 0.01)
        return self.beta


def module_attribute():
    return around(Warming())


class Shared:
    calls = 0

    @classmethod
    def weight(cls, z):
        cls.calls += 1
        return 1.0 / cls.calls


def class_attribute():
    Shared.calls = 0
    return around(Shared.weight)


def mutable_default():
    def weight(z, cache=[]):  # noqa: B006
        cache.append(0)
        return 1.0 / len(cache)

    return around(weight)


def iterator():
    weights = itertools.count(1)
    return around(lambda z: 1.0 / next(weights))


def array():
    weights = np.ones(1)

    def weight(z):
        weights[0] *= 0.98
        return float(weights[0])

    return around(weight)


class Average(nn.Module):
    """A running mean that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.tensor(1.0)

    def forward(self, z):
        self.mean = 0.9 * self.mean + 0.1 * z.detach()
        return self.mean


def replaced_tensor():
    return around(Average())


def written_tensor():
    steps = torch.zeros(())

    def weight(z):
        steps.add_(1.0)
        return steps.clamp(max=40.0) / 40

    return around(weight)


def clock():
    start = time.perf_counter()

    def weight(z):
        # Whole days, so that the runs of a test agree.
        return 1.0 + (time.perf_counter() - start) // 86_400

    return around(weight)


class Counted(torch.autograd.Function):
    calls = 0

    @staticmethod
    def forward(ctx, z):
        Counted.calls += 1
        return z / Counted.calls

    @staticmethod
    def backward(ctx, gradient):
        return gradient / Counted.calls


def autograd_function():
    Counted.calls = 0
    return around(Counted.apply)


class Annealed(Trace_ELBO):
    """An objective that counts its own steps."""

    calls = 0

    def loss_and_grads(self, model, guide, *args, **kwargs):
        self.calls += 1
        return super().loss_and_grads(
            pyro.poutine.scale(model, scale=min(1.0, self.calls / 40)), guide, *args, **kwargs
        )


def objective():
    return {**around(lambda z: 1.0), "loss": Annealed()}


def decaying_baseline():
    def model(y):
        k = pyro.sample("k", dist.Bernoulli(0.4))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(2.0 * k - 1.0, 1.0), obs=y)

    def discrete(y):
        baseline = {"use_decaying_avg_baseline": True, "baseline_beta": 0.9}
        pyro.sample("k", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.0))), infer={"baseline": baseline})

    return {"model": model, "guide": discrete, "data": Y, "loss": TraceGraph_ELBO()}


# maker -> what the reason must say
WAYS = [branch, while_loop, loop_of_random_length]  # that are captured, each way by itself
VALUES = {
    item: "a number that changes with every step is read from a tensor (unsteady.py:",
    as_float: "a number that changes with every step is read from a tensor (unsteady.py:",
    through_numpy: "a number that changes with every step is read from a tensor (unsteady.py:",
    through_a_list: "a number that changes with every step is read from a tensor (unsteady.py:",
    decaying_baseline: "a decaying average of costs",
}
DRAWS = {
    python_random: "Python's or NumPy's generator",
    numpy_random: "Python's or NumPy's generator",
    own_python_generator: "'generator'",
    own_numpy_generator: "'generator'",
    own_torch_generator: "torch.Generator",
}
STATE = {
    counter: "'calls'",
    late_counter: "'state'",
    nested_counter: "'state'",
    growing_list: "'seen'",
    changed_global: "'GLOBAL_WEIGHT'",
    module_attribute: "beta'",
    class_attribute: "calls'",
    mutable_default: "default of weight",
    iterator: "iterator",
    array: "'weights'",
    replaced_tensor: "mean'",
    written_tensor: "'steps'",
    clock: "clock",
    autograd_function: "Counted.calls'",
    objective: "calls'",
}
