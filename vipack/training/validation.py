"""The ELBO of held-out observations along the run, and stopping the run when it no longer rises."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.entry import on_its_own
from vipack.errors import DataError, GuideError, UsageError, VipackError
from vipack.hints import checked_class
from vipack.importance import mean_and_se
from vipack.posterior.observations import Observations
from vipack.program import Arguments, Program, seeded
from vipack.program.checks.amortised import check_amortised
from vipack.program.checks.observed import check_observed
from vipack.program.densities.densities import compute, plate_nesting, row_sums, total
from vipack.program.densities.scaling import Unscaled
from vipack.program.densities.substitution import Given
from vipack.program.evaluation.evaluation import ModelDensity
from vipack.program.sites.sites import read_sites, sample_nodes
from vipack.training.data import Rows
from vipack.training.prepare import Problem, device_of
from vipack.training.reading_data import read_data
from vipack.types import Estimate, Stopped, StopReason

__all__ = ["EarlyStopping", "Validation", "ValidationPoint", "split_off"]

_MOST_ROWS = 1_000  # in a block
_LEAST_PERIOD, _MOST_PERIOD = 100, 1_000  # steps between evaluations, unless an epoch lies between
_LEAST_TERMS = 1_000  # observations times draws, which an evaluation averages over


class ValidationPoint(NamedTuple):
    """The mean ELBO of a held-out observation, in nats, and its standard error, after `step` steps."""

    step: int
    epoch: int
    seconds: float
    elbo: float
    se: float


@checked_class
@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the ELBO of held-out observations has not risen for `patience` evaluations; for ``fit(..., validation=...)``.

    An evaluation is made every epoch, or every 100 to 1,000 steps where epochs are shorter or longer.

    Attributes:
        patience: evaluations without a rise after which the run ends.
        min_delta: nats an observation that a rise must exceed to count.
        restore_best: end with the parameters and buffers of the best evaluation, whatever ended the run. A run cut off by
            Ctrl-C keeps those that it had come to, so that it can go on.
    """

    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.patience, bool) or not isinstance(self.patience, int) or self.patience < 1:
            raise UsageError(
                f"EarlyStopping: patience must be a positive number of evaluations, found {self.patience!r}."
            )
        if isinstance(self.min_delta, bool) or not isinstance(self.min_delta, int | float) or not self.min_delta >= 0:
            raise UsageError(
                f"EarlyStopping: min_delta must be a number of nats of at least 0, found {self.min_delta!r}."
            )

    def __call__(self, losses: Sequence[float], seconds: float) -> Stopped | None:
        """None: training losses say nothing about held-out data; see :meth:`ask`."""
        return None

    def ask(self, points: Sequence[ValidationPoint]) -> Stopped | None:
        """The reason to stop after the last of `points`, or None."""
        best, since = -math.inf, 0
        chosen: ValidationPoint | None = None
        for point in points:
            if point.elbo > best + (self.min_delta if chosen is not None else 0.0):
                best, since, chosen = point.elbo, 0, point
            else:
                since += 1
        if chosen is None or since < self.patience:
            return None
        kept = "; the parameters are those of then" if self.restore_best else ""
        return Stopped(
            StopReason.EARLY,
            f"the held-out ELBO has not risen above {chosen.elbo:.4g} nats an observation, of step {chosen.step}, for "
            f"{since} evaluations{kept}",
        )


