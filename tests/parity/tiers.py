"""A combination trained in a tier, once for all tests of a process, and gradients beside those of plain Pyro."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass

import pyro
import pytest
import torch
from pyro.infer import SVI
from pyro.poutine.messenger import Messenger

import vipack as vi
from tests.parity.table import CASES
from vipack.engine import graphs
from vipack.engine.capture.capture import tensors_of
from vipack.program.sites.plates import subsampled

STEPS = 24


@dataclass(frozen=True)
class Step:
    """Loss and gradients by name of one step, from one state of parameters and generator."""

    loss: float
    gradients: dict[str, torch.Tensor]


@functools.cache
def fitted(name, engine):
    """In the "traced" tier and above, by the graphs that :func:`captured` made."""
    if engine == "traced":
        return captured(name)[0]
    with pytest.MonkeyPatch.context() as patch:
        if engine != "eager":
            again = iter([graph for graph, _, _ in captured(name)[1]])
            patch.setattr(graphs, "capture", lambda *arguments: next(again))
        return fit(name, engine)


@functools.cache
def captured(name):
    """The traced fit; and of every graph that it captured, the graph, its step, and the step that Pyro takes there."""
    found = []
    capture = graphs.capture

    def recording(program, loss, arguments, execution):
        graph = capture(program, loss, arguments, execution)
        theirs = pyro_step(graph.layout.names, program, loss, arguments, CASES[name].counted)
        found.append((graph, graph_step(graph, program, arguments), theirs))
        return graph

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "capture", recording)
        return fit(name, "traced"), found


def fit(name, engine, *, double=False):
    case = CASES[name]
    data = as_double(case.data) if double else case.data
    arguments = {**case.arguments(), "data": data}
    return vi.fit(**arguments, steps=STEPS, seed=1, engine=engine, progress=False)


def graph_step(graph, program, arguments):
    parameters = program.parameters
    inputs = [parameters.unconstrained[n].detach() for n in graph.layout.names]
    with torch.random.fork_rng(devices=[]):
        loss, *results = graph(inputs, list(parameters.buffers().values()), tensors_of(arguments)[0])
    return Step(float(loss), dict(zip(graph.layout.names, results, strict=False)))


def pyro_step(names, program, loss, arguments, counted):
    """Outside of vipack: parameters in Pyro's global store and in the user's modules, batch rows by the plate."""
    guide = Masked(counted)(program.guide) if counted else program.guide
    parameters = program.parameters
    with torch.random.fork_rng(devices=[]), in_plain_pyro(parameters), contextlib.ExitStack() as stack:
        if arguments.indices is not None and program.batch_plate is not None:
            stack.enter_context(subsampled(program.batch_plate, arguments.indices))
        svi = SVI(program.model, guide, pyro.optim.SGD({"lr": 0.0}), loss)
        value = svi.loss_and_grads(program.model, guide, *arguments.args, **arguments.kwargs)
        store = dict(pyro.get_param_store().named_parameters())
        found = {n: torch.zeros_like(store[n]) if store[n].grad is None else store[n].grad.clone() for n in names}
    return Step(float(sum(value)) if isinstance(value, tuple) else float(value), found)


class Masked(Messenger):
    """What a user of plain Pyro would write around the guide's site of each latent."""

    def __init__(self, masks):
        super().__init__()
        self.masks = masks

    def _pyro_sample(self, message):
        mask = self.masks.get(message["name"].removesuffix("_unconstrained"))
        if mask is not None:
            message["mask"] = mask if message["mask"] is None else message["mask"] & mask


@contextlib.contextmanager
def in_plain_pyro(parameters):
    """A fit's parameters where plain Pyro looks for them, and afterwards everything as it was."""
    owners = [(module._parameters, attribute) for module, attribute, _ in parameters._slots]
    owners += [(module._buffers, attribute) for module, attribute, _ in parameters._buffer_slots()]
    before = [table[attribute].detach().clone() for table, attribute in owners]
    default = torch.get_default_dtype()
    torch.set_default_dtype(parameters.dtype)
    try:
        store = pyro.get_param_store()
        with store.scope():
            parameters.write_back()
            for module, attribute, name in parameters._slots:
                store._params[name] = module._parameters[attribute]  # which plain Pyro would train
            yield
    finally:
        torch.set_default_dtype(default)
        with torch.no_grad():
            for (table, attribute), value in zip(owners, before, strict=True):
                table[attribute].copy_(value)
                table[attribute].grad = None


def as_double(data):
    if isinstance(data, tuple):
        return tuple(map(as_double, data))
    return data.double() if data.is_floating_point() else data
