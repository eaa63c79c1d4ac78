"""Pyro's handlers around a step: which of them a graph can hold as part of the program, and by what they are known again."""

from __future__ import annotations

import functools
import types
from collections.abc import Hashable
from typing import Any

from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.infer_config_messenger import InferConfigMessenger
from pyro.poutine.mask_messenger import MaskMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.scale_messenger import ScaleMessenger
from pyro.poutine.seed_messenger import SeedMessenger
from pyro.poutine.uncondition_messenger import UnconditionMessenger

from vipack.compat.messengers import handlers, handlers_around
from vipack.engine.guards.arguments import ByIdentity
from vipack.engine.guards.execution import is_library, module_of

__all__ = ["handlers_known", "known_by", "unfollowed_handler"]

# Those that act on a message by nothing but what they were made with, and keep nothing of it.
_PLAIN = (
    BlockMessenger, ConditionMessenger, InferConfigMessenger, MaskMessenger, ScaleMessenger, SeedMessenger,
    UnconditionMessenger,
)  # fmt: skip


def unfollowed_handler() -> str:
    """The name of a handler around that a step's graph cannot stand for, the innermost such; empty where there is none.

    Handlers of the user's own are part of the program: what their code reads and changes is watched as the model's is.
    """
    stack = handlers()
    if not stack:
        return handlers_around()
    return next((type(each).__name__ for each in reversed(stack) if not _is_followed(type(each))), "")


def handlers_known() -> Hashable:
    """Equal for handlers around that do the same; asked for at every step."""
    stack = handlers()
    return tuple([known_by(each) for each in stack]) if stack else ()


def known_by(value: Any) -> Hashable:
    """Equal for programs that are the same but for handlers and partial functions that are made anew at each call."""
    if isinstance(value, functools.partial):
        inside = (value.func, *value.args, *(value.keywords or {}).values())
        return functools.partial, tuple(value.keywords or ()), tuple(map(known_by, inside))
    if isinstance(value, types.MethodType):
        return value.__func__, ByIdentity(value.__self__)
    if isinstance(value, Messenger):
        return type(value), tuple((name, known_by(each)) for name, each in sorted(vars(value).items()))
    if isinstance(value, bool | int | float | str | None):
        return type(value), value
    return ByIdentity(value)


def _is_followed(kind: type) -> bool:
    known = (Messenger, *_PLAIN)
    return all(base in known or not is_library(module_of(base)) for base in kind.__mro__ if issubclass(base, Messenger))
