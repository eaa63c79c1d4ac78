"""Which draws a fit's answers are made of: the guide's own, or resampled ones where the verdict certifies those.

All that shows draws (samples, predictions, summaries, exports, plots) asks here, so that all show the same.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vipack.errors import UsageError, VipackError
from vipack.importance import importance
from vipack.posterior.draws import Draws
from vipack.program import Arguments
from vipack.types import Verdict

if TYPE_CHECKING:
    from vipack.posterior.posterior import Posterior

__all__ = ["Used", "answer", "predictions", "used"]

POOL = 4  # draws of the guide for each resampled one
_LEAST_POOL = 4_000  # below, weights are too few for their largest to be smoothed, and favour the guide
_MOST_NUMBERS = 50_000_000  # that a pool may hold beyond what was asked for
_PROBED = 3  # draws that tell whether a guide reads the data
_NEXT_STREAM = 0x9E3779B9  # added to a seed: gives other random numbers than those of the latents


@dataclass(frozen=True)
class Used:
    """Which draws an answer is made of, and what the last diagnosis said; ``str()`` is the sentence that tells it.

    Attributes:
        resampled: with the importance weights; else they are the guide's own.
        verdict: None where the guide, as it stands, was not judged.
        within: of which equal modes of the posterior the draws hold one; empty where they stand for all of it.
        certified: what that diagnosis certifies, of "means", "sds", "tails" and "evidence".
    """

    resampled: bool
    verdict: Verdict | None
    within: str = ""
    certified: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """A few words, for the head of a table or a legend."""
        name = "resampled draws" if self.resampled else "draws of the guide"
        if self.verdict is None:
            return f"{name}, not judged"
        within = f" {self.within}" if self.within else ""
        but = " but for tails" if self._are_certified and "tails" not in self.certified else ""
        return f"{name}, {self.verdict.value}{within}{but}"

    def __str__(self) -> str:
        name, other = "resampled draws", "the guide's own"
        if not self.resampled:
            name, other = "draws of the guide", "resampled ones"
        if self.verdict is None:
            return f"{name}; not judged: run fit.diagnose()"
        if self.verdict is Verdict.DISTRUST:
            return f"{name}, of which nothing is certified, nor of {other} (DISTRUST)"
        if self._are_certified:
            certified = "means, sds and tails" if "tails" in self.certified else "means and sds"
            within = f" {self.within}" if self.within else ""
            return f"{name}, whose {certified}{within} are certified ({self.verdict.value})"
        return f"{name}, which are not certified; {other} are ({self.verdict.value})"

    @property
    def _are_certified(self) -> bool:
        """Whether they are those that the verdict is about."""
        return self.verdict not in (None, Verdict.DISTRUST) and self.resampled is (self.verdict is Verdict.CORRECTED)


def used(posterior: Posterior, resample: bool | None) -> Used:
    """What `resample` comes to: None follows the verdict, and takes the guide's own draws where there is none.

    Raises:
        UsageError: neither True, False nor None.
    """
    if resample is not None and not isinstance(resample, bool):
        raise UsageError(
            f"resample: expected True (draws resampled with the weights), False (the guide's own) or None (what the "
            f"verdict says), found {resample!r}."
        )
    judged = posterior.judged
    if judged is None:
        return Used(bool(resample), None)
    within = "" if judged.verdict is Verdict.DISTRUST else judged.within
    resampled = judged.verdict is Verdict.CORRECTED if resample is None else resample
    return Used(resampled, judged.verdict, within, judged.certified)


def answer(
    posterior: Posterior,
    num_draws: int,
    *,
    seed: int,
    resample: bool | None = None,
    densities: bool = True,
    computed: bool = True,
) -> tuple[Draws, Used]:
    """Draws of latents and deterministic sites, as :func:`used` says, with log p(x, z) and log q(z).

    Resampled draws bear equal weights. They come from four times as many of the guide, or more where that is few, by
    Pareto-smoothed weights; row by row where every latent belongs to a row, as in a VAE, whose joint weights would all
    fall on one draw.

    Args:
        densities: False leaves out densities where the weights do not need them.
        computed: False leaves out deterministic sites and enumerated latents likewise.
    """
    which = used(posterior, resample)
    if not which.resampled:
        return posterior.draws(num_draws, seed=seed, densities=densities, computed=computed), which
    return _resampled(posterior, num_draws, seed), which


def predictions(
    posterior: Posterior,
    num_draws: int,
    arguments: Arguments | None = None,
    *,
    seed: int,
    resample: bool | None = None,
    drawn: Draws | None = None,
) -> tuple[dict[str, Tensor], Used, str]:
    """Draws of the observed and deterministic sites, given draws of the latents as :func:`used` says.

    Args:
        arguments: a call on new data; None: the fit's data.
        drawn: what :func:`answer` gave, where that is at hand.

    Returns:
        The draws; which they are; and why they are not resampled ones where these were due. Those of latents that the
        guide draws for the new data, as a network does, are weighted by the new data's observed values, and cannot be
        where these are missing or other latents are the fit's.

    Raises:
        SignatureError, ShapeError: as of :meth:`Posterior.predictive`.
    """
    which = used(posterior, resample)
    if not which.resampled:
        return posterior.predictive(num_draws, arguments, seed=seed), which, ""
    reason = ""
    draws: Draws | None = drawn
    if arguments is not None:
        new = _drawn_for_new_data(posterior, arguments, seed)
        if new:
            draws, reason = _resampled_for(posterior, arguments, new, num_draws, seed)
    if reason:
        raw = posterior.predictive(num_draws, arguments, seed=seed)
        return raw, dataclasses.replace(which, resampled=False), reason
    if draws is None:
        draws = _resampled(posterior, num_draws, seed)
    other = (seed + _NEXT_STREAM) % 2**32
    return posterior.predictive(num_draws, arguments, seed=other, latents=draws.latents), which, ""


def _resampled(posterior: Posterior, num_draws: int, seed: int) -> Draws:
    pool = posterior.draws(_pool_size(posterior, num_draws), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    if pool.row_log_weights is None:
        chosen = _by_weight(pool.log_weights[:, None], num_draws, generator)[:, 0]
        latents, computed, enumerated = (
            {name: value[chosen.to(value.device)] for name, value in values.items()}
            for values in (pool.latents, pool.deterministic, pool.enumerated)
        )
        chosen = chosen.to(pool.log_q.device)
        log_joint, log_q = pool.log_joint[chosen], pool.log_q[chosen]
        return Draws(latents, computed, log_joint, log_q, None, pool.points, enumerated, pool.counted)
    # The rows are independent under model and guide.
    rows = pool.row_log_weights
    chosen = _by_weight(rows, num_draws, generator).to(rows.device)
    latents = posterior.rows_of(pool.latents, chosen)
    computed, log_joint = posterior.at(latents)
    log_weights = rows.gather(0, chosen).sum(1).to(log_joint.device)
    return Draws(latents, computed, log_joint, log_joint - log_weights, points=pool.points, counted=pool.counted)


def _pool_size(posterior: Posterior, num_draws: int) -> int:
    sites = posterior.table.of_kind("latent", "enumerated", "deterministic")
    numbers = sum(torch.Size([*site.batch_shape, *site.event_shape]).numel() for site in sites)
    return max(POOL * num_draws, min(_LEAST_POOL, _MOST_NUMBERS // max(1, numbers)))


def _by_weight(log_weights: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
    """Indices ``(num_draws, N)`` of draws taken with the smoothed weights of each column of ``(S, N)``."""
    table = log_weights.cpu().numpy()
    weights = np.exp([importance(table[:, i]).log_weights for i in range(table.shape[1])])
    return torch.multinomial(torch.from_numpy(weights), num_draws, replacement=True, generator=generator).T


def _drawn_for_new_data(posterior: Posterior, arguments: Arguments, seed: int) -> set[str]:
    """Latents that the guide draws otherwise for new data: by a network of the data, say. All others are the fit's."""
    own = posterior.guide_draws(_PROBED, seed=seed)
    new = posterior.guide_draws(_PROBED, arguments, seed=seed)
    return {name for name, value in new.items() if not torch.equal(value, own[name])}


def _resampled_for(
    posterior: Posterior, arguments: Arguments, new: set[str], num_draws: int, seed: int
) -> tuple[Draws | None, str]:
    """Resampled draws of latents that all belong to the new data's rows; or why there are none."""
    named = ", ".join(map(repr, sorted(new)))
    if {site.name for site in posterior.table.of_kind("latent")} != new:
        return None, f"the guide draws {named} for the new data, and other latents for the fit's"
    try:
        there = type(posterior)(posterior.program, arguments)
        if set(there.observed) >= set(posterior.observed) and there.rows_apart:
            return _resampled(there, num_draws, seed), ""
    except VipackError as error:
        return None, f"the guide draws {named} for the new data, which cannot be weighted ({error})"
    return None, f"the guide draws {named} for the new data, whose observed values are not given or share latents"
