"""Processes that find each other at a free port."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
Start = Callable[..., list[subprocess.Popen]]


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
