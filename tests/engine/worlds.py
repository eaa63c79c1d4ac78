"""What a user may do between steps of an SVI object, as acts on a world of their own: programs, data, optimizer, settings.

Two worlds that are made alike and acted on alike, one with ``pyro.infer.SVI`` and one with ``vipack.SVI``, must stay alike.
"""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

__all__ = ["ACTS", "World", "outcome"]

ROWS = 12


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3, bias=False)  # with one, nothing but rounding would move it
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.3)
        self.outer = nn.Linear(3, 1)

    def forward(self, x):
        return self.outer(self.drop(torch.tanh(self.norm(self.inner(x))))).squeeze(-1)


class World:
    """Everything that the acts change."""

    def __init__(self, make, optim="adam", **options) -> None:
        pyro.clear_param_store()
        pyro.set_rng_seed(11)
        os.environ["VIPACK_TEST_SHIFT"] = "0.0"
        generator = torch.Generator().manual_seed(0)
        self.buffers = [
            torch.randn(n, 2, generator=generator).numpy().astype(np.float32) for n in (ROWS, ROWS, ROWS - 4)
        ]
        self.x = [torch.from_numpy(buffer) for buffer in self.buffers]
        self.y = [(x[:, 0] > 0).float() for x in self.x]
        self.config = SimpleNamespace(beta=1.0, seen={1, 2}, layers=[[1.0], [2.0]])
        self.table = {f"k{i}": 0.01 * i for i in range(100)}
        self.array = np.linspace(0.0, 0.1, 200)
        self.tensor = torch.tensor(0.1)
        self.net = Net()
        self.options = options
        self.make = make
        self.optim = self.optimizer(optim)
        self.svi = make(self.model, self.guide, self.optim, Trace_ELBO(), **options)
        self.around = contextlib.nullcontext
        self.handles = []
        self.kept = []  # what was taken from parameters and optimizers without a copy

    def optimizer(self, kind, lr=0.02):
        if kind == "schedule":
            return pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": lr}, "gamma": 0.8})
        if kind == "sgd":
            return pyro.optim.SGD({"lr": 0.1 * lr, "momentum": 0.9})
        if kind == "clipped":
            return pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.99, "clip_norm": 5.0})
        return pyro.optim.Adam({"lr": lr})

    # --- programs

    def model(self, x, y=None, beta=1.0, gamma=1.0, extra=None):
        pyro.module("net", self.net)
        scale = 1.0 + abs(self.config.beta - 1.0) + self.table["k77"] + float(self.array[150]) + len(self.config.seen)
        scale = scale + getattr(self.config, "layers")[1][0] + float(os.environ["VIPACK_TEST_SHIFT"])  # noqa: B009
        if extra is not None:
            scale = scale + extra[0] * extra[1]["a"]
        with poutine.scale(scale=beta):
            w = pyro.sample("w", dist.Normal(0.0, scale))
        b = pyro.sample("b", dist.Normal(0.0, gamma)) if y is not None else self.tensor
        with pyro.plate("rows", len(x)):
            logits = self.net(x) + w + b
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=(x[:, 1] > 0).float() if y is None else y)

    def guide(self, x, y=None, beta=1.0, gamma=1.0, extra=None):
        m = pyro.param("m", torch.tensor(0.3))
        s = pyro.param("s", torch.tensor(0.5), constraint=dist.constraints.positive)
        with poutine.scale(scale=beta):
            pyro.sample("w", dist.Normal(m, s))
        if y is not None:  # this kind of batch alone has a second latent
            pyro.sample("b", dist.Normal(pyro.param("mb", torch.tensor(-0.2)), s))

    def other_model(self, x, y=None, beta=1.0, gamma=1.0, extra=None):
        w = pyro.sample("w", dist.Normal(1.0, 1.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0)) if y is not None else 0.0
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=w + b + x[:, 0]), obs=(x[:, 1] > 0).float() if y is None else y)

    # --- what is seen

    def step(self, *args, **kwargs):
        with self.around():
            return float(self.svi.step(*args, **kwargs))

    def run(self, number, *args):
        with self.around():
            if self.options:
                return [float(loss) for loss in self.svi.run(number, *args)]
            return [float(self.svi.step(*args)) for _ in range(number)]

    def parameter(self, name):
        return pyro.get_param_store()._params.get(name)

    def state(self):
        store = {name: value.detach().clone() for name, value in pyro.get_param_store().named_parameters()}
        buffers = {name: value.clone() for name, value in self.net.named_buffers()}
        rates = [getattr(one, "optimizer", one).param_groups[0]["lr"] for one in self.svi.optim.optim_objs.values()]
        kept = [torch.as_tensor(value).detach().clone() for value in self.kept]
        return store, buffers, sorted(rates), kept