class Validation:
    """The ELBO of a held-out observation, in nats: its own terms, given the latents that it shares with others.

    The same random numbers serve each evaluation, so that it moves as the parameters do. Networks are in evaluation mode,
    and ``poutine.scale`` is left out.
    """

    def __init__(self, program: Program, rows: Rows, seed: int) -> None:
        self._program, self._seed = program, seed
        self._observations = Observations(rows.num_rows or 0, rows.rows, rows.full, fitted=False)
        self._num_draws = max(1, min(100, _LEAST_TERMS // (rows.num_rows or 1)))
        self._density: ModelDensity | None = None
        self._plate = ""
        self._read()

    def period(self, per_epoch: float, batch_size: int | None) -> int:
        """Steps between evaluations, which cost less than a third of the steps between them."""
        if batch_size is None:
            return _LEAST_PERIOD
        least = max(_LEAST_PERIOD, math.ceil(2 * self._num_draws * (self._observations.num_rows or 1) / batch_size))
        if per_epoch > _MOST_PERIOD:
            return max(least, _MOST_PERIOD)
        return math.ceil(per_epoch * math.ceil(least / per_epoch))

    def __call__(self) -> Estimate:
        """Mean over the held-out observations, and its standard error by their number.

        Raises:
            GuideError, UsageError: guide and model cannot be run on them, or no plate contains them.
        """
        count = self._observations.num_rows
        size = min(_MOST_ROWS, math.ceil(count / 10)) if self._density is not None else _MOST_ROWS
        values = self._program.parameters.detached()
        terms: list[Tensor] = []
        with seeded(self._seed), on_its_own(), Unscaled(), pyro.validation_enabled(False), torch.no_grad():
            for start in range(0, count, size):
                call = self._observations.block(start, start + size)
                with self._program.bound(call, values=values, training=False):
                    draws = [self._terms(call) for _ in range(self._num_draws)]
                terms.append(torch.stack(draws).mean(0))
        return mean_and_se(torch.cat(terms).double().cpu().numpy())

    def _terms(self, call: Arguments) -> Tensor:
        """The ELBO of each observation in one draw ``(B,)``, or its mean ``(1,)`` where latents are summed out."""
        guide_trace, model_trace = self._program.traces(call)
        compute(guide_trace)
        if self._density is not None:
            latents = {name: node["value"] for name, node in sample_nodes(guide_trace).items()}
            log_p = self._density.log_p(self._density.trace(call, Given(latents)), torch.float64)
            return (log_p - total(guide_trace, None)[0]).reshape(1) / _size(model_trace, self._plate)
        log_p = row_sums(compute(model_trace), self._plate, within=True)
        return log_p - row_sums(guide_trace, self._plate, within=True)

    def _read(self) -> None:
        """Take note of the plate of the observations, and of latents that are summed out.

        Raises:
            GuideError, UsageError: guide and model cannot be run on the held-out observations.
        """
        call = self._observations.block(0, 2)
        values = self._program.parameters.detached()
        try:
            with seeded(self._seed), self._program.bound(call, values=values, training=False), torch.no_grad():
                guide_trace, model_trace = self._program.traces(call)
        except VipackError as error:
            raise GuideError(
                f"validation: guide and model cannot be run on the held-out observations ({error}). If the guide has "
                "parameters of its own for each row, it knows only the rows that it is trained on: pass an amortised guide, "
                "whose network reads the data."
            ) from error
        for start in range(0, self._observations.num_rows, _MOST_ROWS):
            check_observed(self._program, self._observations.block(start, start + _MOST_ROWS))
        table = read_sites(model_trace, guide_trace)
        observed = table.of_kind("observed", "factor")
        common = set.intersection(*(set(site.plates) for site in observed)) if observed else set()
        if not common:
            raise UsageError(
                "validation: no plate of the model contains every observed site, so a single observation has no ELBO; put the observed sites into one plate, or leave validation out."
            )
        self._plate = max(common, key=lambda name: table.plates[name])
        local = [site.name for site in table.of_kind("latent") if self._plate in site.plates]
        for name in local:
            if self._plate not in {frame.name for frame in guide_trace.nodes[name]["cond_indep_stack"]}:
                raise GuideError(
                    f"validation: the guide draws latent {name!r} outside of plate {self._plate!r}, so a held-out "
                    "observation has none; pass an amortised guide, whose network reads the data."
                )
        if local:
            number = min(_MOST_ROWS, self._observations.num_rows)
            check_amortised(self._program, self._observations.rows, number, self._plate, "validation")
        if not table.of_kind("enumerated"):
            return
        shared = [site.name for site in table.of_kind("latent") if site.name not in local]
        if shared:
            raise UsageError(
                f"validation: latent {shared[0]!r} is shared by all observations while discrete ones are summed out, for "
                "which the ELBO of an observation is not computed; leave validation out."
            )
        nesting = plate_nesting(guide_trace, model_trace)
        self._density = ModelDensity(self._program.model, nesting=nesting, enumerates=True)


def _size(trace: Trace, plate: str) -> int:
    """
    Returns:
        how many rows the plate has in this run.
    """
    frames = (frame for node in sample_nodes(trace).values() for frame in node["cond_indep_stack"])
    return next(int(frame.size) for frame in frames if frame.name == plate)


def split_off(problem: Problem, validation: Any, seed: int) -> tuple[Problem, Rows]:
    """What is left to train on, and the rows of validation.

    Args:
        validation: data in the form of the problem's, or the share of its rows to hold out, drawn by `seed`.

    Raises:
        UsageError, DataError: neither, or no row would be left.
    """
    rows = read_data(problem.data, problem.fixed, problem.dtype, device_of(problem.device))
    if isinstance(validation, bool) or not isinstance(validation, int | float):
        try:
            validation_rows = read_data(validation, rows.fixed, rows.dtype, rows.device)
        except VipackError as error:
            raise type(error)(f"validation: {error}") from error
        if not validation_rows.num_rows:
            raise DataError(
                "validation: the data have no rows; pass arrays in the form of data=, or a share such as 0.1."
            )
        return dataclasses.replace(problem, data=rows, fixed=None), validation_rows
    if not 0 < validation < 1:
        raise UsageError(
            f"validation: expected held-out data, or a share of the rows between 0 and 1, found {validation!r}."
        )
    if rows.num_rows is None:
        raise UsageError(
            "validation: the data have no rows of which a share could be held out; pass the held-out data themselves."
        )
    count = max(1, round(validation * rows.num_rows))
    if count >= rows.num_rows:
        raise UsageError(f"validation={validation}: no row would be left of {rows.num_rows}; hold out fewer.")
    kept, others = rows.split(count, seed)
    return dataclasses.replace(problem, data=kept, fixed=None), others
