"""What a fit says of observations, its own and new ones, one by one: bounds, evidence, latents, reconstructions, new rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vipack.diagnostics.evidence import log_evidence
from vipack.diagnostics.sources import positive
from vipack.display import listed
from vipack.entry import entry
from vipack.errors import DataError, UsageError
from vipack.posterior import Posterior
from vipack.posterior.annealing import Annealing, Sandwich, annealed_evidence, sandwich
from vipack.posterior.by_rows import RowBounds, RowEvidence, row_bounds, row_evidence
from vipack.posterior.encoding import Encoding, decode, encode, generate, reconstruct
from vipack.posterior.fills import Filling
from vipack.posterior.imputation import Imputation, impute
from vipack.posterior.observations import Observations
from vipack.program import Arguments
from vipack.program.checks.observed import check_observed
from vipack.progress import shown
from vipack.training.arrays import num_rows_of, read_array
from vipack.training.data import Rows
from vipack.training.fit_record import FitRecord
from vipack.training.missing_entries import without_gaps
from vipack.training.reading_data import read_data
from vipack.training.transformed import TransformedRows, raw_rows
from vipack.types import Estimate

__all__ = ["ObservationAnswers"]


class ObservationAnswers(FitRecord):
    """The part of a fit that answers for observations, in blocks that fit in memory. Networks are in evaluation mode."""

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
        with shown(progress) as bar:
            observations = self._observations("log_evidence", data, fixed)
            return row_evidence(self._trainer.program, observations, num_particles, seed=seed, progress=bar)

    @entry
    def annealed_evidence(
        self,
        *,
        data: Any = None,
        fixed: Mapping[str, Any] | None = None,
        num_chains: int = 16,
        num_temperatures: int = 100,
        num_leapfrog: int = 3,
        seed: int = 0,
        progress: bool | None = None,
    ) -> RowEvidence:
        """log p(x) in nats of observations that each have latents of their own, by annealed importance sampling from the guide.

        For guides whose weights are too uneven for :meth:`log_evidence`: chains go from q(z | x) to the posterior by Hamiltonian
        Monte Carlo. A lower bound in expectation; see :class:`vipack.posterior.RowEvidence`.

        Args:
            data, fixed: new observations, in the form of the fit's; its own by default.
            num_chains: of each observation.
            num_temperatures, num_leapfrog: transitions of a chain, and gradients in each.

        Raises:
            UsageError: a latent does not belong to an observation, or is not on all of R^d.
            GuideError: the guide cannot be called with `data`.

        Source: Neal (2001); Wu et al. (2017), arXiv:1611.04273.
        """
        how = Annealing(num_chains, num_temperatures, num_leapfrog)
        with shown(progress) as bar:
            observations = self._observations("annealed_evidence", data, fixed)
            return annealed_evidence(self._trainer.program, observations, how, seed=seed, progress=bar)

    @entry
    def simulated_evidence(
        self,
        num_rows: int = 100,
        *,
        num_chains: int = 16,
        num_temperatures: int = 100,
        num_leapfrog: int = 3,
        seed: int = 0,
        progress: bool | None = None,
    ) -> Sandwich:
        """Bounds from both sides of log p(x) of observations that the model simulates: how far :meth:`annealed_evidence` may be off.

        Args:
            num_rows: observations to simulate.
            num_chains, num_temperatures, num_leapfrog: as of :meth:`annealed_evidence`.

        Raises:
            UsageError: as of :meth:`annealed_evidence`.

        Source: Grosse, Ghahramani, Adams (2015), arXiv:1511.02543.
        """
        positive("num_rows", num_rows)
        how = Annealing(num_chains, num_temperatures, num_leapfrog)
        simulated = self.generate(num_rows, seed=seed, progress=False)
        rows = self._trainer.rows
        if rows.num_rows is None:
            raise UsageError("simulated_evidence: the fit's data have no rows.")
        call = self._drawn_rows(num_rows, seed)
        names = list(self.posterior.named_arguments(call))
        values = {name: simulated.get(name, value) for name, value in self.posterior.named_arguments(call).items()}
        args = tuple(values.pop(name) for name, _ in zip(names, call.args, strict=False))
        observed = [site.name for site in self.posterior.table.of_kind("observed")]
        if not set(observed) <= set(names):
            raise UsageError(
                f"simulated_evidence: the observed sites {', '.join(map(repr, observed))} must have the names of the model's "
                f"arguments ({', '.join(names)}), to be given what was simulated for them."
            )
        latents = {site.name: simulated[site.name] for site in self.posterior.table.of_kind("latent")}
        with shown(progress) as bar:
            pair = Arguments(args, {**call.kwargs, **values}), latents
            return sandwich(self._trainer.program, [pair], how, seed=seed, progress=bar)

    @entry
    def posterior_of(
        self, data: Any = None, *, fixed: Mapping[str, Any] | None = None, most: int | None = None
    ) -> Posterior:
        """The fitted guide on observations, for diagnostics of your own; ``poutine.scale`` is left out of their densities.

        Args:
            data, fixed: new observations, in the form of the fit's; its own by default.
            most: of them, evenly spaced; all by default.
        """
        observations = self._observations("posterior_of", data, fixed)
        count = observations.num_rows if most is None else min(positive("most", most), observations.num_rows)
        if data is not None:
            check_observed(self._trainer.program, observations.some(count))
        return Posterior(self._trainer.program, observations.some(count), scaled=False)

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
        with shown(progress) as bar:
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
        with shown(progress) as bar:
            observations = self._observations("reconstruct", data, fixed)
            return reconstruct(self._trainer.program, observations, num_draws, seed=seed, progress=bar)

    @entry
    def impute(
        self,
        data: Any = None,
        *,
        observed: Any = None,
        fixed: Mapping[str, Any] | None = None,
        num_draws: int = 0,
        num_particles: int = 1_000,
        num_fills: int = 20,
        num_rounds: int = 20,
        seed: int = 0,
        progress: bool | None = None,
    ) -> Imputation:
        """What is missing of observations, given what is there: mean, sd and, if asked for, draws of p(x_missing | x_observed).

        Latents are drawn from the guide, on the observation with its gaps filled by Markov chains, and weighted by how well they
        explain the entries that are there. Where weights are too uneven a warning names the observations.

        Args:
            data, fixed: new observations, in the form of the fit's; its own by default. NaN stands for an entry that is missing.
            observed: True where an entry is there: a mask in the shape of the one argument that has gaps, or a dict from the
                model's arguments to masks. By default all that is not NaN is.
            num_draws: complete observations to draw for each.
            num_particles: weighted draws of each observation's latents.
            num_fills, num_rounds: chains for each observation, and rounds of each, that fill in what is missing.

        Raises:
            UsageError, GuideError: as of :meth:`log_evidence`.
            UsageError: entries depend on each other given the latents, or the model reads what is missing, as a library size.
            DataError: `observed` is no mask of the data's shape, or calls an entry observed that is NaN; entries of an argument
                are missing that the model does not observe.

        Warns:
            TrustWarning: the weights of some observations cannot be trusted.
        """
        positive("num_particles", num_particles)
        positive("num_fills", num_fills)
        how = Filling(num_particles, num_fills, num_rounds)
        if num_rounds:
            positive("num_rounds", num_rounds)
        if num_draws:
            positive("num_draws", num_draws)
        if data is None and fixed is not None:
            raise UsageError("impute: fixed is for new data; pass data= too.")
        rows = self._trainer.rows
        raw = raw_rows(rows)
        new = raw if data is None else read_data(data, raw.fixed if fixed is None else fixed, raw.dtype, raw.device)
        filled, missing = without_gaps(self._trainer.program.model, new, observed, raw, seed)
        own = rows.of(filled) if isinstance(rows, TransformedRows) else filled
        with shown(progress) as bar:
            observations = Observations(own.num_rows or 0, own.rows, own.full, fitted=data is None and rows.indexed)
            return impute(self._trainer.program, observations, missing, how, num_draws, seed=seed, progress=bar)

    @entry
    def decode(
        self, latents: Tensor | Mapping[str, Any], *, data: Mapping[str, Any] | None = None, seed: int = 0
    ) -> dict[str, Tensor]:
        """The mean of p(x | z) at latents of your own, such as points between two encodings.

        Args:
            latents: latent -> ``(n, *event shape)``; a tensor where there is one latent alone.
            data: as of :meth:`generate`, what the model reads beside observing it; that of rows of the fit's by default.

        Returns:
            observed site -> ``(n, *event shape)``.

        Raises:
            UsageError: a latent is missing, unknown, or of another shape.
        """
        names = [site.name for site in self.posterior.table.of_kind("latent")]
        if not isinstance(latents, Mapping):
            if len(names) != 1:
                raise UsageError(f"decode: the model has the latents {listed(names)}; give a dict of them.")
            latents = {names[0]: latents}
        rows = self._trainer.rows
        values = {name: rows.converted(read_array(f"latents[{name!r}]", value)) for name, value in latents.items()}
        count = len(next(iter(values.values()))) if values else 1
        given, _ = self._given(data, count)
        with shown(False) as bar:
            return decode(self.posterior, self._calls(given, count, seed), values, progress=bar)

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
            SupportError: `data` are not such as the model can be conditioned on.
            ModelError: a prior is improper, or the model has a ``pyro.factor``, from which nothing can be drawn.
        """
        given, count = self._given(data, num_rows)
        rows = self._trainer.rows
        if rows.num_rows is None:
            raise UsageError("generate: the fit's data have no rows to draw anew; use fit.predict().")
        with shown(progress) as bar:
            return generate(self.posterior, self._calls(given, count, seed), count, seed=seed, progress=bar)

    def _calls(self, given: Mapping[str, Any], count: int, seed: int) -> Callable[[int, int], Arguments]:
        """Calls on drawn rows from one to another, with what is given in their place."""

        def calls(start: int, stop: int) -> Arguments:
            call = self._drawn_rows(count, seed, start, stop)
            own = {name: value[start:stop] for name, value in given.items()}
            names = list(self.posterior.named_arguments(call))
            args = tuple(own.pop(name, value) for name, value in zip(names, call.args, strict=False))
            chosen = Arguments(args, {**call.kwargs, **own})
            if given:
                check_observed(self._trainer.program, chosen, with_guide=False)
            return chosen

        return calls

    def _drawn_rows(self, count: int, seed: int, start: int = 0, stop: int | None = None) -> Arguments:
        """The call on `count` rows of the fit's data drawn by `seed`, or on those from `start` to `stop` of them."""
        rows = self._trainer.rows
        indices = torch.randint(rows.num_rows or 1, (count,), generator=torch.Generator().manual_seed(seed))
        call = rows.rows(indices[start:stop])
        return Arguments(call.args, call.kwargs)

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
        with shown(progress) as bar:
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
        new = read_data(data, rows.fixed if fixed is None else fixed, rows.dtype, rows.device)
        return rows.of(new) if isinstance(rows, TransformedRows) else new
