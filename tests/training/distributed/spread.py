"""What processes share out, as functions of ``distributed``: each gives in several processes what it gives in one."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import scipy.sparse
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import vipack as vi
from tests.training.distributed.programs import CASES, COUNTS, X, Y, regression
from vipack.topics import LDA


def calibration(distributed: bool) -> dict[str, Any]:
    """Two blocks of simulations."""
    answer = vi.vsbc(
        regression, AutoNormal, data=(X[:30], Y[:30]), steps=40, num_simulations=60, num_draws=50, engine="traced",
        distributed=distributed,
    )  # fmt: skip
    return {"names": answer.names, "probabilities": torch.from_numpy(answer.probabilities)}


def comparison(distributed: bool) -> dict[str, Any]:
    common: dict[str, Any] = {"data": (X, Y), "steps": 40, "engine": "eager", "progress": False}
    guides = {"mean-field": AutoNormal, "full-rank": AutoMultivariateNormal, "again": AutoNormal}
    fits = {name: vi.fit(regression, guide, **common) for name, guide in guides.items()}
    table = vi.compare(fits, num_draws=200, repeats=2, chains=False, modes=False, distributed=distributed)
    verdicts = {name: str(fit.posterior.verdict) for name, fit in fits.items()}
    return {"table": table.drop(columns="seconds").to_dict(), "verdicts": verdicts}


def topics(distributed: bool) -> dict[str, Any]:
    """Steps on batches of which each process has a half, after one that all take alike."""
    counts = scipy.sparse.csr_matrix(COUNTS.numpy())
    own = slice(int(os.environ.get("RANK", "0")), None, 2) if distributed else slice(None)
    batches = [counts[first : first + 40][own] for first in range(0, 120, 40)]
    model = LDA(3, total_documents=120).partial_fit(counts).fit_batches(iter(batches), distributed=distributed)
    return {"components": torch.from_numpy(model.components_), "bound": torch.tensor(model.bound_)}


def starts(number: int, distributed: bool) -> dict[str, Any]:
    """What so many starts come to: the first two of three in process 0, the last in process 1."""
    options = {
        **CASES["regression"].options(torch.float64),
        "steps": 40,
        "engine": "traced",
        "distributed": distributed,
    }
    fit = vi.fit(regression, AutoNormal, restarts=number, **options)
    elbo, params = fit.elbo(), {name: value.clone() for name, value in fit.params.items()}
    on = fit.resume(steps=5)
    return {"bounds": fit.restarts, "params": params, "losses": list(on.losses), "elbo": (elbo.value, elbo.se)}


def from_a_file(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The parameters of two processes' fits of rows in a file, and of the same rows in memory."""
    case = CASES["regression"]
    path = folder / f"rows-{os.environ['RANK']}.npy"
    np.save(path, torch.cat([X, Y[:, None]], 1).numpy())

    def model(table: torch.Tensor) -> None:
        regression(table[:, :3], table[:, 3])

    options = {**case.options(torch.float64), "steps": 30, "engine": "traced", "distributed": True}
    kinds = {"file": vi.stream(path), "memory": np.load(path)}
    return {name: vi.fit(model, AutoNormal, **{**options, "data": data}).params for name, data in kinds.items()}


def fewer_batches() -> str:
    """What a process says where the second has a batch less than the first."""
    counts = scipy.sparse.csr_matrix(COUNTS.numpy())
    batches = [counts[:40]] * (2 - int(os.environ["RANK"]))
    try:
        LDA(3).fit_batches(batches, distributed=True)
    except vi.errors.VipackError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def other_fits() -> str:
    """What a process says where each has trained with a seed of its own."""
    common: dict[str, Any] = {"data": (X, Y), "steps": 2, "engine": "eager", "progress": False}
    fit = vi.fit(regression, AutoNormal, optim=pyro.optim.Adam({"lr": 0.1}), seed=int(os.environ["RANK"]), **common)
    try:
        vi.compare({"one": fit}, distributed=True)
    except vi.errors.VipackError as error:
        return f"{type(error).__name__}: {error}"
    return ""


SHARED = {"calibration": calibration, "comparison": comparison, "topics": topics}
