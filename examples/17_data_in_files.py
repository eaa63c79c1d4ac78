"""Data larger than memory: a table in a file, read as the fit goes, and the posterior that all rows together give."""

import tempfile
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

import vipack as vi

SLOPES, NOISE = np.array([1.0, -2.0, 0.5]), 0.3
NUM_ROWS = 100_000


def model(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.sample("slope", dist.Normal(torch.zeros(x.shape[1]), 10.0).to_event(1))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(x @ slope, NOISE), obs=y)


def write(path: Path, seed: int) -> None:
    """The table in pieces, as no one ever has it all in memory; the last column is the response."""
    rng = np.random.default_rng(seed)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (NUM_ROWS, len(SLOPES) + 1))
    for start in range(0, NUM_ROWS, 50_000):
        x = rng.normal(size=(50_000, len(SLOPES)))
        table[start : start + 50_000] = np.c_[x, x @ SLOPES + NOISE * rng.normal(size=50_000)]
    table.flush()


def exact(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of the slopes under their posterior, from sums over all rows."""
    table = np.load(path).astype(np.float64)
    precision = table[:, :-1].T @ table[:, :-1] / NOISE**2 + np.eye(len(SLOPES)) / 100
    covariance = np.linalg.inv(precision)
    return covariance @ table[:, :-1].T @ table[:, -1] / NOISE**2, np.sqrt(np.diag(covariance))


def main(num_steps: int = 3_000, seed: int = 0, path: Path | None = None) -> vi.Fit:
    path = Path(tempfile.mkdtemp()) / "table.npy" if path is None else path
    write(path, seed)
    table = np.load(path, mmap_mode="r")
    data = vi.stream(table[:, :-1]), vi.stream(table[:, -1])
    return vi.fit(model, AutoMultivariateNormal, data=data, batch_size=2_000, steps=num_steps, seed=seed, average=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.npy"
        fit = main(path=path)
        draws = fit.sample()["slope"]
        mean, sd = exact(path)
        print(f"slopes {draws.mean(0).numpy().round(4)}, sds {draws.std(0).numpy().round(5)}")
        print(f"exact  {mean.round(4)}, sds {sd.round(5)}")
        print(fit.diagnose(num_draws=400))