def outcome(act, world):
    """What an act gives: losses, or the kind of error."""
    try:
        found = act(world)
        return found if isinstance(found, list) else None
    except Exception as error:
        return type(error).__name__


# --- acts: each takes two numbers, and gives an act on a world

ACTS = {}


def act(weight=1):
    def register(maker):
        ACTS[maker.__name__] = (weight, maker)
        return maker

    return register


@act(weight=4)
def step(which, number):
    return lambda w: [w.step(w.x[which % 3], w.y[which % 3]) for _ in range(1 + number % 3)]


@act(weight=2)
def step_without_y(which, number):
    return lambda w: [w.step(w.x[which % 3]) for _ in range(1 + number % 3)]


@act()
def run(which, number):
    return lambda w: w.run(1 + number % 5, w.x[which % 3], w.y[which % 3])


@act(weight=2)
def keyword(which, number):
    return lambda w: [w.step(w.x[0], w.y[0], beta=0.5 + 0.5 * (number % 3))]


@act()
def two_keywords(which, number):
    one, two = (0.5, 2.0) if number % 2 else (2.0, 0.5)
    return lambda w: [w.step(w.x[0], w.y[0], beta=one, gamma=two), w.step(w.x[0], w.y[0], gamma=one, beta=two)]


@act()
def numbers_in_containers(which, number):
    return lambda w: [w.step(w.x[0], w.y[0], extra=(float(number % 3), {"a": 1.0 + which % 2}))]


@act()
def a_list_that_changes(which, number):
    def change(w):
        extra = [1.0, {"a": 0.5}]
        first = w.step(w.x[0], w.y[0], extra=extra)
        extra[1]["a"] = 1.0 + number % 3
        return [first, w.step(w.x[0], w.y[0], extra=extra), w.step(w.x[0], w.y[0], extra=extra)]

    return change


@act()
def write_to_data(which, number):
    return lambda w: w.x[which % 3].add_(0.1 * (1 + number % 3))


@act(weight=2)
def write_to_data_unseen(which, number):
    return lambda w: w.x[which % 3].data.mul_(1.0 + 0.1 * (number % 3))


@act(weight=2)
def write_to_the_numpy_buffer(which, number):
    def change(w):
        w.buffers[which % 3][:, 0] += 0.2 * (1 + number % 2)

    return change


@act()
def set_an_attribute(which, number):
    return lambda w: setattr(w.config, "beta", 1.0 + 0.5 * (number % 3))


@act()
def set_an_entry(which, number):
    return lambda w: w.table.__setitem__("k77", 0.3 * (number % 3))


@act()
def set_an_element(which, number):
    return lambda w: w.array.__setitem__(150, 0.4 * (number % 3))


@act()
def add_to_a_set(which, number):
    return lambda w: w.config.seen.add(number % 4)


@act()
def set_by_getattr(which, number):
    return lambda w: w.config.layers[1].__setitem__(0, 1.0 + number % 3)


@act()
def set_the_environment(which, number):
    return lambda w: os.environ.__setitem__("VIPACK_TEST_SHIFT", str(0.5 * (number % 3)))


@act()
def write_to_a_tensor_of_the_program(which, number):
    return lambda w: (w.tensor.data if which % 2 else w.tensor).fill_(0.5 * (number % 3))


@act()
def set_the_rate(which, number):
    def change(w):
        for parameter, one in w.svi.optim.optim_objs.items():
            if which % 2 or parameter is w.parameter("m"):
                getattr(one, "optimizer", one).param_groups[0]["lr"] = 0.01 * (1 + number % 4)

    return change


@act()
def set_the_betas(which, number):
    def change(w):
        for one in w.svi.optim.optim_objs.values():
            group = getattr(one, "optimizer", one).param_groups[0]
            if "betas" in group:
                group["betas"] = (0.5 + 0.1 * (number % 4), 0.9)

    return change


@act()
def step_the_schedule(which, number):
    return lambda w: w.svi.optim.step() if hasattr(w.svi.optim, "step") else None


@act()
def another_optimizer(which, number):
    return lambda w: setattr(w.svi, "optim", w.optimizer(("adam", "sgd", "clipped", "schedule")[number % 4]))


@act()
def save_and_load_the_optimizer(which, number):
    def change(w):
        state = w.svi.optim.get_state()
        if which % 2:
            w.step(w.x[0], w.y[0])
        w.svi.optim.set_state(state)
        w.svi.optim.optim_objs.clear()

    return change


