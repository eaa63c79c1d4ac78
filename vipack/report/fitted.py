"""What a page reads of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from vipack.diagnostics.report import Diagnosis
from vipack.posterior import Encoding, Posterior
from vipack.program import Check
from vipack.types import EngineReport, Stopped

__all__ = ["Fitted", "StageTable"]


class StageTable(Protocol):
    """The stages of a fit without a guide."""

    def __len__(self) -> int:
        """How many there are; none where the guide was the user's."""

    def to_frame(self) -> pd.DataFrame:
        """One row a stage."""


class Fitted(Protocol):
    """A fit; :class:`vipack.Fit` says what each of these is."""

    @property
    def posterior(self) -> Posterior: ...

    @property
    def check(self) -> Check: ...

    @property
    def losses(self) -> np.ndarray: ...

    @property
    def history(self) -> pd.DataFrame: ...

    @property
    def params(self) -> dict[str, Tensor]: ...

    @property
    def num_observations(self) -> int | None: ...

    @property
    def steps(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def stopped(self) -> Stopped: ...

    @property
    def restarts(self) -> tuple[float, ...]: ...

    @property
    def stages(self) -> StageTable: ...

    @property
    def engine(self) -> EngineReport: ...

    @property
    def setup(self) -> Mapping[str, str]: ...

    def diagnose(self, num_draws: int = 4_000, *, seed: int = 0, progress: bool | None = None) -> Diagnosis: ...

    def posterior_of(self, data: Any = None, *, most: int | None = None) -> Posterior: ...

    def generate(self, num_rows: int, *, seed: int = 0, progress: bool | None = None) -> dict[str, Tensor]: ...

    def reconstruct(self, data: Any = None, *, seed: int = 0, progress: bool | None = None) -> dict[str, Tensor]: ...

    def encode(self, data: Any = None, *, seed: int = 0, progress: bool | None = None) -> Encoding: ...
