"""What ``check``, ``fit`` and ``compare`` share: the program that a command line names, and how it is trained."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

import vipack
from vipack.cli.guide_names import LADDER, guide_named
from vipack.cli.model_arguments import ModelArguments, read_arguments
from vipack.cli.python_files import load_object
from vipack.engine.optimizers.default_optimizer import CosineRate
from vipack.errors import UsageError

__all__ = ["NamedProgram", "output_folder", "read_guide", "read_program", "train"]


@dataclass(frozen=True)
class NamedProgram:
    """A model of a file, and its arguments."""

    model: Callable[..., Any]
    arguments: ModelArguments
    dtype: torch.dtype | None


def read_program(chosen: argparse.Namespace) -> NamedProgram:
    """
    Raises:
        UsageError, DataError: the model or its data cannot be had.
    """
    model = load_object(chosen.model, "model")
    arguments = read_arguments(model, chosen.data, chosen.columns, chosen.fixed)
    return NamedProgram(model, arguments, getattr(torch, chosen.dtype) if chosen.dtype else None)


def read_guide(name: str | None) -> Any:
    """A guide by its name or as FILE.py:NAME; "ladder" as it is; None, which takes the default, for None."""
    if name is None or name.lower() == LADDER:
        return None if name is None else LADDER
    return load_object(name, "guide") if ":" in name else guide_named(name)


def output_folder(name: str) -> Path:
    """The folder `name`, made if it is not there.

    Raises:
        UsageError: it cannot be made or written to.
    """
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".vipack-probe"
        probe.touch()
        probe.unlink()
    except FileExistsError as error:
        raise UsageError(f"--out {name}: {error.filename} is a file; name a folder.") from error
    except OSError as error:
        raise UsageError(f"--out {name}: cannot be written ({error.strerror}); name another folder.") from error
    return folder


def train(program: NamedProgram, guide: Any, chosen: argparse.Namespace) -> vipack.Fit:
    """Fit `guide` as the command line says; the ladder decides for itself how its guides are trained."""
    alone = guide == LADDER
    learning_rate, steps = (None, None) if alone else (chosen.lr, chosen.steps)
    return vipack.fit(
        program.model,
        None if alone else guide,
        data=program.arguments.data,
        fixed=program.arguments.fixed,
        loss=None if alone or chosen.particles == 1 else Trace_ELBO(num_particles=chosen.particles),
        optim=None if learning_rate is None else functools.partial(_adam, learning_rate, steps),
        steps=steps,
        batch_size=chosen.batch_size,
        batch_plate=chosen.batch_plate,
        seed=chosen.seed,
        dtype=program.dtype,
        progress=False if chosen.quiet else None,
    )


def _adam(learning_rate: float, num_steps: int | None, params: Iterable[Tensor]) -> tuple[Adam, LambdaLR]:
    """What a fit takes by default, at another learning rate."""
    optimizer = Adam(params, lr=learning_rate, betas=(0.9, 0.99))
    return optimizer, LambdaLR(optimizer, CosineRate(0, num_steps))
