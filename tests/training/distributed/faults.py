"""What goes wrong in one process of two: ``python -m tests.training.distributed.faults WHAT``; says what each of them raised."""

import gc
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi

RANK = int(os.environ.get("RANK", "0"))
FOLDER = Path(tempfile.mkdtemp())
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


def full_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))


def cut_off_file():
    """A .npy file that ends before its last rows."""
    path = FOLDER / "cut.npy"
    np.save(path, Y.numpy())
    os.truncate(path, path.stat().st_size - 40)
    return vi.stream(path)


def damaged_file():
    """A .npy file with NaN in the rows of process 1."""
    path = FOLDER / "damaged.npy"
    np.save(path, np.where(np.arange(60) == 45, np.nan, Y.numpy()))
    return vi.stream(path)


def two_schemas():
    """Parquet files of which the second has another column."""
    import pandas

    folder = FOLDER / "parquet"
    folder.mkdir()
    for number, column in enumerate("yz"):
        pandas.DataFrame({column: Y.numpy()}).to_parquet(folder / f"{number}.parquet")
    return vi.stream(folder, columns="y")


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
    "restarts of other numbers": {"restarts": 2 + RANK},
    "a callback that raises": {"callbacks": once(fails(ValueError))},
    "a callback that stops": {"callbacks": vi.Every(10, lambda progress: RANK == 1 and progress.step == 20)},
    "a disk that is full": {
        "checkpoint": vi.Checkpoint(FOLDER / "run.pt", every_steps=20),
        "callbacks": vi.Every(30, lambda progress: full_disk() if progress.step == 30 else None),
    },
    "a file that is cut off": {"data": cut_off_file},
    "a file with NaN": {"data": damaged_file},
    "files of two schemas": {"data": two_schemas},
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
        if callable(options["data"]):
            options["data"] = options["data"]()
        fit = vi.fit(progress=False, **options)
    except vi.errors.VipackError as error:
        return f"{type(error).__name__}: {error}"
    except ValueError as error:
        return f"of the user: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return f"{fit.steps} steps, {fit.stopped}"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for what in sys.argv[1:]:
        began = time.monotonic()
        print(f"{what} | {run(what)} | {time.monotonic() - began:.1f}", flush=True)
        gc.collect()  # a group that another process has not left must not hold up this one
        if what == "a disk that is full" and RANK == 0:
            print(
                f"checkpoint after it | {vi.load(FOLDER / 'run.pt', model, AutoNormal, data=Y).steps} steps | 0",
                flush=True,
            )
    os._exit(0)  # whatever is left of groups that are broken
