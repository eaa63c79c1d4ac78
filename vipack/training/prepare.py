"""From a user's objects to a program that is ready to train: data read, batches covered, guide made, all checked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoGuide, AutoMultivariateNormal
from pyro.infer.autoguide.effect import AutoMessenger

from vipack.errors import DataError, PlateError, UsageError, VipackError, VipackWarning
from vipack.objectives.objective import Objective
from vipack.program import Arguments, Check, GivenGuide, Program, check_program, make_guide, read_sites, seeded
from vipack.program.checks.batch_effects import batch_effects
from vipack.program.checks.batches import BatchCalls, check_local_latents, cover_batches, local_latents
from vipack.program.checks.factors import Halved
from vipack.program.densities.substitution import Widened
from vipack.program.densities.values import same_values, unvalidated
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.running.randomness import check_seed
from vipack.program.running.runs import check_signature, named_arguments, trace_prior
from vipack.training.data import Rows
from vipack.training.particle_checks import check_particles, scaled_weights
from vipack.training.reading_data import read_data

__all__ = ["Prepared", "Problem", "device_of", "loss_of", "no_guide", "prepare", "try_prepare"]


@dataclass(frozen=True)
class Problem:
    """What a guide is to be fitted to, as the user gave it: a model, its data, and how these are read; see :func:`vipack.fit`."""

    model: Callable[..., Any]
    data: Any
    fixed: Mapping[str, Any] | None = None
    batch_size: int | None = None
    batch_plate: str | None = None
    device: Any = None
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Prepared:
    """A program with initial parameters, its data, and one batch to look at."""

    program: Program
    rows: Rows
    batch_size: int | None
    first: Arguments
    loss: Any
    check: Check


def prepare(problem: Problem, guide: Any, *, seed: int, loss: Any = None, checked: Check | None = None) -> Prepared:
    """
    Args:
        loss: ``Trace_ELBO()`` by default.
        checked: what a program of the same model, data and kind of guide was found to be, where there is one.

    Raises:
        VipackError: whatever would stop the program from running at all; what else is wrong stands in ``check``.
    """
    model, data, batch_plate = problem.model, problem.data, problem.batch_plate
    _check_arguments(model, seed)
    loss = loss_of(loss)
    rows = data if isinstance(data, Rows) else read_data(data, problem.fixed, problem.dtype, device_of(problem.device))
    batch_size = _batch_size(problem.batch_size, rows)
    program = Program(model, no_guide, dtype=rows.dtype, device=rows.device)
    batches = rows.stream(batch_size, torch.Generator().manual_seed(seed))
    with seeded(seed):  # a data set may draw random numbers for the rows that it is asked for
        first, second = next(batches), next(batches)
        fewer = rows.rows(second.indices[:-1]) if second.indices is not None and len(second.indices) > 1 else None
    batched = first.indices is not None and len(first.indices) != rows.num_rows
    check_signature("model", model, first)
    local: tuple[str, ...] = ()
    if batched:
        assert rows.num_rows is not None
        calls = BatchCalls(
            functools.partial(_every, rows), first, second, fewer, functools.partial(_halved, rows, second)
        )
        cover_batches(program, calls, num_rows=rows.num_rows, name=batch_plate, seed=seed)
        local = local_latents(program, first, seed=seed)
    with seeded(seed):  # a guide's networks start from random weights
        program.guide = _make_guide(program, guide, loss, first, seed)
    automatic = isinstance(program.guide, AutoGuide)
    with seeded(seed):
        # An automatic guide keeps parameters for every row of a local latent, so it must see them all once.
        program.initialise(rows.full() if automatic and local and rows.indexed else first)
    check_local_latents(program, local, indexed=rows.indexed)
    check = checked
    if check is None:
        with seeded(seed):
            call = rows.extremes(first) if batched else first
        check = check_program(program, call, _own_arguments(program, rows, call), enumerates=_sums_out(loss), seed=seed)
        if check.ok:
            check = dataclasses.replace(check, errors=tuple(check_particles(program, first, loss, seed=seed)))
        if check.ok and batched:
            said = list(batch_effects(program, first, *_with_halves(rows, second, fewer), seed=seed))
            said += scaled_weights(program, first, loss, seed=seed)
            errors = tuple(each for each in said if isinstance(each, VipackError))
            warnings = tuple(each for each in said if isinstance(each, VipackWarning))
            check = dataclasses.replace(check, errors=errors, warnings=(*check.warnings, *warnings))
    program.parameters.settle()
    read = dataclasses.replace(problem, data=rows, fixed=None, device=rows.device, dtype=rows.dtype)
    program.remake = functools.partial(_remade, read, guide=GivenGuide(guide), seed=seed, loss=loss, checked=check)
    if batch_plate is not None and check.table is not None and batch_plate not in check.table.plates:
        raise PlateError(
            f"batch_plate={batch_plate!r}: the model has no plate of that name; its plates are "
            f"{', '.join(map(repr, check.table.plates)) or 'none'}."
        )
    return Prepared(program, rows, batch_size, first, loss, check)


def _every(rows: Rows) -> Arguments | None:
    return rows.full() if rows.fits_in_memory else None


def _check_arguments(model: object, seed: object) -> None:
    """
    Raises:
        UsageError: the model cannot be called, or `seed` is no integer of 32 bits.
    """
    if isinstance(model, type) and issubclass(model, torch.nn.Module):
        raise UsageError(f"model: {model.__name__} is a class; pass an instance, as in model={model.__name__}().")
    if not callable(model):
        raise UsageError(f"model: expected a Pyro model (a callable), found {type(model).__name__} {model!r}.")
    check_seed(seed)


def _remade(problem: Problem, *, guide: GivenGuide, seed: int, loss: Any, checked: Check) -> Program:
    return prepare(problem, guide.guide, seed=seed, loss=loss, checked=checked).program


def try_prepare(problem: Problem, guide: Any, *, seed: int, loss: Any = None) -> Check:
    """The check alone, with what stops a program from running as its first error."""
    try:
        return prepare(problem, guide, seed=seed, loss=loss).check
    except VipackError as error:
        return Check(None, {}, (error,), ())


def loss_of(loss: Any) -> Any:
    """
    Raises:
        UsageError: not an instance of an ELBO.
    """
    if loss is None:
        return Trace_ELBO()
    if isinstance(loss, type):
        raise UsageError(f"loss: {loss.__name__} is a class; pass an instance, as in loss={loss.__name__}().")
    if not (isinstance(loss, ELBO) or (hasattr(loss, "loss") and hasattr(loss, "loss_and_grads"))):
        raise UsageError(
            f"loss: expected a pyro.infer ELBO such as Trace_ELBO(num_particles=8), found {type(loss).__name__} {loss!r}."
        )
    return loss


def _make_guide(program: Program, guide: Any, loss: Any, first: Arguments, seed: int) -> Any:
    guide = AutoMultivariateNormal if guide is None else guide
    builder = guide.func if isinstance(guide, functools.partial) else guide
    model = program.model
    if isinstance(builder, type) and issubclass(builder, AutoGuide | AutoMessenger):
        hidden: list[str] = []
        if _sums_out(loss) or program.parameters.dtype == torch.float64:
            hidden = _enumerated(program, first, seed)
        if program.widened:  # an automatic guide runs the model by itself, out of reach of the program's handlers
            model = Widened(program.widened)(model)
        model = poutine.block(model, hide=hidden) if hidden and _sums_out(loss) else model
    return make_guide(model, guide)


def _sums_out(loss: Any) -> bool:
    """Whether the loss sums out discrete latents that are marked for it."""
    return isinstance(loss, TraceEnum_ELBO | Objective)


def _enumerated(program: Program, first: Arguments, seed: int) -> list[str]:
    """Discrete latents that the loss sums out, which an automatic guide must not see."""
    with seeded(seed), program.bound(first), unvalidated(), flat_priors_sampled(), torch.no_grad():
        trace = trace_prior(program.model, first)
    return [site.name for site in read_sites(trace, poutine.Trace()).of_kind("enumerated")]


def _batch_size(batch_size: Any, rows: Rows) -> int | None:
    if batch_size is None:
        return None
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size: expected a positive integer or None, found {batch_size!r}.")
    if rows.num_rows is not None and batch_size > rows.num_rows:
        raise UsageError(
            f"batch_size: {batch_size} is more than the {rows.num_rows} rows of the data; leave it out to use all rows."
        )
    return batch_size


def device_of(device: Any) -> torch.device:
    """
    Raises:
        UsageError: no device of torch's that works here.
    """
    if device is None:
        return torch.device("cpu")
    try:
        return torch.empty(0, device=device).device  # with its number, as tensors have it
    except (RuntimeError, TypeError, AssertionError) as error:
        raise UsageError(
            f"device: {device!r} cannot be used here ({' '.join(str(error).split())[:120]}); pass 'cpu', or a device "
            "that torch finds."
        ) from error


def _with_halves(
    rows: Rows, batch: Arguments, fewer: Arguments | None
) -> tuple[Arguments, Arguments | None, tuple[Arguments, Arguments] | None]:
    """A batch, the same one without its last row, and its halves, if a row of the data is the same whenever it is asked for."""
    halved = _halved(rows, batch) if fewer is not None and batch.indices is not None else None
    return (batch, None, None) if halved is None else (halved[0], fewer, halved[1])


def _halved(rows: Rows, batch: Arguments) -> Halved | None:
    """A batch of at least two rows and its halves, if a row of the data is the same whenever it is asked for."""
    assert batch.indices is not None
    indices = batch.indices if len(batch.indices) > 1 else torch.arange(2)
    half = len(indices) // 2
    with seeded(0):  # a data set may draw random numbers, as for augmentation
        one, two = rows.rows(indices), rows.rows(indices)
        halves = rows.rows(indices[:half]), rows.rows(indices[half:])
    pairs = zip((*one.args, *one.kwargs.values()), (*two.args, *two.kwargs.values()), strict=True)
    if not all(same_values(a, b) for a, b in pairs if isinstance(a, torch.Tensor) and a.layout == torch.strided):
        return None
    return one, halves


def _own_arguments(program: Program, rows: Rows, call: Arguments) -> dict[str, Any]:
    """The data under the names of the model's arguments."""
    return {name: value for name, value in named_arguments(program.model, call).items() if name not in rows.fixed}


def no_guide(*args: Any, **kwargs: Any) -> None:
    """Stands in for a guide until there is one."""
    raise DataError("the guide has not been made yet")  # pragma: no cover
