"""Processes that find each other at a free port."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
Start = Callable[..., list[subprocess.Popen]]
# Of program, tier and type: one without and one with parameters of rows, in each tier once, and a network.
RUNS = ("regression:eager:float64", "regression:interpreted:float64", "topics:traced:float64", "vae:traced:float64")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def start() -> Start:
    """``start(*arguments, size=2, **environment)``: the processes of one run, under way."""
    running: list[subprocess.Popen] = []

    def begin(*arguments: str, size: int = 2, **variables: str) -> list[subprocess.Popen]:
        common = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(size),
            **variables,
        }
        own = [
            subprocess.Popen(
                [sys.executable, *arguments],
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(size)
        ]
        running.extend(own)
        return own

    yield begin
    for process in running:
        process.kill()
        process.wait()


def started(start, folder, runs):
    """What each process of tests/training/distributed/together.py comes to, by rank."""
    processes = start("-m", "tests.training.distributed.together", str(folder), *runs)
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(output[-3_000:] for output in outputs)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="session")
def together_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="session")
def together(start, together_folder):
    """What two processes come to, run by run, by rank."""
    return started(start, together_folder, RUNS)
