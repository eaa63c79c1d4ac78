"""What a benchmark knows of one posterior: its model, how to read its data, and the reference's names for its draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Posterior", "column", "flat_names", "shaped"]


@dataclass(frozen=True)
class Posterior:
    """One posterior of posteriordb.

    Attributes:
        name: posteriordb's own, ``DATA-MODEL``.
        model: the Pyro program; its sites have the names of the Stan program's parameters.
        read: makes the model's keyword arguments of the contents of the data file.
        latents: makes the values of the model's latents of the Stan program's parameters, where they are not the same.
        evidence: log p(x) in nats of the model's keyword arguments, where an integral of one dimension gives it.
    """

    name: str
    model: Callable[..., Any]
    read: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    latents: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    evidence: Callable[..., float] | None = None

    def data(self, root: str | Path) -> dict[str, Tensor]:
        """The model's keyword arguments, float64, from the folder `root` that holds ``data/`` and ``reference/``."""
        path = Path(root) / "data" / f"{self.name.partition('-')[0]}.json"
        return self.read(json.loads(path.read_text()))


def column(values: Any) -> Tensor:
    """A column of the data file, float64."""
    return torch.as_tensor(values, dtype=torch.float64)


def flat_names(draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Draws ``site -> (S, *shape)`` as the reference names them: ``tau``, ``beta[1]``, ``L[2,1]`` -> ``(S,)``."""
    return {
        name + (f"[{','.join(str(i + 1) for i in index)}]" if index else ""): values[(slice(None), *index)]
        for name, values in draws.items()
        for index in np.ndindex(*values.shape[1:])
    }


def shaped(draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`flat_names`: ``beta[1]``, ``beta[2]``, ... ``(S,)`` -> ``beta`` ``(S, K)``."""
    elements: dict[str, dict[tuple[int, ...], Tensor]] = {}
    for name, values in draws.items():
        site, _, index = name.rstrip("]").partition("[")
        elements.setdefault(site, {})[tuple(int(i) - 1 for i in index.split(",") if i)] = values
    return {site: _array(parts) for site, parts in elements.items()}


def _array(parts: Mapping[tuple[int, ...], Tensor]) -> Tensor:
    shape = [1 + max(index) for index in zip(*parts, strict=True)]
    return torch.stack([parts[index] for index in np.ndindex(*shape)], dim=-1).reshape(-1, *shape)
