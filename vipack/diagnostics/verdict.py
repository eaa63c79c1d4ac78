"""The verdict on a fit: which of its answers can be believed, on what figures, and what to try next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vipack.diagnostics.advice import richer
from vipack.diagnostics.bounds import ESS_CORRECTED, ESS_FLAT, ESS_WITH_CHAINS, FEW_ROWS, KHAT_CLEAR, KHAT_WITH_CHAINS
from vipack.diagnostics.collapse import latent_activity
from vipack.diagnostics.grounds import Grounds
from vipack.diagnostics.judgement import ENDED, Judgement
from vipack.diagnostics.moments import few_enough
from vipack.diagnostics.report import Diagnosis
from vipack.diagnostics.reservations import finished, lowered_by_collapse
from vipack.diagnostics.rows import JUDGED, Weights, judge_rows
from vipack.diagnostics.sources import positive
from vipack.entry import entry
from vipack.importance import KHAT_LIMIT, importance
from vipack.posterior import Draws, Posterior
from vipack.progress import Interrupted, Progress, interrupts, progress_of
from vipack.types import Stopped

__all__ = ["DiagnosisOptions", "diagnose", "diagnose_and_weigh", "diagnose_draws"]

# Numbers that a set of draws takes, beyond which there is another one only where the first leave doubt.
_DEAR = 200_000_000


@dataclass(frozen=True)
class DiagnosisOptions:
    """How closely to look; see :func:`diagnose`.

    Raises:
        UsageError: `num_draws` or `repeats` is no positive integer.
    """

    num_draws: int
    seed: int
    repeats: int
    chains: bool
    modes: bool

    def __post_init__(self) -> None:
        positive("num_draws", self.num_draws)
        positive("repeats", self.repeats)


@entry
def diagnose(
    posterior: Posterior,
    *,
    num_draws: int = 4_000,
    seed: int = 0,
    stopped: Stopped | None = None,
    repeats: int = 4,
    chains: bool = True,
    modes: bool = True,
    several_starts: bool = False,
    progress: bool | None = None,
) -> Diagnosis:
    """Judge a fitted guide by three witnesses: its importance weights, short chains from its draws, and a mode search.

    Weights see whether the guide's shape is right where it draws. Chains that leave the posterior as it is must not
    drift from its draws; they see scales and means that few draws hide. Neither sees a mode that the guide misses
    altogether, which climbing from many starts may find. Whatever shows draws of `posterior` follows the verdict from now on.
    Ctrl-C ends the diagnosis once there is a set of draws; the verdict is then by what is known, and says what was not checked.

    Args:
        num_draws: S, in each of the sets; k-hat scatters by about 0.2 at 1,000.
        stopped: how training ended, for the reasons.
        repeats: independent sets of draws, for the range of k-hat; fewer where a set is dear, as with many rows of data, and
            its weights are far from every bound.
        chains, modes: False leaves that witness out.
        several_starts: whether the guide is the best of several begun at points apart from each other. One start alone
            is not certified where neither chains nor climbs can be afforded, unless its weights are nearly even.
        progress: True or False; a bar where there is a terminal or notebook by default.

    Raises:
        UsageError: `num_draws` or `repeats` is no positive integer, or `progress` neither a bool nor None.
        KeyboardInterrupt: Ctrl-C before the first set of draws was complete.
    """
    show, options = progress_of(progress), DiagnosisOptions(num_draws, seed, repeats, chains, modes)
    with interrupts() as interrupted:
        bar = Progress(show, interrupted)
        try:
            diagnosis, weights = diagnose_and_weigh(
                posterior, options, stopped=stopped, several_starts=several_starts, progress=bar
            )
        except Interrupted:
            raise KeyboardInterrupt from None
        finally:
            bar.close()
    posterior.judge(diagnosis.judged, Grounds(diagnosis, weights))  # which answers follow from now on
    return diagnosis


def diagnose_and_weigh(
    posterior: Posterior,
    options: DiagnosisOptions,
    *,
    stopped: Stopped | None,
    several_starts: bool,
    progress: Progress | None = None,
) -> tuple[Diagnosis, Weights]:
    """The verdict, and the log weights of the draws that it stands on; see :func:`diagnose`."""
    num_draws, seed, repeats = options.num_draws, options.seed, options.repeats
    some = posterior.of_some_rows(JUDGED)
    posterior, num_rows = (posterior, None) if some is None else some
    keep = few_enough(posterior.table, num_draws * repeats)
    progress = Progress() if progress is None else progress
    progress.begin("importance weights", num_draws * repeats)
    first = posterior.draws(num_draws, seed=seed, keep=keep, enumerated=False, each=progress)
    advice = richer(posterior)
    if _by_rows(first):
        judged = finished(judge_rows(first, advice, num_rows), [first], stopped)
        if posterior.program.parameters.has_networks():
            judged = lowered_by_collapse(judged, latent_activity(posterior, seed=seed))
        return judged, Weights.of_rows(first, num_rows)
    sets, ended = [first], ""
    try:
        for r in range(1, repeats):
            if num_draws * posterior.numbers > _DEAR and _clear(torch.cat([draws.log_weights for draws in sets])):
                break
            sets.append(posterior.draws(num_draws, seed=(seed + r) % 2**32, keep=keep, enumerated=False, each=progress))
    except Interrupted:
        ended = f"{repeats - len(sets)} of {repeats} sets of draws: {ENDED} them"
    weights = torch.cat([draws.log_weights for draws in sets]).cpu().numpy()
    case = Judgement(
        posterior, sets, stopped, seed, alone=options.modes and not several_starts, advice=advice, progress=progress
    )
    return case.judge(options.chains, options.modes, ended), Weights(weights)


def _clear(log_weights: Tensor) -> bool:
    """Whether weights are so far from every bound that more draws would change nothing."""
    smoothed = importance(log_weights)
    good = smoothed.ess_share > ESS_FLAT or (smoothed.khat < KHAT_CLEAR and smoothed.ess_share > 2 * ESS_CORRECTED)
    return (
        good or smoothed.khat > KHAT_WITH_CHAINS + KHAT_LIMIT - KHAT_CLEAR or smoothed.ess_share < ESS_WITH_CHAINS / 2
    )


def diagnose_draws(draws: Draws, stopped: Stopped | None = None) -> Diagnosis:
    """The verdict by the weights of draws already made, without chains or a mode search; see :func:`diagnose`."""
    if _by_rows(draws):
        return finished(judge_rows(draws, richer(None)), [draws], stopped)
    return Judgement(None, [draws], stopped, 0).judge(chains=False, modes=False)


def _by_rows(draws: Draws) -> bool:
    rows = 1 if draws.row_log_weights is None else draws.row_log_weights.shape[-1]
    continuous = all(value.is_floating_point() for value in draws.latents.values())
    return rows > (FEW_ROWS if continuous and draws.latents else 1)
