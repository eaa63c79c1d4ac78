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
    def posterior(self) -> Posterior: ...  # noqa: D102

    @property
    def check(self) -> Check: ...  # noqa: D102

    @property
    def losses(self) -> np.ndarray: ...  # noqa: D102

    @property
    def history(self) -> pd.DataFrame: ...  # noqa: D102

    @property
    def params(self) -> dict[str, Tensor]: ...  # noqa: D102

    @property
    def num_observations(self) -> int | None: ...  # noqa: D102

    @property
    def steps(self) -> int: ...  # noqa: D102

    @property
    def seconds(self) -> float: ...  # noqa: D102

    @property
    def stopped(self) -> Stopped: ...  # noqa: D102

    @property
    def restarts(self) -> tuple[float, ...]: ...  # noqa: D102

    @property
    def stages(self) -> StageTable: ...  # noqa: D102

    @property
    def engine(self) -> EngineReport: ...  # noqa: D102

    @property
    def setup(self) -> Mapping[str, str]: ...  # noqa: D102

    def diagnose(self, num_draws: int = 4_000, *, seed: int = 0, progress: bool | None = None) -> Diagnosis: ...  # noqa: D102

    def posterior_of(self, data: Any = None, *, most: int | None = None) -> Posterior: ...  # noqa: D102

    def generate(self, num_rows: int, *, seed: int = 0, progress: bool | None = None) -> dict[str, Tensor]: ...  # noqa: D102

    def reconstruct(  # noqa: D102
        self, data: Any = None, *, seed: int = 0, progress: bool | None = None
    ) -> dict[str, Tensor]: ...

    def encode(self, data: Any = None, *, seed: int = 0, progress: bool | None = None) -> Encoding: ...  # noqa: D102
