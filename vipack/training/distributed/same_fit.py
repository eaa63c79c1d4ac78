"""Whether all processes are about the same fit: the same data, program, options and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from vipack.distributed import Processes, check_alike
from vipack.errors import ProcessError
from vipack.program import seeded
from vipack.training.prepare import Prepared
from vipack.training.trainer import Trainer

__all__ = ["check_same_fit"]

_SEEN = {
    "data": "the data differ",
    "seed": "the seeds differ",
    "sites": "the models or guides have different sites",
    "parameters": "the parameters have different names or shapes",
    "values": "the parameters begin from different values, as where code branches on the rank or draws before the fit",
    "steps": "the numbers of steps differ",
}


def check_same_fit(processes: Processes, trainer: Trainer, more: Mapping[str, object]) -> None:
    """
    Args:
        more: options of the fit by name.

    Raises:
        ProcessError: on every process, where they differ.
    """
    own = {**trainer.fingerprint(), "steps": trainer.plan.steps, **more, "values": trainer.program.parameters.digest()}
    check_alike(
        processes,
        own,
        _SEEN,
        about="fit",
        cure="Every process must run the same script on the same data; the fit deals out the rows by itself.",
    )
    _compare_losses(processes, trainer.prepared, trainer.loss, trainer.plan.seed)


def _compare_losses(processes: Processes, prepared: Prepared, loss: Any, seed: int) -> None:
    """The loss of one batch on the same random numbers, which a model that branches on the rank has otherwise."""
    program, rows = prepared.program, prepared.rows
    size = min(rows.num_rows or 1, 64 if prepared.batch_size is None else prepared.batch_size)
    before = program.parameters.state()
    call = rows.rows(torch.arange(size))
    with seeded(seed), program.bound(call), torch.no_grad():
        value = loss.loss(program.model, program.guide, *call.args, **call.kwargs)
    program.parameters.load_state(before)
    own = float(sum(value)) if isinstance(value, tuple) else float(value)
    every = processes.numbers(own)[:, 0].tolist()
    tolerance = 1e-4 if program.parameters.dtype == torch.float32 else 1e-9
    for rank, other in enumerate(every):
        if not math.isclose(other, every[0], rel_tol=tolerance, abs_tol=tolerance) and not math.isnan(other):
            raise ProcessError(
                f"distributed: the first {size} rows have a loss of {every[0]:.8g} in process 0 and of {other:.8g} in process {rank}, on "
                "the same random numbers: the model or the guide is another one there, as where it branches on the rank."
            )
