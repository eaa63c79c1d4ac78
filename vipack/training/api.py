"""``vipack.fit``, ``vipack.check`` and ``vipack.load``."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vipack.distributed import DataParallel, alone_or_together, data_parallel_of, started_processes
from vipack.engine.steps.contracts import EngineMaker, Tier
from vipack.entry import entry, training_entry
from vipack.errors import CheckpointError, CheckpointWarning, UsageError, VipackError, warn
from vipack.program import Check, warnings_of_networks
from vipack.progress import progress_of
from vipack.training.arrays import named_arrays
from vipack.training.callbacks import Callback, callbacks_of
from vipack.training.checkpoint import Checkpoint, checkpoint_of, clean_temporaries, read_file, unharmed
from vipack.training.data import ArrayRows
from vipack.training.distributed.joint_fit import (
    prepare_together,
    refuse_together,
    train_together,
)
from vipack.training.distributed.shared_restarts import share_restarts
from vipack.training.engines import check_engine
from vipack.training.fingerprints import compare_fingerprints
from vipack.training.ladder.automatic import train_without_guide
from vipack.training.ladder.rungs import Family, guide_of, loss_of_family
from vipack.training.prepare import Problem, prepare, try_prepare
from vipack.training.restarts import check_restarts, train_restarts
from vipack.training.result import Fit
from vipack.training.scheduled import refuse_schedules
from vipack.training.stopping import StopRule, rules_of
from vipack.training.trainer import Plan, Trainer
from vipack.training.transformed import Transforms, read_transforms, transforms_of, with_transforms
from vipack.training.validation import EarlyStopping, split_off
from vipack.training.worsening import warn_if_worse
from vipack.types import Judged, Verdict

__all__ = ["check", "fit", "load"]


@training_entry
def fit(
    model: Callable[..., Any],
    guide: Any = None,
    *,
    data: Any,
    fixed: Mapping[str, Any] | None = None,
    loss: Any = None,
    optim: Any = None,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    batch_plate: str | None = None,
    validation: Any = None,
    transform: Any = None,
    seed: int = 0,
    engine: Tier | EngineMaker = "auto",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    stop: StopRule | tuple[StopRule, ...] = (),
    callbacks: Callback | tuple[Callback, ...] = (),
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    restarts: int = 1,
    average: bool = False,
    symmetric: Literal["one", "all"] = "one",
    distributed: bool | DataParallel | None = None,
) -> Fit:
    """Train a guide for a Pyro model by stochastic variational inference.

    The fit owns its parameters: neither Pyro's global store nor the modules that the model uses are changed.

    Args:
        guide: an AutoGuide class or instance, ``functools.partial`` of one, or any Pyro guide. None climbs the ladder:
            it finds a Gaussian or a flow by stages, each kept only for what it gains, and tells of it in ``fit.stages``.
            Where an option describes a single run (loss, optim, steps, epochs, restarts, checkpoint), None trains an
            AutoMultivariateNormal by it.
        data: per-observation arrays (torch, NumPy, pandas, SciPy CSR): one, a tuple of positional arguments or a dict of
            keyword arguments; what lies in files as ``vipack.stream(path)``; or a torch Dataset or DataLoader. ``()`` for a
            model that takes none.
        fixed: keyword arguments that are never cut into batches.
        loss: a ``pyro.infer`` ELBO; ``Trace_ELBO()`` by default.
        optim: a ``pyro.optim`` optimizer, or what makes a ``torch.optim`` one from a list of parameters (or a pair of it
            and its schedule, which moves on every step). By default Adam at 0.02, and at 0.002 for the weights of networks,
            both with a cosine decay.
        steps, epochs: how long to train; with neither, until the loss no longer falls by more than its noise.
        batch_size: rows a step, B of N; log p and log q of the batch plate are scaled by N/B.
        batch_plate: that plate's name, where it cannot be told from sizes.
        validation: observations held out, in the form of `data`, or the share of `data` to hold out, such as 0.1. Their ELBO
            is evaluated along the run, and stands in the bar, in ``fit.history`` and in ``plots.losses``.
        transform: argument of the model -> what is done to its batch anew at every step, before guide and model see it: a
            function of a tensor, or several in a tuple, such as ``{"x": vipack.transforms.Binarize()}``. Whatever looks at the data
            otherwise (the check, `validation`, answers, also for new data) has them transformed by one draw of `seed`.
        seed: decides everything random.
        engine: "eager" is ``pyro.infer.SVI`` itself, "traced" replays the captured step, "compiled" runs it in a C++ loop;
            "auto" moves up as far as the run's length pays. All see the same random numbers. Or what makes an engine of
            another kind, such as ``vipack.topics.CoordinateAscent(allocation)``.
        dtype: floating-point type of parameters and data; that of the tensors in `data` by default (NumPy arrays are
            converted). The ladder takes float64 by default, or float32 where the model holds float32 tensors that
            cannot be computed with in float64, and says so in ``fit.stages``.
        stop: rules that may end the run earlier, such as ``Converged()``, ``TimeLimit(60)`` or, with `validation`,
            ``EarlyStopping()``.
        callbacks: functions of a ``Progress``, called a few times a second, or wrapped in ``Every(n, f)``.
        progress: True or False; a bar in a terminal or a notebook by default.
        checkpoint: save the run here as it goes, and go on from there if the file exists.
        restarts: train from so many starts at once and keep the highest ELBO; see ``fit.restarts``.
        average: end with the mean of the later iterates, over the second half of `steps` or while the learning rate falls
            after convergence: nearer to the optimum than the last iterate. The ladder always does.
        distributed: True, or a ``DataParallel``, trains on all processes that ``torchrun`` has started: each steps on its share
            of the rows and of `batch_size`, and all come to the same parameters; with `restarts`, each trains some of the starts
            on all rows, and all get the best. A script that was started alone trains alone.
        symmetric: of equal modes that symmetries make, as the labellings of a mixture's components, "one" fits one, and
            ``fit.diagnose()`` counts the others; "all" has the ladder end in a guide of all of them.

    Raises:
        VipackError: anything wrong with model, guide, data or options; the message names it and says what to do.
    """
    rules, calls, file = rules_of(stop), callbacks_of(callbacks), checkpoint_of(checkpoint)
    progress = progress_of(progress)
    check_restarts(restarts, checkpoint)
    if average and restarts > 1:
        raise UsageError(
            f"average=True: not with restarts={restarts}, whose starts share one run; leave one of them out."
        )
    _check_validation(validation, rules, restarts)
    options = (loss, optim, steps, epochs, checkpoint, validation, transform, None if restarts == 1 else restarts)
    climbs = guide is None and all(option is None for option in options)
    check_engine(
        engine,
        climbs=climbs,
        optim=optim,
        loss=loss,
        transform=transform,
        average=average,
        restarts=restarts if restarts > 1 else None,
    )
    _check_symmetric(symmetric, climbs)
    together = data_parallel_of(distributed)
    processes = started_processes(together)
    if processes is not None:
        refuse_together(
            guide=climbs and "a fit without a guide climbs the ladder, in one process",
            engine=not isinstance(engine, str) and f"{engine!r} takes its steps in one process",
        )
    problem = Problem(model, data, fixed, batch_size, batch_plate, device, dtype)
    with alone_or_together(processes):
        problem, validation_rows = (problem, None) if validation is None else split_off(problem, validation, seed)
        if transform is not None:
            problem, validation_rows = with_transforms(problem, validation_rows, transforms_of(transform), seed)
        if climbs:
            refuse_schedules(
                fixed, "a fit without a guide, whose stages each have steps of their own,", "pass a guide, or "
            )
            plan = Plan(None, seed, rules, calls, progress, None, engine)
            return Fit(train_without_guide(problem, plan, symmetric=symmetric == "all"))
        if processes is None or restarts > 1:
            prepared = prepare(problem, guide, seed=seed, loss=loss)
        else:
            prepared = prepare_together(problem, guide, processes, seed=seed, loss=loss)
        prepared.check.raise_if_bad()
        per_epoch = prepared.rows.stream(prepared.batch_size, torch.Generator()).per_epoch
        num_steps = _num_steps(steps, epochs, per_epoch)
        networks = warnings_of_networks(prepared.program.parameters) if num_steps != 0 else ()
        for warning in (*prepared.check.warnings, *networks):
            warn(warning)
        plan = Plan(num_steps, seed, rules, calls, progress, file, engine, average=average, validation=validation_rows)
        if processes is not None and restarts > 1:
            trainer = share_restarts(problem, prepared, guide, plan, optim, restarts, processes)
        elif processes is not None and together is not None:
            trainer = train_together(prepared, plan, optim, processes, together)
        elif restarts > 1:
            trainer = train_restarts(problem, prepared, guide, plan, optim, range(restarts))
        else:
            trainer = Trainer(prepared, plan, optim)
            trainer.train(again=file is not None and _take_up(trainer, file))
        warn_if_worse(trainer)
    return Fit(trainer)


@training_entry
def check(
    model: Callable[..., Any],
    guide: Any = None,
    *,
    data: Any,
    fixed: Mapping[str, Any] | None = None,
    loss: Any = None,
    batch_size: int | None = None,
    batch_plate: str | None = None,
    transform: Any = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Check:
    """Look for mistakes before training: ``str(check)`` is the shape table with what was found.

    The arguments are those of :func:`fit`. It never raises for what is wrong with the program; see
    ``check.raise_if_bad()``.
    """
    problem = Problem(model, data, fixed, batch_size, batch_plate, device, dtype)
    if transform is not None:
        try:
            problem, _ = with_transforms(problem, None, transforms_of(transform), seed)
        except VipackError as error:
            return Check(None, {}, (error,), ())
    return try_prepare(problem, guide, seed=seed, loss=loss)


@entry
def load(
    path: str | os.PathLike[str],
    model: Callable[..., Any],
    guide: Any = None,
    *,
    data: Any = None,
    fixed: Mapping[str, Any] | None = None,
    validation: Any = None,
    transform: Any = None,
    loss: Any = None,
    optim: Any = None,
    engine: Tier | EngineMaker = "auto",
    device: str | torch.device | None = None,
) -> Fit:
    """A fit that ``fit.save`` wrote, ready to sample, predict or resume.

    Args:
        model, guide: those it was fitted with; code is never stored. A fit without a guide is loaded without one.
        data, fixed: needed where the file was saved without data; else those in the file.
        validation: the observations held out, or their share of `data`, likewise.
        transform: that of the fit, where it had a function that is not one of vipack's.
        loss, optim, engine: needed to resume where they were not the defaults.

    Raises:
        CheckpointError: missing, damaged or hostile file, or one of another model, guide or version.
    """
    check_engine(engine, optim=optim, loss=loss, transform=transform)
    content = read_file(path)
    axes = None
    if data is None:
        if "data" not in content:
            raise CheckpointError(f"{path}: was saved without its data; pass data= (and fixed=) as for the fit.")
        with unharmed(path):
            data, stored = ArrayRows.structure(content["data"])
            axes = ArrayRows.axes_of(content["data"])
            if validation is None and content.get("validation_data") is not None:
                validation = ArrayRows.structure(content["validation_data"])[0]
        fixed = stored if fixed is None else fixed
    with unharmed(path):
        saved = content["fingerprint"]
        batch_size, batch_plate, seed = saved["batch_size"], content["batch_plate"], saved["seed"]
        dtype = getattr(torch, saved["dtype"].removeprefix("torch."))
        num_steps = content["planned_steps"]
        if guide is None and content.get("family") is not None:
            family = Family.from_plain(content["family"])
            guide, loss = guide_of(family), loss_of_family(family, saved["loss"]) if loss is None else loss
    _check_rows(path, data, batch_size)
    problem = Problem(model, data, fixed, batch_size, batch_plate, device, dtype)
    problem, validation_rows = (problem, None) if validation is None else split_off(problem, validation, seed)
    with unharmed(path):
        chosen = _transforms(path, content.get("transforms", {}), transform)
    if chosen:
        problem, validation_rows = with_transforms(problem, validation_rows, chosen, seed)
    prepared = prepare(problem, guide, seed=seed, loss=loss)
    prepared.check.raise_if_bad()
    if axes is not None:
        prepared.rows.axes = axes
    with unharmed(path):
        rules = (
            tuple(EarlyStopping(*rule) for rule in content.get("early_stopping", ()))
            if validation_rows is not None
            else ()
        )
    trainer = Trainer(prepared, Plan(num_steps, seed, rules, (), None, None, engine, validation=validation_rows), optim)
    with unharmed(path):
        own = trainer.fingerprint()
        compare_fingerprints(saved, own, path, ("sites", "parameters"), data_differ=saved["data"] != own["data"])
        trainer.load_content(content)
        judged = content.get("verdict") if saved["data"] == own["data"] else None
        certified = content.get("certified", ("means", "sds"))
        verdict = None if judged is None else Judged(Verdict(judged), content.get("within", ""), tuple(certified))
    return Fit(trainer, verdict)


def _transforms(path: object, stored: Any, transform: Any) -> Transforms:
    """
    Raises:
        CheckpointError: the fit had a function of the user's, and none is given.
    """
    if transform is not None:
        return transforms_of(transform)
    if stored is None:
        raise CheckpointError(
            f"{path}: was fitted with a transform of your own, and functions are not stored; pass transform=."
        )
    return read_transforms(stored)


def _check_rows(path: object, data: Any, batch_size: int | None) -> None:
    """
    Raises:
        CheckpointError: the fit's minibatches have more rows than the data given.
    """
    if batch_size is None or isinstance(data, DataLoader):
        return
    arrays = (data,) if isinstance(data, Dataset) else (array for _, array in named_arrays(data))
    sizes = [
        len(array)
        for array in arrays
        if isinstance(array, Sized) and not (isinstance(array, Tensor) and not array.dim())
    ]
    if sizes and min(sizes) < batch_size:
        raise CheckpointError(
            f"{path}: was fitted in minibatches of {batch_size} rows, and data has {min(sizes)}; load it with the data of the "
            "fit (without data= if the file keeps them), and pass other rows to fit.predict(data=...)."
        )


def _take_up(trainer: Trainer, file: Checkpoint) -> bool:
    """Go on from the checkpoint, if there is one of this very fit; whether there was."""
    removed = clean_temporaries(file.path)
    if removed:
        warn(
            CheckpointWarning(
                f"removed {len(removed)} temporary file(s) that an interrupted run left beside {file.path}."
            )
        )
    if not Path(file.path).exists():
        return False
    content = read_file(file.path)
    keys = ("sites", "parameters", "dtype", "loss", "optimizer", "seed", "batch_size", "data")
    with unharmed(file.path):
        compare_fingerprints(content["fingerprint"], trainer.fingerprint(), file.path, keys)
        trainer.load_content(content)
    return True


def _num_steps(steps: object, epochs: object, per_epoch: float) -> int | None:
    for name, value in (("steps", steps), ("epochs", epochs)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise UsageError(f"{name}: expected an integer of at least 0 or None, found {value!r}.")
    if steps is not None and epochs is not None:
        raise UsageError(f"steps={steps} and epochs={epochs} were both given; pass one of them.")
    if isinstance(epochs, int):
        return math.ceil(epochs * per_epoch)
    return steps if isinstance(steps, int) else None


def _check_symmetric(symmetric: object, climbs: bool) -> None:
    if symmetric not in ("one", "all"):
        raise UsageError(f'symmetric: expected "one" or "all", found {symmetric!r}.')
    if symmetric == "all" and not climbs:
        raise UsageError(
            'symmetric="all": only a fit without a guide, and without options of a single run, ends in all copies; leave them out, or '
            "pass a guide that has all copies, such as vipack.guides.Copies."
        )


def _check_validation(validation: object, rules: tuple[StopRule, ...], restarts: int) -> None:
    if validation is None and any(isinstance(rule, EarlyStopping) for rule in rules):
        raise UsageError(
            "stop: EarlyStopping looks at observations held out; pass validation=0.1, or the data held out, too."
        )
    if validation is not None and restarts > 1:
        raise UsageError(
            f"validation: not with restarts={restarts}, whose starts are compared by their ELBO; leave one out."
        )