@act(weight=2)
def keep_views(which, number):
    def change(w):
        if which % 4 == 0:
            w.kept += w.net.state_dict().values()
        if which % 4 == 1:
            w.kept += [value.detach().numpy() for value in w.net.parameters()]
        if which % 4 == 2:
            w.kept += [value.detach().reshape(-1)[:1] for value in pyro.get_param_store()._params.values()]
        if which % 4 == 3:  # by shape and numbers: Pyro steps parameters in the order of a set, and names may be gone
            owners = sorted(w.svi.optim.optim_objs, key=lambda p: (tuple(p.shape), p.detach().reshape(-1).tolist()))
            states = [getattr(w.svi.optim.optim_objs[p], "optimizer", w.svi.optim.optim_objs[p]).state for p in owners]
            every = [value for state in states for one in state.values() for value in one.values()]
            w.kept += [value for value in every if torch.is_tensor(value)]

    return change


@act(weight=2)
def freeze(which, number):
    names = ("m", "s", "net$$$inner.weight", "net$$$outer.bias")
    name = names[which % 4]
    return lambda w: w.parameter(name).requires_grad_(bool(number % 2)) if w.parameter(name) is not None else None


@act()
def evaluation_mode(which, number):
    return lambda w: w.net.train(bool(number % 2))


@act()
def evaluation_mode_of_a_part(which, number):
    return lambda w: w.net.norm.train(bool(number % 2))


@act()
def set_dropout(which, number):
    return lambda w: setattr(w.net.drop, "p", 0.1 * (number % 5))


@act()
def hook_a_gradient(which, number):
    def change(w):
        if w.parameter("m") is not None:
            w.handles.append(w.parameter("m").register_hook(lambda g: g.clamp(-0.5, 0.5)))

    return change


@act()
def hook_a_module(which, number):
    return lambda w: w.handles.append(w.net.inner.register_forward_hook(lambda m, i, o: 0.5 * o))


@act()
def remove_hooks(which, number):
    def change(w):
        while w.handles:
            w.handles.pop().remove()

    return change


@act()
def handler_around(which, number):
    handlers = (
        contextlib.nullcontext,
        lambda: poutine.scale(scale=2.0),
        lambda: poutine.mask(mask=False),
        lambda: poutine.trace(),
        lambda: poutine.condition(data={"w": torch.tensor(0.3)}),
        lambda: poutine.block(hide=["b"]),
        torch.no_grad,
    )
    return lambda w: setattr(w, "around", handlers[number % len(handlers)])


@act()
def without_gradients_for_once(which, number):
    def change(w):
        with torch.no_grad():
            return [w.step(w.x[0], w.y[0])]

    return change


@act()
def set_a_parameter(which, number):
    return lambda w: pyro.get_param_store().__setitem__("m", torch.tensor(0.5 * (number % 4)))


@act()
def write_to_a_parameter(which, number):
    return lambda w: w.parameter("m").data.fill_(0.1 * number) if w.parameter("m") is not None else None


@act()
def clear_the_store(which, number):
    return lambda w: pyro.clear_param_store() if number % 3 == 0 else None


@act()
def leave_a_gradient(which, number):
    def change(w):
        if w.parameter("m") is not None and w.parameter("m").requires_grad:
            w.parameter("m").grad = torch.tensor(float(number % 3))

    return change


@act()
def another_weight(which, number):
    return lambda w: setattr(w.net.outer, "bias", nn.Parameter(torch.full((1,), 0.1 * number)))


@act()
def another_buffer(which, number):
    return lambda w: setattr(w.net.norm, "running_mean", torch.full((3,), 0.1 * number))


@act()
def another_model(which, number):
    return lambda w: setattr(w.svi, "model", w.other_model if number % 2 else w.model)


@act()
def another_loss(which, number):
    elbo = (Trace_ELBO, TraceMeanField_ELBO)[number % 2]()
    return lambda w: setattr(w.svi, "loss_and_grads", elbo.loss_and_grads)


@act()
def values_outside_the_support(which, number):
    def change(w):
        y = w.y[0].clone()
        y[number % len(y)] = 2.0
        return [w.step(w.x[0], y)]

    return change


@act()
def values_that_are_not_finite(which, number):
    def change(w):
        y = w.y[0].clone()
        y[number % len(y)] = float("nan")
        return [w.step(w.x[0], y)]

    return change


@act()
def validation(which, number):
    return lambda w: pyro.enable_validation(bool(number % 2))


@act()
def look_at_the_loss(which, number):
    return lambda w: [float(w.svi.evaluate_loss(w.x[0], w.y[0]))]
