"""What training did, as a fit tells it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

from vipack.entry import entry
from vipack.posterior import Posterior
from vipack.posterior.blocked_posterior import BlockedPosterior
from vipack.posterior.observations import Observations
from vipack.program import Check, Program
from vipack.training.data import Rows
from vipack.training.fitted_guide import FittedGuide
from vipack.training.history import history
from vipack.training.ladder.stages import Stages
from vipack.training.trainer import Trainer
from vipack.types import EngineReport, Judged, Stopped, Verdict

__all__ = ["FitRecord", "posterior_of_rows"]


class FitRecord:
    """What everything else that a fit says stands on: its guide, its posterior, and how they came about."""

    def __init__(self, trainer: Trainer, judged: Judged | None = None) -> None:
        self._trainer = trainer
        self._posterior: Posterior | None = None
        self._loaded = judged  # of the fit as it was saved: its verdict, which mode it is within, what is certified

    @property
    def guide(self) -> FittedGuide:
        """The guide with this fit's parameters, usable in plain Pyro."""
        return FittedGuide(self._trainer.program)

    @property
    @entry
    def params(self) -> dict[str, Tensor]:
        """Copies of the parameters by Pyro name, constrained."""
        return self._trainer.program.parameters.constrained()

    @property
    def losses(self) -> np.ndarray:
        """The loss of every step, ``(steps,)``: minus the ELBO estimate, in nats."""
        return np.asarray(self._trainer.state.losses, dtype=np.float64)

    @property
    def history(self) -> pd.DataFrame:
        """How training went: step, epoch and loss (nats, the mean since the row before), in some 100 rows. With
        ``validation=`` a row an evaluation, with seconds, and ``elbo`` and ``elbo_se`` of an observation held out (nats).
        """
        return history(self._trainer.state)

    @property
    def num_observations(self) -> int | None:
        """The rows of the data that it was trained on, without those held out; None where the data have no rows."""
        return self._trainer.rows.num_rows

    @property
    def steps(self) -> int:
        """Gradient steps done."""
        return self._trainer.state.step

    @property
    def seconds(self) -> float:
        """Time spent in training, resumed runs included."""
        return self._trainer.state.seconds

    @property
    def stopped(self) -> Stopped:
        """Why training ended."""
        return self._trainer.stopped

    @property
    def restarts(self) -> tuple[float, ...]:
        """The ELBO (nats) that each start of ``restarts=`` came to; empty for a single start."""
        return self._trainer.restarts

    @property
    def several_starts(self) -> bool:
        """Whether this is the best of several starts: of ``restarts=``, or of the ladder's paths."""
        return len(self.restarts) > 1 or any(s.name == "paths" and s.elbo is not None for s in self.stages)

    @property
    def stages(self) -> Stages:
        """What each stage of the ladder gained and cost, where the fit had no guide; ``print(fit.stages)`` is a table."""
        return self._trainer.stages

    @property
    def engine(self) -> EngineReport:
        """Which tier ran, and why no faster one."""
        return self._trainer.engine.report

    @property
    def check(self) -> Check:
        """The preflight's findings; ``str(fit.check)`` is the shape table."""
        return self._trainer.prepared.check

    @property
    def data_fingerprint(self) -> str:
        """Equal for fits of the same data."""
        return self._trainer.rows.fingerprint()

    @property
    @entry
    def posterior(self) -> Posterior:
        """The fitted guide on all of the fit's data."""
        if self._posterior is None:
            self._posterior = posterior_of_rows(self._trainer.program, self._trainer.rows)
            self._posterior.ends = self._trainer.ends
            if self._loaded is not None:
                self._posterior.judge(self._loaded)
        return self._posterior

    @property
    def verdict(self) -> Verdict | None:
        """What the last :meth:`diagnose` said of the fit as it stands, which its answers follow; None if it was not judged.

        A fit that is resumed is not judged any more; one that is saved and loaded is what it was, on the same data.
        """
        return None if self._posterior is None and self._loaded is None else self.posterior.verdict


def posterior_of_rows(program: Program, rows: Rows) -> Posterior:
    """The guide on all rows, read in blocks where they do not fit in memory."""
    observations = Observations(rows.num_rows, rows.rows, rows.full, fitted=True) if rows.num_rows else None
    if observations is not None and not rows.fits_in_memory:
        return BlockedPosterior(program, observations)
    return Posterior(program, rows.full(), observations=observations)
