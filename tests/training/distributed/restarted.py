"""A run with a checkpoint that torchrun starts again: ``restarted.py FOLDER SEED DEATHS``; processes are killed at random steps."""

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import vipack as vi
from tests.training.distributed.programs import CASES

STEPS = 80


def main(folder: Path, seed: int, deaths: int) -> None:
    torch.set_num_threads(1)
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    chance = random.Random(1_000 * seed + attempt)
    who, when = chance.randrange(2), chance.randrange(1, STEPS)
    case = CASES["topics"]

    def die(progress: Any) -> None:
        if attempt < deaths and rank == who and progress.step == when:
            os.kill(os.getpid(), signal.SIGKILL)

    fit = vi.fit(
        case.model,
        case.guide,
        checkpoint=vi.Checkpoint(folder / "run.pt", every_steps=7),
        callbacks=vi.Every(1, die),
        distributed=True,
        engine="traced",
        **{**case.options(torch.float64), "steps": STEPS},
    )
    torch.save(fit.params, folder / f"params-{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
