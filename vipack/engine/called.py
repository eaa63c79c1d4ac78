"""A compiled step called from Python, one step a call: for programs of Inductor's that are not understood as a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.engine.driver import DriverSpec
from vipack.engine.native import NativeError

__all__ = ["CalledStep"]


class CalledStep:
    """Inductor's own artifact behind the interface of :class:`~vipack.engine.native.NativeStep`."""

    def __init__(self, folder: Path, spec: DriverSpec, inputs: Sequence[Tensor]) -> None:
        import torch._inductor as inductor

        artifact: Any = inductor
        try:
            self._call = artifact.CompiledArtifact.load(path=str(folder / "artifact"), format="unpacked")
        except Exception as error:  # whatever Inductor finds wrong with a file of its own
            raise NativeError(f"the compiled step in {folder} does not load: {error}") from error
        self._inputs = list(inputs)
        self._spec = spec

    def __call__(self, feeds: Sequence[np.ndarray], losses: np.ndarray) -> int:
        """See :class:`~vipack.engine.native.NativeStep`."""
        fed = [torch.from_numpy(feed) for feed in feeds]
        with torch.no_grad():
            for k in range(len(losses)):
                for place, values in zip(self._spec.fed, fed, strict=True):
                    self._inputs[place].copy_(values[k])
                for place in self._spec.normals:
                    self._inputs[place].normal_()
                (loss,) = self._call(*self._inputs)
                losses[k] = loss.numpy()
                if self._spec.copies is None and not math.isfinite(losses[k]):
                    return k + 1
        return len(losses)
