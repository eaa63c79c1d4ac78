"""Private fields of Pyro's parameter store: the unconstrained tensors themselves, and their names."""

from __future__ import annotations

import weakref
from typing import Any

import pyro
from torch import Tensor

from vipack.compat.names import named

__all__ = ["add_to_store", "stored", "stored_keys"]

_COPIED = "the store is copied whenever it is looked at, which is slower with thousands of parameters"
PARAMS = named("pyro", "ParamStoreDict._params", lambda: pyro.get_param_store()._params, without=_COPIED)
CONSTRAINTS = named("pyro", "ParamStoreDict._constraints", lambda: pyro.get_param_store()._constraints, without=_COPIED)
NAMES = named(
    "pyro",
    "ParamStoreDict._param_to_name",
    lambda: pyro.get_param_store()._param_to_name,
    without="vipack.SVI may leave parameters where they lie, which makes steps of many parameters slower",
)


def stored() -> tuple[Any, Any]:
    """Name -> unconstrained tensor, the very one, and name -> constraint; to be read only."""
    store = pyro.get_param_store()
    if PARAMS.there and CONSTRAINTS.there:
        return store._params, store._constraints
    state = store.get_state()
    for value in state["params"].values():  # which Pyro takes away, though the parameters go on in use
        value.unconstrained = weakref.ref(value)
    return state["params"], state["constraints"]


def stored_keys() -> list[Tensor]:
    """The tensors that the store knows by name, views of the parameters among them."""
    store = pyro.get_param_store()
    return list(store._param_to_name) if NAMES.there else list(stored()[0].values())


def add_to_store(name: str, value: Tensor, constraint: Any) -> None:
    """Let `value` be the unconstrained tensor of a parameter, in place of the one that the store holds."""
    store = pyro.get_param_store()
    if PARAMS.there and NAMES.there:
        store._params[name], store._param_to_name[value] = value, name
        return
    params, constraints = stored()
    store.set_state({"params": {**params, name: value}, "constraints": {**constraints, name: constraint}})
