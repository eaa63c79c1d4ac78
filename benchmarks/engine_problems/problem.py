"""What a problem of the benchmark is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LEARNING_RATE", "Problem"]

LEARNING_RATE = 0.005


@dataclass(frozen=True)
class Problem:
    """One model and guide for both libraries, on the same arrays.

    Attributes:
        pyro: model, guide and ``pyro.infer`` ELBO, made anew on each call.
        numpyro: model, guide and NumPyro ELBO likewise; the guide is made of the model.
        arrays: positional arguments of the model.
        small: under 100 latents and 1,000 rows.
        jit: whether Pyro's JitTrace_ELBO can run it.
    """

    name: str
    pyro: Callable[[], tuple[Any, Any, Any]]
    numpyro: Callable[[], tuple[Any, Any, Any]]
    arrays: tuple[np.ndarray, ...]
    small: bool
    jit: bool = True
