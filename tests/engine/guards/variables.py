"""Variables of every kind that a program may read: each maker gives a program that reads one, and an act that changes it."""

from __future__ import annotations

import array
import collections
import contextvars
import dataclasses
import enum
import functools
import math
import operator
import os
import types

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import scipy.sparse
import torch
from torch import nn

__all__ = ["CHANGES"]

CHANGES = {}


def change(maker):
    CHANGES[maker.__name__] = maker
    return maker


def _set(place, name, value):
    return lambda: setattr(place, name, value)


# --- containers


@change
def a_long_list():
    numbers = list(range(5_000))
    return lambda: sum(numbers), lambda: numbers.__setitem__(4_321, 0)


@change
def a_list_whose_number_becomes_another_type():
    numbers = [1, 2]
    return lambda: numbers[0] / 2, lambda: numbers.__setitem__(0, 1.0)


@change
def a_long_dict():
    table = {str(i): float(i) for i in range(3_000)}
    return lambda: table["2500"], lambda: table.__setitem__("2500", -1.0)


@change
def the_order_of_a_dict():
    table = {"a": 1.0, "b": 2.0}

    def reorder():
        table["a"] = table.pop("a")

    return lambda: next(iter(table.values())), reorder


@change
def a_set():
    seen = {1, 2}
    return lambda: 1 in seen, lambda: seen.remove(1)


@change
def a_set_of_the_same_size():
    seen = {1, 2}

    def replace():
        seen.remove(2)
        seen.add(3)

    return lambda: max(seen), replace


@change
def a_frozenset_in_a_list():
    kinds = [frozenset({1})]
    return lambda: len(kinds[0]), lambda: kinds.__setitem__(0, frozenset({1, 2}))


@change
def a_nested_list_far_in():
    tree = {"a": [{"b": [[0, 1], [2, 3]]}]}
    return lambda: tree["a"][0]["b"][1][1], lambda: tree["a"][0]["b"][1].__setitem__(1, 9)


@change
def the_hundredth_list_of_a_list():
    rows = [[i] for i in range(200)]
    return lambda: rows[150][0], lambda: rows[150].__setitem__(0, -1)


@change
def a_deque():
    last = collections.deque([1.0, 2.0], maxlen=2)
    return lambda: last[0], lambda: last.append(3.0)


@change
def a_default_dict():
    table = collections.defaultdict(float, a=1.0)
    return lambda: table["a"], lambda: table.__setitem__("a", 2.0)


@change
def a_counter():
    counts = collections.Counter("ab")
    return lambda: counts["a"], lambda: counts.update("a")


@change
def a_user_dict():
    table = collections.UserDict(a=1.0)
    return lambda: table["a"], lambda: table.__setitem__("a", 2.0)


@change
def a_chain_of_maps():
    inner = {"a": 1.0}
    table = collections.ChainMap({}, inner)
    return lambda: table["a"], lambda: inner.__setitem__("a", 2.0)


@change
def bytes_that_can_be_written_to():
    flags = bytearray(b"\x00\x01")
    return lambda: flags[0], lambda: flags.__setitem__(0, 1)


@change
def an_array_of_the_standard_library():
    numbers = array.array("d", [0.0, 1.0])
    return lambda: numbers[0], lambda: numbers.__setitem__(0, 2.0)


# --- arrays and tables


@change
def a_small_array():
    weights = np.ones(3)
    return lambda: float(weights.sum()), lambda: weights.__setitem__(1, 2.0)


@change
def the_middle_of_a_large_array():
    weights = np.zeros(100_000)
    return lambda: float(weights[50_000]), lambda: weights.__setitem__(50_000, 1.0)


@change
def an_array_that_is_no_block():
    base = np.zeros((100, 100))
    weights = base[:, 3]
    return lambda: float(weights[5]), lambda: base.__setitem__((5, 3), 1.0)


@change
def an_array_of_objects():
    names = np.array(["a", None, 3], dtype=object)
    return lambda: names[0], lambda: names.__setitem__(0, "b")


@change
def the_sign_of_a_zero():
    weights = np.zeros(2)
    return lambda: math.copysign(1.0, weights[0]), lambda: weights.__setitem__(0, -0.0)


@change
def a_table():
    frame = pd.DataFrame({"x": np.arange(200.0)})
    return lambda: float(frame["x"].iloc[150]), lambda: frame.__setitem__("x", frame["x"] + 1)


@change
def a_column():
    column = pd.Series(np.arange(200.0))
    return lambda: float(column.iloc[150]), lambda: column.iloc.__setitem__(150, -1.0)


