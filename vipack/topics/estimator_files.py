"""Estimators of topics as files in which nothing is code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from vipack.errors import CheckpointError
from vipack.topics.estimator import Estimator
from vipack.training.checkpoint import read_file, unharmed, write_file

__all__ = ["read_estimator", "write_estimator"]

_NAMES = ("vocabulary_", "titles_", "topic_names_")

E = TypeVar("E", bound=Estimator)


def write_estimator(
    path: str | os.PathLike[str], estimator: Any, arrays: Sequence[str], more: Mapping[str, Any] | None = None
) -> None:
    """Options, the arrays of these names that there are, words and names, the number of steps and the bound.

    Args:
        more: what else to keep: tensors and plain values.
    """
    stored = {name: torch.from_numpy(np.array(getattr(estimator, name))) for name in arrays if hasattr(estimator, name)}
    content = {
        "kind": type(estimator).__name__,
        "options": {name: _plain(value) for name, value in estimator.get_params().items()},
        "arrays": stored,
        "names": {name: list(getattr(estimator, name)) for name in _NAMES if hasattr(estimator, name)},
        "n_iter_": estimator.n_iter_,
        "bound_": float(estimator.bound_),
        "more": dict(more or {}),
    }
    write_file(path, {"topics": content})


def read_estimator(path: str | os.PathLike[str], kind: type[E]) -> tuple[E, dict[str, Any]]:
    """What :func:`write_estimator` wrote, and `more`.

    Raises:
        CheckpointError: missing, damaged, or of another kind.
    """
    content = read_file(Path(path))
    with unharmed(path):
        own = content["topics"]
        written = own.get("kind", kind.__name__)  # files of version 0.1 are of LDA and do not say so
        if written != kind.__name__:
            raise CheckpointError(f"{path}: holds a {written}; read it with vipack.topics.{written}.load().")
        model: Any = kind()
        model.set_params(
            **{
                name: value.numpy() if isinstance(value, torch.Tensor) else value
                for name, value in own["options"].items()
            }
        )
        for name, tensor in own["arrays"].items():
            setattr(model, name, tensor.numpy())
        for name, names in own["names"].items():
            setattr(model, name, list(names) if name == "topic_names_" else tuple(names))
        model.n_iter_, model.bound_ = own["n_iter_"], own["bound_"]
        return model, dict(own.get("more", {}))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {int(k): list(words) for k, words in value.items()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value if isinstance(value, int | float | str | bool | torch.Tensor) or value is None else str(value)
