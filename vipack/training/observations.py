"""What a fit says of observations, its own and new ones, one by one: bounds, evidence, latents, reconstructions, new rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from vipack.diagnostics.evidence import log_evidence
from vipack.diagnostics.sources import positive
from vipack.entry import entry
from vipack.errors import DataError, UsageError
from vipack.posterior import Posterior
from vipack.posterior.by_rows import RowBounds, row_bounds, row_evidence
from vipack.posterior.encoding import Encoding, encode, generate, reconstruct
from vipack.posterior.observations import Observations
from vipack.program import Arguments
from vipack.progress import Interrupted, Progress, interrupts, progress_of
from vipack.training.arrays import num_rows_of, read_array
from vipack.training.data import Rows, read_data
from vipack.training.trainer import Trainer
from vipack.types import Estimate

__all__ = ["ObservationAnswers"]


class ObservationAnswers:
    """The part of a fit that answers for observations, in blocks that fit in memory. Networks are in evaluation mode."""

    _trainer: Trainer

    @property
    def posterior(self) -> Posterior:
        """The fitted guide on all of the fit's data."""
        raise NotImplementedError

    @entry
    def log_evidence(
        self,
        num_particles: int = 1_000,
        *,
        data: Any = None,
        fixed: Mapping[str, Any] | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> Estimate:
        """log p(x) in nats by importance sampling with exactly K = `num_particles` draws of the guide.

        Where every latent belongs to an observation, as in a VAE, it is a :class:`vipack.posterior.RowEvidence`: one value an
        observation, with standard errors, ESS, k-hat and an estimate of the bias; ``print`` it. Else it is that of all the
        fit's data together, from Pareto-smoothed weights. ``poutine.scale`` is left out of an observation's densities, so
        that a VAE trained with a weight on its divergence is judged by its model.

        Args:
            data, fixed: new observations, in the form of the fit's; its own by default.
            progress: True or False; a bar in a terminal or a notebook by default.

        Raises:
            UsageError: `data` are given, and a latent does not belong to an observation.
            GuideError: the guide cannot be called with `data`.
        """
        positive("num_particles", num_particles)
        if data is None and not self.posterior.rows_apart:
            return log_evidence(self.posterior.draws(num_particles, seed=seed, keep=False).log_weights)
        with _shown(progress) as bar:
            observations = self._observations("log_evidence", data, fixed)
            return row_evidence(self._trainer.program, observations, num_particles, seed=seed, progress=bar)

    @entry
    def encode(
        self,
        data: Any = None,
        *,
        fixed: Mapping[str, Any] | None = None,
        num_draws: int = 0,
        seed: int = 0,
        progress: bool | None = None,
    ) -> Encoding:
        """What the guide says of each observation's latents: mean, sd and, if asked for, draws of q(z | x).

        Args:
            data, fixed: new observations, in the form of the fit's; its own by default.
            num_draws: draws of each observation's latents.

        Raises:
            UsageError, GuideError: as of :meth:`log_evidence`.
        """
        if num_draws:
            positive("num_draws", num_draws)
        with _shown(progress) as bar:
            observations = self._observations("encode", data, fixed)
            return encode(self._trainer.program, observations, num_draws, seed=seed, progress=bar)

    @entry
    def reconstruct(
        self,
        data: Any = None,
        *,
        fixed: Mapping[str, Any] | None = None,
        num_draws: int = 10,
        seed: int = 0,
        progress: bool | None = None,
    ) -> dict[str, Tensor]:
        """What the model expects of each observation given its latents, the mean of p(x | z) over draws of q(z | x).

        Returns:
            observed site -> ``(N, *event shape)``.

        Args:
            data, fixed: new observations, in the form of the fit's; its own by default.

        Raises:
            UsageError, GuideError: as of :meth:`log_evidence`.
        """
        positive("num_draws", num_draws)
        with _shown(progress) as bar:
            observations = self._observations("reconstruct", data, fixed)
            return reconstruct(self._trainer.program, observations, num_draws, seed=seed, progress=bar)

    @entry
    def generate(
        self,
        num_rows: int | None = None,
        *,
        data: Mapping[str, Any] | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> dict[str, Tensor]:
        """New observations in two steps, z from the prior and x from p(x | z); the guide is not called.

        What the model reads beside observing it (labels, covariates, library sizes) is that of rows drawn from the fit's data.

        Args:
            num_rows: how many; by default as many as `data` has.
            data: the model's argument -> its values for the new rows, such as ``{"label": torch.tensor([3, 7])}``.

        Returns:
            site -> ``(num_rows, *event shape)``, of observed, latent and deterministic sites.

        Raises:
            UsageError: a latent is shared by all observations, or `data` names no argument of the model.
            DataError: `data` have other numbers of rows.
            ModelError: a prior is improper, or the model has a ``pyro.factor``, from which nothing can be drawn.
        """
        given, count = self._given(data, num_rows)
        rows = self._trainer.rows
        if rows.num_rows is None:
            raise UsageError("generate: the fit's data have no rows to draw anew; use fit.predict().")
        indices = torch.randint(rows.num_rows, (count,), generator=torch.Generator().manual_seed(seed))

        def calls(start: int, stop: int) -> Arguments:
            call = rows.rows(indices[start:stop])
            own = {name: value[start:stop] for name, value in given.items()}
            names = list(self.posterior.named_arguments(call))
            args = tuple(own.pop(name, value) for name, value in zip(names, call.args, strict=False))
            return Arguments(args, {**call.kwargs, **own})

        with _shown(progress) as bar:
            return generate(self.posterior, calls, count, seed=seed, progress=bar)

    def _given(self, data: Mapping[str, Any] | None, num_rows: int | None) -> tuple[dict[str, Any], int]:
        if data is not None and not isinstance(data, Mapping):
            raise UsageError(
                f"generate: data must be a dict of the model's arguments, found {type(data).__name__}; for example "
                "data={'label': torch.tensor([3, 7])}."
            )
        names = list(self.posterior.named_arguments())
        for name in data or ():
            if name not in names:
                raise UsageError(f"generate: data has {name!r}, and the model's arguments are {', '.join(names)}.")
        rows = self._trainer.rows
        given = {name: rows.converted(read_array(f"data[{name!r}]", value)) for name, value in (data or {}).items()}
        sizes = {name: num_rows_of(value) for name, value in given.items()}
        if num_rows is None:
            if not sizes:
                raise UsageError("generate: pass how many new rows to draw, as in fit.generate(64).")
            num_rows = next(iter(sizes.values()))
        positive("num_rows", num_rows)
        assert num_rows is not None
        for name, size in sizes.items():
            if size != num_rows:
                raise DataError(
                    f"generate: data[{name!r}] has {size} rows, and {num_rows} are to be drawn; give it as many."
                )
        return given, num_rows

    def _row_bounds(
        self, num_draws: int, data: Any, fixed: Mapping[str, Any] | None, seed: int, progress: bool | None
    ) -> RowBounds:
        with _shown(progress) as bar:
            observations = self._observations("elbo", data, fixed)
            return row_bounds(self._trainer.program, observations, num_draws, seed=seed, progress=bar)

    def _observations(self, question: str, data: Any, fixed: Mapping[str, Any] | None) -> Observations:
        if data is None and fixed is not None:
            raise UsageError(f"{question}: fixed is for new data; pass data= too.")
        rows = self._trainer.rows if data is None else self._new_rows(data, fixed)
        if rows.num_rows is None:
            raise UsageError(f"{question}: the data have no rows, so that there are no observations to tell apart.")
        return Observations(rows.num_rows, rows.rows, rows.full, fitted=data is None and rows.indexed)

    def _new_rows(self, data: Any, fixed: Mapping[str, Any] | None) -> Rows:
        rows = self._trainer.rows
        return read_data(data, rows.fixed if fixed is None else fixed, rows.dtype, rows.device)


@contextlib.contextmanager
def _shown(progress: bool | None) -> Iterator[Progress]:
    """A bar, which Ctrl-C ends.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    with interrupts() as interrupted:
        bar = Progress(progress_of(progress), interrupted)
        try:
            yield bar
        except Interrupted:
            raise KeyboardInterrupt from None
        finally:
            bar.close()