@change
def a_sparse_matrix():
    matrix = scipy.sparse.csr_matrix(np.eye(3))
    return lambda: matrix.data[0], lambda: matrix.data.__setitem__(0, 5.0)


@change
def a_numpy_number():
    holder = types.SimpleNamespace(beta=np.float32(0.5))
    return lambda: float(holder.beta), _set(holder, "beta", np.float32(0.6))


# --- ways to a name


class Config:
    width = 2.0

    def __init__(self):
        self.beta = 1.0
        self.table = {"w": [1.0]}


@change
def an_attribute():
    config = Config()
    return lambda: config.beta, _set(config, "beta", 2.0)


@change
def an_attribute_by_getattr():
    config = Config()
    return lambda: getattr(config, "beta"), _set(config, "beta", 2.0)  # noqa: B009


@change
def an_attribute_whose_name_is_computed():
    config = Config()
    return lambda: getattr(config, "be" + "ta"), _set(config, "beta", 2.0)


@change
def an_attribute_that_is_not_there_yet():
    config = Config()
    return lambda: getattr(config, "late", 0.0), _set(config, "late", 1.0)


@change
def an_attribute_by_its_presence():
    config = Config()
    return lambda: hasattr(config, "late"), _set(config, "late", 1.0)


@change
def an_attribute_by_vars():
    config = Config()
    return lambda: vars(config)["beta"], _set(config, "beta", 2.0)


@change
def an_attribute_by_dict():
    config = Config()
    return lambda: config.__dict__["beta"], _set(config, "beta", 2.0)


@change
def an_attribute_by_a_getter():
    config = Config()
    get = operator.attrgetter("beta")
    return lambda: operator.attrgetter("beta")(config) + get(config), _set(config, "beta", 2.0)


@change
def a_list_by_getattr():
    config = Config()
    return lambda: getattr(config, "table")["w"][0], lambda: config.table["w"].__setitem__(0, 2.0)  # noqa: B009


@change
def a_class_attribute():
    config = Config()

    def put_back():
        Config.width = 2.0

    def set_it():
        Config.width = 3.0

    put_back()
    return lambda: config.width, set_it


@change
def a_class_attribute_that_an_instance_overrides():
    class Own:  # which no other change is made to
        width = 2.0

    config = Own()
    return lambda: config.width, _set(config, "width", 5.0)


@change
def a_method_that_an_instance_overrides():
    class Weights:
        def weight(self):
            return 1.0

    weights = Weights()
    return lambda: weights.weight(), _set(weights, "weight", lambda: 2.0)


@change
def a_method_that_a_class_replaces():
    class Weights:
        def weight(self):
            return 1.0

    weights = Weights()
    return lambda: weights.weight(), _set(Weights, "weight", lambda self: 2.0)


@change
def what_a_property_reads():
    class Weights:
        def __init__(self):
            self._beta = 1.0

        @property
        def beta(self):
            return self._beta

    weights = Weights()
    return lambda: weights.beta, _set(weights, "_beta", 2.0)


@change
def slots():
    class Weights:
        __slots__ = ("beta",)

        def __init__(self):
            self.beta = 1.0

    weights = Weights()
    return lambda: weights.beta, _set(weights, "beta", 2.0)


@change
def a_dataclass_with_slots():
    @dataclasses.dataclass(slots=True)
    class Weights:
        beta: float = 1.0

    weights = Weights()
    return lambda: weights.beta, _set(weights, "beta", 2.0)


@change
def an_object_with_a_getattr_of_its_own():
    class Weights:
        def __init__(self):
            self._content = {"beta": 1.0}

        def __getattr__(self, name):
            return self._content[name]

    weights = Weights()
    return lambda: weights.beta, lambda: weights._content.__setitem__("beta", 2.0)


@change
def an_object_with_items():
    class Weights:
        def __init__(self):
            self._content = {"beta": 1.0}

        def __getitem__(self, name):
            return self._content[name]

    weights = Weights()
    return lambda: weights["beta"], lambda: weights._content.__setitem__("beta", 2.0)


@change
def a_dict_of_a_users_class():
    class Table(dict):
        pass

    table = Table(a=1.0)
    table.scale = 1.0
    return lambda: table["a"] * table.scale, _set(table, "scale", 2.0)


@change
def an_attribute_of_a_function():
    def weight():
        return weight.beta

    weight.beta = 1.0
    return weight, _set(weight, "beta", 2.0)


@change
def a_default():
    def weight(beta=1.0):
        return beta

    return weight, _set(weight, "__defaults__", (2.0,))


