"""What goes wrong in one process of two: ``python -m tests.training.distributed.faults WHAT``; says what each of them raised."""

import os
import signal
import sys
import time

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi

RANK = int(os.environ.get("RANK", "0"))
Y = torch.randn(60, generator=torch.Generator().manual_seed(0)) + 1.0


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def branching(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0 + RANK))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def clipping():
    return pyro.optim.Adam({"lr": 0.01}, {"clip_norm": 1.0})


def once(action):
    """A callback that does something in process 1, after ten steps."""

    def callback(progress):
        if RANK == 1 and progress.step >= 10:
            action()

    return vi.Every(10, callback)


def fails(kind):
    def call():
        raise kind("of the user's")

    return call


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def freeze():
    os.kill(os.getpid(), signal.SIGSTOP)


# What each does in one process, as options of the fit.
FAULTS = {
    "other data": {"data": Y + RANK},
    "other seed": {"seed": RANK},
    "other steps": {"steps": 100 + RANK},
    "fewer rows than processes": {"data": Y[:1], "batch_size": None},
    "fewer rows in a batch": {"batch_size": 1},
    "no rows": {"data": (), "batch_size": None},
    "a model that branches on the rank": {"model": branching},
    "a DataLoader": {"data": torch.utils.data.DataLoader(Y, batch_size=10), "batch_size": None},
    "no guide": {"guide": None, "steps": None},
    "restarts": {"restarts": 2},
    "a callback that raises": {"callbacks": once(fails(ValueError))},
    "a callback that stops": {"callbacks": vi.Every(10, lambda progress: RANK == 1 and progress.step == 20)},
    "interrupted": {"callbacks": once(lambda: os.kill(os.getpid(), signal.SIGINT)), "steps": 5_000},
}
ENDINGS = {
    "killed": {"callbacks": once(kill)},
    "frozen": {"callbacks": once(freeze)},
    "never done": {
        "callbacks": once(lambda: time.sleep(1_000)),
        "distributed": vi.DataParallel(timeout=3.0),
    },
}


def run(what: str) -> str:
    common = {"data": Y, "batch_size": 10, "steps": 200, "seed": 0, "distributed": True, "engine": "eager"}
    options = {"model": model, "guide": AutoNormal, **common, **{**FAULTS, **ENDINGS}[what]}
    try:
        fit = vi.fit(progress=False, **options)
    except vi.errors.VipackError as error:
        return f"{type(error).__name__}: {error}"
    except ValueError as error:
        return f"of the user: {error}"
    return f"{fit.steps} steps, {fit.stopped}"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for what in sys.argv[1:]:
        began = time.monotonic()
        print(f"{what} | {run(what)} | {time.monotonic() - began:.1f}", flush=True)
    os._exit(0)  # whatever is left of groups that are broken
