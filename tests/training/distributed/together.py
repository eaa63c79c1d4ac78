"""What each process of a test runs: ``python -m tests.training.distributed.together FOLDER WHAT...``"""

import os
import signal
import sys
import warnings
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pyro
import torch
from torch import Tensor

import vipack as vi
from tests.training.distributed.programs import CASES
from tests.training.distributed.spread import SHARED, fewer_batches, from_a_file, other_fits, starts
from vipack.distributed import processes, sums

IN_SHARED_MEMORY = ("topics", "vae")  # programs whose gradients are added up there, however few they are


def cut_off(folder: Path, tier: str, rank: int) -> dict[str, dict[str, Tensor]]:
    """The parameters of a run with a checkpoint, and of one that Ctrl-C cuts off in process 1 and that is started again."""
    case = CASES["topics"]
    options = {**case.options(torch.float64), "steps": 80, "engine": tier, "distributed": True, "average": True}
    if tier == "interpreted":  # an optimizer of Pyro's, which is another one for each parameter
        options["optim"] = pyro.optim.Adam({"lr": 0.02})

    def interrupt(progress: Any) -> None:
        if rank == 1 and progress.step == 30:
            os.kill(os.getpid(), signal.SIGINT)

    def fit(name: str, *calls: Any) -> vi.Fit:
        path = folder / f"{tier}-{name}.pt"
        return vi.fit(case.model, case.guide, checkpoint=path, callbacks=calls, **options)

    undisturbed = fit("undisturbed", vi.Every(10, lambda progress: None))
    assert undisturbed.engine.tier == tier, undisturbed.engine
    first = fit("cut", vi.Every(10, interrupt))
    assert 30 <= first.steps < 80, first.stopped
    return {"undisturbed": undisturbed.params, "cut off": fit("cut", vi.Every(10, lambda progress: None)).params}


def independent_noise() -> dict[str, Tensor]:
    """The losses of a step where each process draws for itself, and where all draw the same."""
    case = CASES["regression"]
    options = {**case.options(torch.float64), "steps": 1, "engine": "eager"}
    kinds = {"own": vi.DataParallel(), "same": vi.DataParallel(same_noise=True)}
    return {
        name: torch.from_numpy(vi.fit(case.model, case.guide, distributed=kind, **options).losses)
        for name, kind in kinds.items()
    }


def _asked_for_memory() -> SimpleQueue[bool]:
    """Whether there was some, of each vector that was to be added up in shared memory from now on."""
    answers, original = SimpleQueue[bool](), processes.sum_in_shared_memory  # a list would be a part of the program

    def recorded(*arguments: Any) -> Any:
        answers.put((shared := original(*arguments)) is not None)
        return shared

    processes.sum_in_shared_memory = recorded
    return answers


def main(folder: Path, *names: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", vi.errors.VipackWarning)
    warnings.simplefilter("ignore", vi.errors.TrustWarning)  # after so few steps
    together = vi.DataParallel(same_noise=True)
    results: dict[str, Any] = {}
    asked = _asked_for_memory()
    for name in names:
        program, tier, dtype = name.split(":")
        case = CASES[program]
        sums._FEWEST_BYTES = 0 if program in IN_SHARED_MEMORY else 1 << 18
        fit = vi.fit(case.model, case.guide, engine=tier, distributed=together, **case.options(getattr(torch, dtype)))
        results[name] = {
            "losses": torch.from_numpy(fit.losses),
            "params": fit.params,
            "engine": str(fit.engine),
            "draw": {site: value.double().sum() for site, value in fit.sample(10).items()},
            "shared memory": [asked.get() for _ in range(asked.qsize())],
        }
    sums._FEWEST_BYTES = 1 << 18
    rank = torch.distributed.get_rank()
    results["cut off"] = {tier: cut_off(folder, tier, rank) for tier in ("eager", "interpreted")}
    results["shares"] = independent_noise()
    results["shared"] = {name: answer(True) for name, answer in SHARED.items()}
    results["starts"] = {number: starts(number, True) for number in (2, 3)}
    results["from a file"] = from_a_file(folder)
    results["said"] = {"fewer batches": fewer_batches(), "other fits": other_fits()}
    torch.save(results, folder / f"{rank}.pt")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started this with Ctrl-C ignored
    main(Path(sys.argv[1]), *sys.argv[2:])
