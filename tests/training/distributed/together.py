"""What each process of a test runs: ``python -m tests.training.distributed.together FOLDER WHAT...``"""

import sys
import warnings
from pathlib import Path

import torch

import vipack as vi
from tests.training.distributed.programs import CASES


def main(folder: Path, *names: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", vi.errors.VipackWarning)
    together = vi.DataParallel(same_noise=True)
    results = {}
    for name in names:
        program, tier, dtype = name.split(":")
        case = CASES[program]
        fit = vi.fit(
            case.model, case.guide, engine=tier, distributed=together, **case.options(getattr(torch, dtype))
        )
        results[name] = {
            "losses": torch.from_numpy(fit.losses),
            "params": fit.params,
            "engine": str(fit.engine),
            "draw": {site: value.double().sum() for site, value in fit.sample(10).items()},
        }
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.save(results, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
