"""Which engine takes a run's steps."""

from __future__ import annotations

from typing import Any

from vipack.engine.graph.all_reduce import Reducer
from vipack.engine.lockstep import LockstepEngine
from vipack.engine.optimizers.fit_optimizer import FitOptimizer
from vipack.engine.steps.contracts import TIERS, Engine, EngineMaker, Tier
from vipack.engine.tiers import TieredEngine
from vipack.errors import UsageError
from vipack.program import Program

__all__ = ["check_engine", "make_engine", "settled_tier", "trained_by"]

_TRACED_FROM, _COMPILED_FROM = 300, 10_000  # steps, for the tier of a run that is saved as it goes


def check_engine(engine: object, *, climbs: bool = False, **options: object) -> None:
    """
    Args:
        climbs: whether there is no guide.
        options: by name, what the user asked for that is about steps by gradients; None and False for what was not asked for.

    Raises:
        UsageError: `engine` is no tier and makes no engine, or makes one for a run that it cannot serve.
    """
    if isinstance(engine, str) or not callable(getattr(engine, "make_engine", None)) or isinstance(engine, type):
        if engine not in TIERS:
            raise UsageError(f"engine: expected one of {', '.join(map(repr, TIERS))}, found {engine!r}.")
        return
    name = getattr(engine, "name", type(engine).__name__)
    asked = ["a fit without a guide"] if climbs else []
    asked += [option for option, value in options.items() if value is not None and value is not False]
    if asked:
        raise UsageError(
            f"engine: {name} takes no steps by gradients, so it does not go with {asked[0]}; leave one of them out."
        )


def make_engine(
    engine: Tier | EngineMaker,
    program: Program,
    loss: Any,
    optimizer: FitOptimizer,
    tier: Tier,
    reducer: Reducer | None = None,
) -> Engine:
    """The engine that a run asks for.

    Args:
        tier: that of steps by gradients.
        reducer: adds up gradients over the processes of the run, where there are several.
    """
    if reducer is not None:
        return LockstepEngine(program, loss, optimizer, tier, reducer)
    if isinstance(engine, str):
        return TieredEngine(program, loss, optimizer, tier)
    return engine.make_engine(program)


def trained_by(engine: Tier | EngineMaker, optim: Any) -> str:
    """What moves the parameters, a name by which to tell runs apart in files."""
    return describe_optimizer(optim) if isinstance(engine, str) else engine.name


def settled_tier(engine: Tier | EngineMaker, num_steps: int, *, saved: bool) -> Tier:
    """The tier asked for, "auto" where there are none; where a run is saved as it goes, one that does not depend on the machine's speed.

    Tiers agree to rounding, and a run that goes on from a checkpoint must agree bit for bit.
    """
    if not isinstance(engine, str):
        return "auto"
    if engine != "auto" or not saved:
        return engine
    if num_steps < _TRACED_FROM:
        return "eager"
    return "traced" if num_steps < _COMPILED_FROM else "compiled"


def describe_optimizer(optim: Any) -> str:
    """A name by which to tell optimizers apart in files."""
    if optim is None:
        return "default"
    constructor = getattr(optim, "pt_optim_constructor", None) or getattr(optim, "func", None) or optim
    return str(getattr(constructor, "__name__", type(constructor).__name__))
