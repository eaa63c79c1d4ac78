"""Observations that each have latents of their own, as in a VAE: bounds and evidence of each, in blocks that fit in memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyro.infer.autoguide import AutoGuide

from vipack.display import listed
from vipack.errors import GuideError, UsageError, VipackError
from vipack.importance import KHAT_LIMIT, importance
from vipack.posterior.observations import Observations
from vipack.posterior.posterior import Posterior
from vipack.program import Program
from vipack.program.checks.amortised import check_amortised
from vipack.program.checks.observed import check_observed
from vipack.program.running.randomness import check_seed
from vipack.progress import Progress
from vipack.types import Estimate

__all__ = [
    "RowBounds",
    "RowEvidence",
    "blocks",
    "evidence_of",
    "guide_knows_all_together",
    "row_bounds",
    "row_evidence",
]

_NUMBERS_AT_ONCE = 2_000_000  # of one draw's run for a block of observations
_MOST_ROWS = 500  # in a block: larger ones are no faster
# What the gain of doubling the particles shrinks to with the next doubling, by the weights' tails. With these the estimates
# and the intervals held on linear-Gaussian VAEs (tests/statistical/test_row_evidence.py).
_SHRINKS = {"light": 0.5, "unknown": 2 / 3, "heavy": 0.8}
_MANY_HEAVY = 0.05
_LOOKED_AT = 500  # observations whose k-hat is estimated
_LEAST_DRAWS = 100  # for a k-hat

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class RowBounds(Estimate):
    """The ELBO in nats of N observations: of all together, and of each.

    Attributes:
        rows: of each observation, ``(N,)``.
        row_se: the standard error of each by the draws, ``(N,)``; NaN for a single draw.
    """

    rows: Array
    row_se: Array

    @classmethod
    def of(cls, rows: Array, row_se: Array) -> RowBounds:
        """The sum of `rows`, and its standard error by the draws."""
        return cls(float(rows.sum()), float(np.sqrt((row_se**2).sum())), rows, row_se)

    @property
    def per_row(self) -> Estimate:
        """The mean of an observation. Its standard error is that of the mean over all observations that there might be."""
        count = len(self.rows)
        spread = float(self.rows.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
        return Estimate(float(self.rows.mean()), spread)

    def __str__(self) -> str:
        return f"{self.per_row} nats an observation ({len(self.rows):,} observations)"


@dataclass(frozen=True, repr=False)
class RowEvidence(Estimate):
    """log p(x) in nats of N observations by importance sampling with K particles each: of all together, and of each.

    It is a lower bound in expectation. What it lacks falls with K, and does not average out over observations.

    Attributes:
        rows: of each observation, ``(N,)``.
        row_se: the standard error of each by its particles, ``(N,)``.
        row_gains: what each gains from K / 2 to K particles, and from K / 4 to K / 2, ``(2, N)``; see :attr:`bias`.
        ess_share: effective sample size of each, as a share of K, ``(N,)``.
        khats: k-hat of the weights of up to 500 observations, evenly spaced; empty for fewer than 100 particles.
        num_particles: K; chains, where it is annealed.
        annealed: whether by annealed importance sampling.

    Source: Burda, Grosse, Salakhutdinov (2016), arXiv:1509.00519, equation 8; for the bias's fall with K Nowozin (2018),
    Debiasing evidence approximations, ICLR.
    """

    rows: Array
    row_se: Array
    row_gains: Array
    ess_share: Array
    khats: Array
    num_particles: int
    annealed: bool = False

    @property
    def bias(self) -> float:
        """What the mean of an observation is estimated to lie below its log p(x), as a negative number, in nats.

        What the last doubling of the particles gained shrinks with each further one: by half where weights have a variance, by
        a fifth where more than a twentieth of the observations have a k-hat above 0.7, by a third where k-hats are not known.
        """
        last, before = (float(gain.mean()) for gain in self.row_gains)
        if not math.isfinite(before):
            return math.nan
        shrinks = _SHRINKS["unknown" if not len(self.khats) else "heavy" if self.heavy_share > _MANY_HEAVY else "light"]
        gain = max(0.0, 0.5 * (last + shrinks * before))  # both tell of the same, and either alone is noisy
        return -gain * shrinks / (1 - shrinks)

    @property
    def per_row(self) -> Estimate:
        """The mean of an observation. Its standard error is that of the mean over all observations that there might be."""
        return RowBounds(self.value, self.se, self.rows, self.row_se).per_row

    @property
    def interval(self) -> tuple[float, float]:
        """95% for the mean log p(x) of these observations, in nats: two standard errors by the particles to either side, and
        above these twice the estimated bias.
        """
        count = len(self.rows)
        mean, error = self.value / count, 1.96 * self.se / count
        return mean - error, mean + error + 2 * abs(self.bias)

    @property
    def heavy_share(self) -> float:
        """The share of observations whose k-hat is above 0.7: their weights have too heavy a tail for K particles."""
        return float((self.khats > KHAT_LIMIT).mean()) if len(self.khats) else math.nan

    def __str__(self) -> str:
        tails = f", k-hat above {KHAT_LIMIT} in {self.heavy_share:.0%}" if len(self.khats) else ""
        return (
            f"{self.per_row} nats an observation, a lower bound ({len(self.rows):,} observations, {self.num_particles:,} "
            f"{'annealed chains' if self.annealed else 'particles'} each; bias {self.bias:+.3f} estimated, ESS {self.ess_share.mean():.0%}{tails})"
        )


def blocks(
    program: Program, observations: Observations, question: str, *, most: int = _MOST_ROWS
) -> Iterator[tuple[int, int, Posterior]]:
    """The observations in blocks ``(start, stop, posterior)``, whose densities are as the program writes them, unscaled.

    Args:
        question: what is asked of them, for messages.
        most: of them in a block.

    Raises:
        UsageError: a latent does not belong to an observation.
        GuideError: the guide cannot be called with some of the observations.
        SupportError, DataError: a new observation has values that the model cannot observe.
    """
    count = observations.num_rows
    first = _first(program, observations, question)
    if first is None:
        whole = Posterior(program, observations.full(), scaled=False)
        check_apart(whole, question)
        yield 0, count, whole
        return
    size = max(1, min(most, _NUMBERS_AT_ONCE * min(2, count) // max(1, first.numbers)))
    for start in range(0, count, size):
        stop = min(start + size, count)
        with _amortised(question):
            posterior = Posterior(program, observations.block(start, stop), scaled=False)
        if not observations.fitted:
            check_observed(program, posterior.arguments)
        yield start, stop, posterior


def guide_knows_all_together(program: Program, observations: Observations, question: str) -> bool:
    """Whether the guide has parameters for each of the observations, and can be called on all of them alone.

    Raises:
        UsageError, GuideError: as of :func:`blocks`.
    """
    return _first(program, observations, question) is None


def _first(program: Program, observations: Observations, question: str) -> Posterior | None:
    """The posterior of two observations; None where the guide has parameters for each of those that it was fitted to.

    Raises:
        UsageError, GuideError: as of :func:`blocks`.
    """
    if observations.fitted and isinstance(program.guide, AutoGuide):
        return None
    with _amortised(question, observations.fitted) as failed:
        first = Posterior(program, observations.block(0, min(2, observations.num_rows)), scaled=False)
        check_apart(first, question)
        plate = first.evaluation.row_plate
        if not observations.fitted and plate is not None:
            check_amortised(program, observations.rows, min(_MOST_ROWS, observations.num_rows), plate, question)
    return None if failed else first


@contextlib.contextmanager
def _amortised(question: str, fitted: bool = False) -> Iterator[list[bool]]:
    """
    Raises:
        GuideError: guide and model cannot be run inside the block, on observations that it was not fitted to; for others the
            list becomes true.
    """
    failed: list[bool] = []
    try:
        yield failed
    except UsageError:
        raise
    except VipackError as error:
        if fitted:
            failed.append(True)
            return
        raise GuideError(
            f"{question}: guide and model cannot be run on these observations ({error}). If the guide has parameters for "
            "each row of the fit's data, it knows those rows alone: fit an amortised one, whose network reads the data."
        ) from error


def check_apart(posterior: Posterior, question: str) -> None:
    """
    Raises:
        UsageError: a latent does not belong to an observation, so that there is nothing to say of one.
    """
    if posterior.rows_apart:
        return
    table = posterior.table
    summed = [site.name for site in table.of_kind("enumerated")]
    if summed:
        raise UsageError(
            f"{question}: discrete latent {summed[0]!r} is summed out, which is not done observation by observation; "
            "fit.log_weights() has the weights of all data together."
        )
    observed = table.of_kind("observed", "factor")
    latents = table.of_kind("latent")
    if not latents or not observed:
        raise UsageError(f"{question}: the model has no {'latent' if not latents else 'observed site'}.")
    plates = set.intersection(*(set(site.plates) for site in observed))
    shared = [site.name for site in latents if not plates & set(site.plates)]
    reason = (
        f"latent {listed(map(repr, shared))} is shared by all observations"
        if shared
        else "the guide draws the latents of all observations together"
    )
    raise UsageError(
        f"{question}: every latent must belong to an observation, in model and guide, as in a VAE, and {reason}; "
        "fit.log_weights() has the weights of all data together, fit.predict(data=...) predicts new rows."
    )


def row_bounds(
    program: Program, observations: Observations, num_draws: int, *, seed: int, progress: Progress
) -> RowBounds:
    """The ELBO of each observation from `num_draws` draws of its own.

    Raises:
        UsageError, GuideError: as of :func:`blocks`.
    """
    means, errors = [], []
    for weights in _log_weights(program, observations, num_draws, seed, progress, "elbo"):
        means.append(weights.mean(0))
        se = weights.std(0, ddof=1) / math.sqrt(num_draws) if num_draws > 1 else np.full(weights.shape[1], np.nan)
        errors.append(se)
    return RowBounds.of(np.concatenate(means), np.concatenate(errors))


def row_evidence(
    program: Program, observations: Observations, num_particles: int, *, seed: int, progress: Progress
) -> RowEvidence:
    """log p(x) of each observation from exactly `num_particles` draws of its own.

    Raises:
        UsageError, GuideError: as of :func:`blocks`.
    """
    stride = max(1, observations.num_rows // _LOOKED_AT)
    figures: list[tuple[Array, ...]] = []
    khats: list[float] = []
    done = 0
    for weights in _log_weights(program, observations, num_particles, seed, progress, "log_evidence"):
        figures.append(evidence_of(weights))
        if num_particles >= _LEAST_DRAWS:
            looked_at = range(-done % stride, weights.shape[1], stride)
            khats += [importance(weights[:, column]).khat for column in looked_at]
        done += weights.shape[1]
    rows, row_se, gains, ess = (np.concatenate(column, -1) for column in zip(*figures, strict=True))
    se = float(np.sqrt((row_se**2).sum()))
    return RowEvidence(float(rows.sum()), se, rows, row_se, gains, ess, np.array(khats), num_particles)


def _log_weights(
    program: Program, observations: Observations, num_draws: int, seed: int, progress: Progress, question: str
) -> Iterator[Array]:
    """log p(x, z) - log q(z) ``(S, B)`` of each block of observations."""
    progress.begin(question, observations.num_rows)
    check_seed(seed)
    seeds = np.random.SeedSequence(seed)
    for start, stop, posterior in blocks(program, observations, question):
        (own,) = seeds.spawn(1) if start else (None,)
        number = seed if own is None else int(own.generate_state(1)[0])
        draws = posterior.draws(num_draws, seed=number, keep=False, enumerated=False)
        assert draws.row_log_weights is not None
        if draws.points and question == "log_evidence":
            raise UsageError(
                f"log_evidence: the guide is a point at {listed(map(repr, draws.points))}, which has no density to weigh draws by; "
                "fit a guide with one, such as a normal."
            )
        yield draws.row_log_weights.cpu().numpy()
        progress(stop - start)
    progress.close()


def evidence_of(weights: Array) -> tuple[Array, Array, Array, Array]:
    """log mean exp of columns ``(S, B)``, its standard error, what it gains by doublings of S ``(2, B)``, and the effective share.

    The gains are from S / 2 to S, and from S / 4 to S / 2, as means over the halves and quarters of the draws.
    """
    count = len(weights)
    top = weights.max(0)
    relative = np.exp(weights - np.where(np.isfinite(top), top, 0.0))
    total = relative.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = top + np.log(total / count)
        ess = total**2 / (relative**2).sum(0)
        se = relative.std(0, ddof=1) / (total / count) / math.sqrt(count) if count > 1 else np.full(len(top), np.nan)
        whole, half, quarter = (_log_mean(relative, pieces) for pieces in (1, 2, 4))
        return value, se, np.stack([whole - half, half - quarter]), ess / count


def _log_mean(relative: Array, pieces: int) -> Array:
    """Log of the mean of each of so many pieces of the draws, averaged over them; NaN for fewer draws."""
    if len(relative) < pieces:
        return np.full(relative.shape[1], np.nan)
    mean: Array = np.mean([np.log(piece.mean(0)) for piece in np.array_split(relative, pieces)], axis=0)
    return mean
