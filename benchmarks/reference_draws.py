"""What a reference's draws say of a model: whether it is the reference's own, and its evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.bridge import bridge
from benchmarks.estimates import NO_EVIDENCE, Reference
from benchmarks.posteriordb_models import Posterior, shaped
from vipack.program import Arguments, LogJoint, Program, seeded
from vipack.types import Estimate

__all__ = ["check", "evidence", "read_reference"]

CHUNK = 2_000  # draws whose log density is computed at once


def read_reference(root: Path, name: str, evidence: Estimate = NO_EVIDENCE) -> Reference:
    """The reference of the posterior `name`; of its quantiles those that the file has."""
    with np.load(root / "reference" / f"{name}.npz") as file:
        quantiles = {int(key[1:]) / 100: file[key] for key in ("q05", "q95") if key in file}
        return Reference(tuple(str(n) for n in file["names"]), file["mean"], file["sd"], quantiles, evidence)


def check(posteriors: Iterable[Posterior], root: Path, num_draws: int = 200) -> pd.DataFrame:
    """Are the models the references' own? z-scores of two identities that hold under no other posterior.

    With u drawn from the posterior on R^D, the score has mean zero, and its product with u - E[u] has mean minus one.
    The reference's draws give both; the larger of the D z-scores of each stays below 4 where the model is right.
    """
    rows = {}
    for posterior in tqdm(list(posteriors), unit="model"):
        joint, u = _unconstrained(posterior, root, num_draws)
        score, value = torch.func.vmap(torch.func.grad_and_value(joint))(u)
        product = (u - u.mean(0)) * score + 1
        rows[posterior.name] = {
            "dim": joint.dim,
            "finite": bool(value.isfinite().all() and score.isfinite().all()),
            "score z": _largest_z(score),
            "product z": _largest_z(product),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def evidence(posterior: Posterior, root: Path) -> Estimate:
    """Log p(x) in nats: exact where the model has an integral of one dimension, else by bridge sampling."""
    if posterior.evidence is not None:
        return Estimate(posterior.evidence(**posterior.data(root)), 0.0)
    joint, u = _unconstrained(posterior, root)
    log_density = torch.func.vmap(joint)

    def chunked(values: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([log_density(chunk) for chunk in values.split(CHUNK)])

    return bridge(chunked, u)


def _unconstrained(posterior: Posterior, root: Path, num_draws: int | None = None) -> tuple[LogJoint, Tensor]:
    """The model's log joint on R^D, and the reference's draws there ``(S, D)``."""
    program = Program(posterior.model, _no_guide, dtype=torch.float64, device=torch.device("cpu"))
    with seeded(0):
        joint = LogJoint(program, Arguments((), posterior.data(root)))
    with np.load(root / "reference" / f"{posterior.name}.npz") as file:
        num_draws = num_draws or len(file["draws"])
        chosen = np.linspace(0, len(file["draws"]) - 1, num_draws).astype(int)
        columns = torch.from_numpy(file["draws"][chosen]).double().T
        named = dict(zip((str(n) for n in file["names"]), columns, strict=True))
    latents = posterior.latents(shaped(named))
    u = torch.stack([joint.unconstrain({s: latents[s][i] for s in joint.shapes}) for i in range(num_draws)])
    return joint, u


def _largest_z(values: Tensor) -> float:
    return float((values.mean(0) / values.std(0)).abs().max()) * math.sqrt(len(values))


def _no_guide(**_: Tensor) -> None:
    pass
