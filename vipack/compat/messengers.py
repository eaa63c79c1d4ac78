"""Private names of Pyro's effect handlers: the stack that they stand on, and methods that are replaced for a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyro.settings
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.poutine import runtime
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.subsample_messenger import SubsampleMessenger

from vipack.compat.names import named
from vipack.compat.patching import patched

__all__ = [
    "PLATE_ROWS",
    "choosing_rows",
    "handlers",
    "handlers_around",
    "is_subsample",
    "seen_after_condition",
    "seen_before_broadcast",
    "settings_now",
    "starting_with",
    "without_handlers",
]

STACK = named(
    "pyro",
    "pyro.poutine.runtime._PYRO_STACK",
    without="a handler around a call of vipack's acts on what happens inside",
    stops="single steps",
)
DIMENSIONS = named(
    "pyro",
    "pyro.poutine.runtime._DIM_ALLOCATOR",
    without="a plate around a call of vipack's keeps its dimension inside",
)
ENUMERATED = named(
    "pyro",
    "pyro.poutine.runtime._ENUM_ALLOCATOR",
    without="enumeration around a call of vipack's keeps its dimensions inside",
)
PLATE_ROWS = named(
    "pyro",
    "SubsampleMessenger._subsample",
    "pyro.poutine.subsample_messenger:SubsampleMessenger._subsample",
    without="plates of a minibatch must be written as pyro.plate(name, len(x)) or pyro.plate(name, N, len(x))",
)
BROADCAST = named(
    "pyro",
    "BroadcastMessenger._pyro_sample",
    "pyro.poutine.broadcast_messenger:BroadcastMessenger._pyro_sample",
    without="vipack.check does not see which distributions a plate has expanded",
)
CONDITION = named(
    "pyro",
    "ConditionMessenger._pyro_sample",
    "pyro.poutine.condition_messenger:ConditionMessenger._pyro_sample",
    without="a latent that poutine.condition holds counts as observed data when data are simulated",
)
INIT = named(
    "pyro",
    "InitMessenger._pyro_sample",
    "pyro.infer.autoguide.initialization:InitMessenger._pyro_sample",
    without="an initial value outside of its support is found by Pyro, which does not name the site",
)
SETTINGS = named(
    "pyro", "pyro.settings._REGISTRY", without="Pyro's settings are asked for one by one at every step of vipack.SVI"
)

_NONE: list[Any] = []
_stack: list[Any] = getattr(runtime, "_PYRO_STACK", _NONE)


def handlers() -> Sequence[Any]:
    """The handlers that stand around, the outermost first."""
    return _stack if STACK.there else _NONE


def handlers_around() -> str:
    """The name of the innermost handler around; empty where there is none."""
    if not STACK.there:
        return "of a kind that this Pyro does not show" if runtime.am_i_wrapped() else ""
    return type(_stack[-1]).__name__ if _stack else ""


@contextlib.contextmanager
def without_handlers() -> Iterator[None]:
    """Neither handlers, nor the dimensions that plates and enumeration among them have taken."""
    kept = list(_stack) if STACK.there else []
    names = [name for name, known in (("_DIM_ALLOCATOR", DIMENSIONS), ("_ENUM_ALLOCATOR", ENUMERATED)) if known.there]
    allocators = [getattr(runtime, name) for name in names]
    states = [dict(vars(allocator)) for allocator in allocators]
    if kept:
        _stack.clear()
    for allocator in allocators:
        vars(allocator).update(vars(type(allocator)()))
    try:
        yield
    finally:
        if kept:
            _stack[:] = kept
        for allocator, before in zip(allocators, states, strict=True):
            vars(allocator).update(before)


@contextlib.contextmanager
def choosing_rows(subsample: Callable[..., Any]) -> Iterator[None]:
    """Inside the block, plates ask ``subsample(original, name, size, subsample_size, subsample, use_cuda, device)``.

    Where Pyro has another way of choosing them, nothing is asked.
    """
    if not PLATE_ROWS.there:
        yield
        return
    original = SubsampleMessenger._subsample

    def asked(
        name: str,
        size: Any = None,
        subsample_size: Any = None,
        rows: Any = None,
        use_cuda: Any = None,
        device: Any = None,
    ) -> Any:
        return subsample(original, name, size, subsample_size, rows, use_cuda, device)

    with patched(SubsampleMessenger, _subsample=staticmethod(asked)):
        yield


@contextlib.contextmanager
def seen_before_broadcast(see: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Inside the block, `see` looks at each message before plates expand its distribution."""
    if not BROADCAST.there:
        yield
        return
    original = BroadcastMessenger._pyro_sample

    def sample(msg: dict[str, Any]) -> None:
        see(msg)
        original(msg)

    with patched(BroadcastMessenger, _pyro_sample=staticmethod(sample)):
        yield


@contextlib.contextmanager
def seen_after_condition(see: Callable[[Any, dict[str, Any]], None]) -> Iterator[None]:
    """Inside the block, `see` looks at each message that has passed a ``poutine.condition``, and at that handler."""
    original: Any = ConditionMessenger._pyro_sample

    def sample(self: Any, msg: dict[str, Any]) -> None:
        original(self, msg)
        see(self, msg)

    with patched(ConditionMessenger, _pyro_sample=sample) if CONDITION.there else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def starting_with(start: Callable[[Callable[..., None], Any, dict[str, Any]], None]) -> Iterator[None]:
    """Inside the block, initial values come from ``start(original, handler, message)``."""
    original: Any = InitMessenger._pyro_sample

    def sample(self: Any, msg: dict[str, Any]) -> None:
        start(original, self, msg)

    with patched(InitMessenger, _pyro_sample=sample) if INIT.there else contextlib.nullcontext():
        yield


def is_subsample(fn: Any) -> bool:
    """Whether a message's distribution is the one by which a plate chooses its rows."""
    return type(fn).__name__ == "_Subsample"


def settings_now() -> Callable[[], tuple[Any, ...]]:
    """A function that gives the values of all of Pyro's settings; it is called at every step of ``vipack.SVI``."""
    if not SETTINGS.there:
        return lambda: tuple(pyro.settings.get().values())
    owners = []
    for module, name, _ in pyro.settings._REGISTRY.values():
        *path, last = name.split(".")
        owners.append((_owner(module, path), last))
    return lambda: tuple([getattr(owner, name) for owner, name in owners])


def _owner(module: str, path: Sequence[str]) -> Any:
    from importlib import import_module

    owner: Any = import_module(module)
    for name in path:
        owner = getattr(owner, name)
    return owner
