"""torchrun starts processes again that were killed, and they end where a run ends that nothing happened to."""

import os
import subprocess
import sys

import pytest
import torch

from tests.training.distributed.conftest import ROOT


def torchrun(folder, seed, deaths):
    folder.mkdir()
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3"]
    worker = ["-m", "tests.training.distributed.restarted", str(folder), str(seed), str(deaths)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command, *worker],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return [torch.load(folder / f"params-{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_processes_that_are_killed_end_with_the_parameters_of_a_calm_run(tmp_path, seed):
    calm, _ = torchrun(tmp_path / "calm", seed, 0)
    for params in torchrun(tmp_path / "killed", seed, 2):
        assert all(torch.equal(params[name], value) for name, value in calm.items())
