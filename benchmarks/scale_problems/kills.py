"""Processes killed at random moments under torchrun: ``python -m benchmarks.scale kills [--kills 30]``.

A fit of topics, with parameters for each document and a checkpoint every 50 steps, runs on two processes under ``torchrun
--max-restarts``. In each run one of them is killed (SIGKILL) at a moment that is uniform between its start and the end of the
undisturbed run: while it imports, finds the other, captures, steps, or writes. Counted are runs that end with the undisturbed run's
parameters, bit for bit, in both processes; those that did not end; and checkpoints that could not be read after a kill.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch

import vipack as vi
from vipack.training.checkpoint import read_file

DOCUMENTS, WORDS, TOPICS, STEPS = 400, 30, 4, 1_000
_HANGING = 300.0  # seconds, after which a run is given up
_SELF = "benchmarks.scale_problems.kills"


def model(counts):
    words = pyro.sample("words", dist.Dirichlet(torch.full((WORDS,), 0.5)).expand([TOPICS]).to_event(1))
    with pyro.plate("documents", DOCUMENTS, subsample_size=len(counts)):
        shares = pyro.sample("shares", dist.Dirichlet(torch.full((TOPICS,), 0.5)))
        pyro.sample("counts", dist.Multinomial(probs=shares @ words, validate_args=False), obs=counts)


def guide(counts):
    words = pyro.param(
        "words_q", lambda: torch.ones(TOPICS, WORDS) + torch.eye(TOPICS, WORDS), dist.constraints.positive
    )
    documents = pyro.param("documents_q", lambda: torch.ones(DOCUMENTS, TOPICS), dist.constraints.positive)
    pyro.sample("words", dist.Dirichlet(words).to_event(1))
    with pyro.plate("documents", DOCUMENTS, subsample_size=len(counts)) as rows:
        pyro.sample("shares", dist.Dirichlet(documents[rows]))


def work(folder: Path) -> None:
    """One process of a run."""
    rank = os.environ["RANK"]
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    torch.set_num_threads(1)
    rates = 4 * torch.rand(DOCUMENTS, WORDS, generator=torch.Generator().manual_seed(0))
    counts = torch.poisson(rates, generator=torch.Generator().manual_seed(1))
    fit = vi.fit(
        model, guide, data=counts, batch_size=40, steps=STEPS, seed=0, distributed=True, engine="traced", progress=False,
        optim=pyro.optim.Adam({"lr": 0.01}), checkpoint=vi.Checkpoint(folder / "run.pt", every_steps=50),
    )  # fmt: skip
    torch.save(fit.params, folder / f"params-{rank}.pt")


@dataclass
class Run:
    """How one run went.

    Attributes:
        killed: seconds after its start that a process was killed, and which; None where the run was done before.
        ended: whether it ended well.
        readable: whether the checkpoint could be read after the kill; None where there was none yet.
    """

    seconds: float
    ended: bool
    killed: tuple[float, int] | None = None
    readable: bool | None = None
    output: str = ""


def kills(number: int, seed: int) -> int:
    """Run and print the table; 0 if all ended alike."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        calm = _run(root / "calm")
        if not calm.ended:
            print(calm.output[-3_000:])
            return 1
        expected = _parameters(root / "calm", 0)
        print(f"undisturbed: {calm.seconds:.1f} s of torchrun, {STEPS} steps", flush=True)
        equal, hung, unreadable, restarted, done, tries = 0, 0, 0, 0, 0, 0
        while done < number:
            tries += 1
            folder = root / f"run-{tries}"
            run = _run(folder, (chance.uniform(0.0, calm.seconds), chance.randrange(2)))
            if run.killed is None:
                continue  # the moment came after its end
            done += 1
            hung += run.seconds >= _HANGING
            unreadable += run.readable is False
            restarted += run.readable is not None
            same = run.ended and all(
                all(torch.equal(_parameters(folder, rank)[name], value) for name, value in expected.items())
                for rank in (0, 1)
            )
            equal += same
            moment, rank = run.killed
            file = {None: "no checkpoint yet", True: "went on from a checkpoint", False: "checkpoint NOT readable"}
            print(
                f"{done:3}: process {rank} killed after {moment:5.1f} s, {file[run.readable]}, ended after {run.seconds:5.1f} s, "
                f"{'the same parameters' if same else 'NOT the same'}",
                flush=True,
            )
            if not same:
                print(run.output[-3_000:])
    print(f"{equal} of {number} end with the undisturbed run's parameters; {restarted} went on from a checkpoint;")
    print(f"{hung} hung; {unreadable} left a checkpoint that cannot be read")
    return int(equal < number or hung > 0 or unreadable > 0)


def _run(folder: Path, kill: tuple[float, int] | None = None) -> Run:
    folder.mkdir()
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3"]
    log = folder / "log"
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "-m", _SELF, str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        run = Run(0.0, False)
        try:
            if kill is not None:
                run.killed = _kill(process, folder, began, *kill)
                if run.killed is not None:
                    run.readable = _readable(folder / "run.pt")
            process.wait(max(1.0, _HANGING - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    run.seconds, run.ended = time.monotonic() - began, process.returncode == 0
    run.output = log.read_text()
    return run


def _kill(
    process: subprocess.Popen[bytes], folder: Path, began: float, moment: float, rank: int
) -> tuple[float, int] | None:
    """Kill a process of a run `moment` seconds after torchrun began, or as soon as it is there."""
    own = folder / f"pid-{rank}"
    while process.poll() is None:
        now = time.monotonic() - began
        if now >= moment and own.exists() and own.read_text():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(own.read_text()), signal.SIGKILL)
                return now, rank
            return None
        time.sleep(0.01)
    return None


def _readable(path: Path) -> bool | None:
    if not path.exists():
        return None
    try:
        read_file(path)
    except vi.errors.CheckpointError:
        return False
    return True


def _parameters(folder: Path, rank: int) -> dict[str, torch.Tensor]:
    parameters: dict[str, torch.Tensor] = torch.load(folder / f"params-{rank}.pt")
    return parameters


if __name__ == "__main__":
    work(Path(sys.argv[1]))
