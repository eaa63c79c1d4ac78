"""How far the losses of two processes are from those of one that sees the rows and the random numbers of both."""

from __future__ import annotations

import warnings
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed

import vipack as vi
from tests.training.distributed.programs import BATCH, CASES, Joined, N, SameNoise
from vipack.training import trainer as trainer_module
from vipack.training.distributed.shards import shard_of
from vipack.training.training_batches import training_batches

TIERS = ("eager", "traced", "interpreted", "compiled")


def parity(names: list[str]) -> None:
    """Print a line for each program, tier and type, in process 0."""
    rank = torch.distributed.get_rank()
    warnings.simplefilter("ignore", vi.errors.VipackWarning)
    for name in names or list(CASES):
        case = CASES[name]
        for dtype in (torch.float64, torch.float32):
            options = case.options(dtype)
            alone = _alone(case, options) if rank == 0 else None
            for tier in TIERS:
                together = vi.DataParallel(same_noise=True)
                fit = vi.fit(case.model, case.guide, engine=tier, distributed=together, **options)
                if alone is not None:
                    furthest = float(np.max(np.abs(fit.losses / alone - 1)))
                    note = "" if fit.engine.tier == tier else f"  ({fit.engine.reason or fit.engine})"
                    print(f"{name:14} {str(dtype)[6:]:8} {tier:12} {furthest:8.1e}{note}", flush=True)


def _alone(case: Any, options: dict[str, Any]) -> np.ndarray:
    def joined(rows: Any, batch_size: Any, loss: Any, seed: int, observe: Any = None, *, shard: Any = None) -> Joined:
        own = [training_batches(rows, None, loss, seed, shard=shard_of(r, 2, N, batch_size)) for r in (0, 1)]
        return Joined(rows.rows, own)

    patched = training_batches if case.batch_size is None else joined
    with mock.patch.object(trainer_module, "training_batches", patched), SameNoise(BATCH, 2):
        return vi.fit(case.model, case.guide, engine="eager", **options).losses