@change
def a_default_by_keyword():
    def weight(*, beta=1.0):
        return beta

    return weight, _set(weight, "__kwdefaults__", {"beta": 2.0})


@change
def a_partials_argument():
    numbers = [1.0]
    return functools.partial(lambda values: values[0], numbers), lambda: numbers.__setitem__(0, 2.0)


@change
def a_variable_of_an_enclosing_function():
    beta = 1.0

    def set_it():
        nonlocal beta
        beta = 2.0

    return lambda: beta, set_it


GLOBAL = 1.0


@change
def a_global_by_globals():
    globals()["GLOBAL"] = 1.0

    def set_it():
        globals()["GLOBAL"] = 2.0

    return lambda: globals()["GLOBAL"], set_it


@change
def a_function_in_a_table():
    betas = {"a": 1.0}
    table = {"weight": lambda: betas["a"]}
    return lambda: table["wei" + "ght"](), lambda: betas.__setitem__("a", 2.0)


@change
def a_function_that_another_takes_the_place_of():
    table = {"weight": lambda: 1.0}
    return lambda: table["weight"](), lambda: table.__setitem__("weight", lambda: 2.0)


@change
def an_environment_variable():
    os.environ["VIPACK_TEST_BETA"] = "1.0"

    def set_it():
        os.environ["VIPACK_TEST_BETA"] = "2.0"

    return lambda: float(os.environ["VIPACK_TEST_BETA"]), set_it


@change
def an_environment_variable_by_getenv():
    os.environ.pop("VIPACK_TEST_GAMMA", None)

    def set_it():
        os.environ["VIPACK_TEST_GAMMA"] = "2.0"

    return lambda: float(os.getenv("VIPACK_TEST_GAMMA", "1.0")), set_it


@change
def a_context_variable():
    beta = contextvars.ContextVar("beta", default=1.0)
    return lambda: beta.get(), lambda: beta.set(2.0)


@change
def a_members_choice():
    class Kind(enum.Enum):
        A = 1
        B = 2

    holder = types.SimpleNamespace(kind=Kind.A)
    return lambda: holder.kind.value, _set(holder, "kind", Kind.B)


# --- torch's and Pyro's own objects


@change
def dropout():
    layer = nn.Dropout(0.5)
    return lambda: layer(torch.ones(4)), _set(layer, "p", 0.1)


@change
def a_modules_mode():
    layers = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    return lambda: layers(torch.ones(4, 2)), layers.eval


@change
def batch_norms_momentum():
    layer = nn.BatchNorm1d(2)
    return lambda: layer(torch.ones(4, 2)), _set(layer, "momentum", None)


@change
def a_module_in_a_list_of_modules():
    layers = nn.ModuleList([nn.Linear(2, 2)])
    return lambda: layers[0](torch.ones(1, 2)), lambda: layers.__setitem__(0, nn.Linear(2, 2))


@change
def a_hook_of_a_module():
    layer = nn.Linear(2, 2)
    return lambda: layer(torch.ones(1, 2)), lambda: layer.register_forward_hook(lambda m, i, o: 2 * o)


@change
def a_hook_before_a_module():
    layer = nn.Linear(2, 2)
    return lambda: layer(torch.ones(1, 2)), lambda: layer.register_forward_pre_hook(lambda m, i: (2 * i[0],))


@change
def what_a_hook_reads():
    layer, betas = nn.Linear(2, 2), [1.0]
    layer.register_forward_hook(lambda m, i, o: betas[0] * o)
    return lambda: layer(torch.ones(1, 2)), lambda: betas.__setitem__(0, 2.0)


@change
def a_modules_forward():
    layer = nn.Linear(2, 2)
    return lambda: layer(torch.ones(1, 2)), _set(layer, "forward", lambda x: x)


@change
def the_parameter_of_a_distribution():
    prior = dist.Normal(torch.zeros(2), 1.0)
    return lambda: prior.log_prob(torch.ones(2)), _set(prior, "loc", torch.ones(2))


@change
def what_a_handler_conditions_on():
    data = {"z": torch.tensor(0.5)}
    model = pyro.poutine.condition(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), data=data)
    return model, lambda: data.__setitem__("z", torch.tensor(1.5))


@change
def a_handlers_scale():
    handler = pyro.poutine.scale_messenger.ScaleMessenger(0.5)
    model = handler(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)))
    return model, _set(handler, "scale", 0.7)


@change
def the_number_of_particles():
    loss = pyro.infer.Trace_ELBO()

    def program():
        return loss.num_particles

    return program, _set(loss, "num_particles", 4)
