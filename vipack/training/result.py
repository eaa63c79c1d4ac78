"""A fit: what training leaves in the user's hands."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from vipack.diagnostics import Diagnosis, diagnose, elbo
from vipack.diagnostics.sources import positive
from vipack.diagnostics.summary import summary_table
from vipack.entry import entry, training_entry
from vipack.errors import TrustWarning, UsageError, warn
from vipack.export import NewData, to_arviz
from vipack.export.labels import Axis
from vipack.posterior.answers import Used, answer, predictions
from vipack.training.checkpoint import write_file
from vipack.training.covariance_answers import CovarianceAnswers
from vipack.training.data import ArrayRows, Rows
from vipack.training.fit_display import FitDisplay
from vipack.training.observation_answers import ObservationAnswers
from vipack.training.transformed import raw_rows
from vipack.training.worsening import warn_if_worse
from vipack.types import Estimate

__all__ = ["Fit"]


class Fit(ObservationAnswers, CovarianceAnswers, FitDisplay):
    """A trained guide for one model and data set.

    Attributes:
        check: the site table and whatever the preflight found.
        posterior: draws with log p(x, z) and log q(z), for diagnostics and plots of your own.
    """

    @entry
    def sample(self, num_draws: int = 1_000, *, seed: int = 0, resample: bool | None = None) -> dict[str, Tensor]:
        """Posterior draws of latent and deterministic sites: ``site -> (num_draws, *site shape)``.

        Discrete latents that are summed out are drawn from their posterior given the others and the data.

        Args:
            resample: draw them with the Pareto-smoothed importance weights, which is what a CORRECTED verdict
                certifies; from four times as many draws of the guide, and row by row where every latent belongs to a
                row, as in a VAE. None does so where the last :meth:`diagnose` said CORRECTED; False never does.
        """
        positive("num_draws", num_draws)
        draws, _ = answer(self.posterior, num_draws, seed=seed, resample=resample, densities=False)
        return draws.sites

    @entry
    def predict(
        self,
        num_draws: int = 1_000,
        *,
        data: Any = None,
        fixed: Mapping[str, Any] | None = None,
        seed: int = 0,
        resample: bool | None = None,
    ) -> dict[str, Tensor]:
        """Posterior predictive draws of the observed and deterministic sites: ``site -> (num_draws, *site shape)``.

        Sites that only this call has come with them. Discrete latents that are summed out have the values that the
        posterior gives them; for new data those that belong to rows are drawn from their prior given the rest.

        Args:
            data: new data in the form of the fit's, without what is to be predicted: the model's argument for it must
                default to None. None predicts the fit's own data anew.
            fixed: new fixed arguments; the fit's own by default.
            resample: from which draws of the latents, as in :meth:`sample`. Those that an amortised guide draws for new
                rows are weighted by these rows' observed values.

        Raises:
            SignatureError: the model cannot be called with `data`.
            ShapeError: a latent has one value a row of the fit's data, and `data` has other rows.
            UsageError: ``resample=True``, and the latents of the new data cannot be weighted.

        Warns:
            TrustWarning: resampled draws are due after the verdict, and cannot be had for the new data.
        """
        positive("num_draws", num_draws)
        rows = None if data is None else self._new_rows(data, fixed)
        arguments = None if rows is None else rows.full()
        sites, which, reason = predictions(self.posterior, num_draws, arguments, seed=seed, resample=resample)
        _tell(which, reason, resample)
        return sites

    @entry
    def elbo(
        self,
        num_draws: int = 1_000,
        *,
        data: Any = None,
        fixed: Mapping[str, Any] | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> Estimate:
        """The ELBO on all data with its standard error, in nats.

        Args:
            data, fixed: new observations, in the form of the fit's, of which each has latents of its own, as in a VAE. The
                answer, a :class:`vipack.posterior.RowBounds`, then has one value an observation too, in blocks that fit in
                memory. ``poutine.scale`` is left out of their densities.

        Raises:
            UsageError: `data` are given, and a latent does not belong to an observation.
            GuideError: the guide cannot be called with `data`.
        """
        positive("num_draws", num_draws)
        if data is not None:
            return self._row_bounds(num_draws, data, fixed, seed, progress)
        return elbo(self.log_weights(num_draws, seed=seed))

    @entry
    def log_weights(self, num_draws: int = 1_000, *, seed: int = 0) -> Tensor:
        """``log p(x, z) - log q(z)`` at draws from the guide, ``(num_draws,)`` in nats, float64."""
        positive("num_draws", num_draws)
        return self.posterior.draws(num_draws, seed=seed, keep=False).log_weights

    @entry
    def diagnose(self, num_draws: int = 4_000, *, seed: int = 0, progress: bool | None = None) -> Diagnosis:
        """The verdict: TRUST, CORRECTED or DISTRUST, with figures and reasons.

        Ctrl-C ends it once there is a set of draws; the verdict then says what was not checked.

        From then on :meth:`sample`, :meth:`predict`, :meth:`summary`, :meth:`to_arviz` and plots follow it (resampled after CORRECTED).

        Args:
            progress: True or False; a bar where there is a terminal or notebook by default.
        """
        positive("num_draws", num_draws)
        return diagnose(
            self.posterior,
            num_draws=num_draws,
            seed=seed,
            stopped=self.stopped,
            several_starts=self.several_starts,
            progress=progress,
        )

    @entry
    def summary(self, num_draws: int = 4_000, *, seed: int = 0, resample: bool | None = None) -> pd.DataFrame:
        """Mean, sd and quantiles of every latent and deterministic element: one row each, as ``theta[0]``.

        The name of the columns says which draws these are, as in :meth:`sample`, and ``attrs["draws"]`` in a sentence.
        """
        positive("num_draws", num_draws)
        computed = {site.name for site in self.posterior.table.of_kind("deterministic")}
        drawn, which = answer(self.posterior, num_draws, seed=seed, resample=resample, densities=False)
        return summary_table(drawn.sites, computed, which)

    @entry
    def to_arviz(
        self,
        num_draws: int = 1_000,
        *,
        data: Any = None,
        fixed: Mapping[str, Any] | None = None,
        prior: bool | int = False,
        coords: Mapping[str, Any] | None = None,
        dims: Mapping[str, Sequence[str | None]] | None = None,
        seed: int = 0,
        resample: bool | None = None,
    ) -> Any:
        """All groups that ArviZ knows: InferenceData with ArviZ 0.x, a DataTree with 1.x.

        Dimensions have the names of the model's plates. Where the data came as pandas objects, their index labels the
        plate of their rows, and columns the plate that has their number, if that is one alone.

        Args:
            data, fixed: new data, as for :meth:`predict`, whose predictions are in ``predictions`` and
                ``predictions_constant_data``.
            prior: True for as many draws in ``prior`` and ``prior_predictive``, or how many.
            coords: dimension -> labels, before those of pandas.
            dims: variable -> names of its dimensions, without chain and draw, or of those that no plate names; None
                leaves one as it is.
            resample: which draws, as in :meth:`sample`; the attribute ``draws`` says which they are.

        Raises:
            UsageError: `coords` or `dims` name what is not there, or are of another length; as :meth:`predict`.
            ModelError: `prior` is asked for, and is improper.
        """
        positive("num_draws", num_draws)
        if not isinstance(prior, bool):
            positive("prior", prior)
        new = None if data is None else self._predicted(num_draws, data, fixed, seed, resample)
        return to_arviz(
            self.posterior,
            num_draws,
            seed=seed,
            resample=resample,
            coords=coords,
            dims=dims,
            axes=self._axes(self._trainer.rows, self.posterior.named_arguments()),
            new=new,
            prior=num_draws if prior is True else int(prior),
        )

    def _predicted(
        self, num_draws: int, data: Any, fixed: Mapping[str, Any] | None, seed: int, resample: bool | None
    ) -> NewData:
        rows = self._new_rows(data, fixed)
        sites, which, reason = predictions(self.posterior, num_draws, rows.full(), seed=seed, resample=resample)
        _tell(which, reason, resample)
        arguments = self.posterior.named_arguments(rows.full())
        return NewData(arguments, sites, which, self._axes(rows, arguments))

    @staticmethod
    def _axes(rows: Rows, arguments: Mapping[str, Any]) -> dict[str, tuple[Axis, ...]]:
        names = list(arguments)
        return {names[key] if isinstance(key, int) else key: axes for key, axes in rows.axes.items()}

    # --- going on, and leaving

    @training_entry
    def resume(self, steps: int | None = None) -> Fit:
        """Train this fit further, bit for bit as if it had never stopped.

        Args:
            steps: how many more; None finishes what was planned. Beyond that, the learning rate of the default
                optimizer, which has fallen, starts high again and falls over these steps.
        """
        if steps is not None:
            positive("steps", steps)
        if self._loaded is not None:
            _ = self.posterior  # takes note of what was judged, before it moves
        if steps is None:
            self._trainer.train()
        else:
            self._trainer.train_further(steps)
        warn_if_worse(self._trainer)
        return self

    @entry
    def save(self, path: str | os.PathLike[str], *, data: bool = True) -> None:
        """Write the fit to one file, whole or not at all; ``vipack.load`` reads it.

        Args:
            data: keep the data in the file, so that loading needs nothing else; a Dataset or DataLoader cannot be kept.

        Raises:
            UsageError: the folder of `path` does not exist, or `path` is a folder.
        """
        content = self._trainer.content()
        judged = None if self.verdict is None else self.posterior.judged
        if judged is not None:
            content |= {"verdict": judged.verdict.value, "within": judged.within, "certified": judged.certified}
        rows = raw_rows(self._trainer.rows)
        stored = rows.state() if data and isinstance(rows, ArrayRows) else None
        if stored is not None:
            content["data"] = stored
            validation_rows = raw_rows(self._trainer.plan.validation)
            content["validation_data"] = validation_rows.state() if isinstance(validation_rows, ArrayRows) else None
        write_file(path, content)

    @entry
    def to_pyro(self) -> None:
        """Copy the parameters into Pyro's global store and the modules they came from, as ``pyro.infer.SVI`` would."""
        self._trainer.program.parameters.write_back()


def _tell(which: Used, reason: str, resample: bool | None) -> None:
    """That predictions are not of the draws that were due, and why, if there is a reason."""
    if reason and resample:
        raise UsageError(f"resample=True: {reason}; pass resample=False, or the observed values too.")
    if reason:
        warn(TrustWarning(f"predictions are from {which}: {reason}."))
