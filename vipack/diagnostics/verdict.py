"""The verdict on a fit: which of its answers can be believed, on what figures, and what to try next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vipack.diagnostics.advice import richer
from vipack.diagnostics.bounds import (
    BAD,
    CONFIDENT,
    DRIFT_LIMIT,
    DRIFT_MOST,
    DRIFT_SES,
    DRIFT_SHARP,
    DRIFT_STEP,
    ESS_ALONE,
    ESS_CORRECTED,
    ESS_FLAT,
    ESS_WITH_CHAINS,
    FEW_ROWS,
    FRESH,
    KHAT_CLEAR,
    KHAT_WITH_CHAINS,
    SHIFT_LIMIT,
    SHIFT_SD_LIMIT,
)
from vipack.diagnostics.chains import whitening
from vipack.diagnostics.collapse import latent_activity
from vipack.diagnostics.density import ManyPoints
from vipack.diagnostics.drift import MOST_LATENTS, Drift, find_drift
from vipack.diagnostics.evidence import elbo
from vipack.diagnostics.grounds import Grounds
from vipack.diagnostics.modes import ModeSearch, search_modes
from vipack.diagnostics.moments import (
    Columns,
    Shift,
    columns_of_sets,
    comparable,
    few_enough,
    shift_by_weights,
)
from vipack.diagnostics.report import Diagnosis, Verdict
from vipack.diagnostics.reservations import finished, lowered_by_collapse
from vipack.diagnostics.rows import JUDGED, Weights, judge_rows
from vipack.diagnostics.sources import positive
from vipack.entry import entry
from vipack.errors import VipackError
from vipack.importance import KHAT_LIMIT, Importance, importance
from vipack.posterior import Draws, Posterior
from vipack.program import LogJoint, seeded
from vipack.progress import Interrupted, Progress, interrupts, progress_of
from vipack.types import Stopped

__all__ = ["DiagnosisOptions", "diagnose", "diagnose_and_weigh", "diagnose_draws"]

# Numbers that a set of draws takes, beyond which there is another one only where the first leave doubt.
_DEAR = 200_000_000
ENDED = "Ctrl-C ended the diagnosis before"


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
    posterior.judge(diagnosis.verdict, Grounds(diagnosis, weights))  # which answers follow from now on
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
    case = _Case(
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
    return _Case(None, [draws], stopped, 0).judge(chains=False, modes=False)


def _by_rows(draws: Draws) -> bool:
    rows = 1 if draws.row_log_weights is None else draws.row_log_weights.shape[-1]
    continuous = all(value.is_floating_point() for value in draws.latents.values())
    return rows > (FEW_ROWS if continuous and draws.latents else 1)


class _Case:
    """The evidence on one fit, gathered witness by witness."""

    def __init__(
        self,
        posterior: Posterior | None,
        sets: list[Draws],
        stopped: Stopped | None,
        seed: int,
        *,
        alone: bool = False,
        advice: tuple[str, ...] = (),
        progress: Progress | None = None,
    ) -> None:
        self._posterior, self._sets, self._stopped, self._seed = posterior, sets, stopped, seed
        self._alone = alone  # one start, which a search for modes was to back
        self._advice = advice or richer(posterior)
        self._progress = Progress() if progress is None else progress
        self._skipped: list[str] = []
        log_weights = torch.cat([draws.log_weights for draws in sets])
        each = [importance(draws.log_weights) for draws in sets]
        self.khats = tuple(weights.khat for weights in each)
        self.khat = float(np.median(self.khats))
        self.share = float(np.mean([weights.ess_share for weights in each]))
        self.weights: Importance = importance(log_weights) if len(sets) > 1 else each[0]
        self.elbo = elbo(log_weights)
        # With chains to confirm them, weights that leave few effective draws still have a mean.
        flat = self.share > ESS_FLAT
        self.usable = flat or (self.khat < KHAT_WITH_CHAINS and self.share > ESS_WITH_CHAINS)
        self.enough = flat or (self.khat < KHAT_LIMIT and self.share > ESS_CORRECTED)
        self.even = np.exp(self.weights.log_weights)
        self.columns = self._columns()
        self.shift: Shift | None = None
        if self.enough and self.columns is not None:
            self.shift = shift_by_weights(self.columns, self.even)
        self.drift: Drift | None = None
        self.modes: ModeSearch | None = None

    def judge(self, chains: bool, modes: bool, ended: str = "") -> Diagnosis:
        """
        Args:
            ended: what Ctrl-C left out already.
        """
        points = self._sets[0].points
        finite = np.isfinite(self.elbo.value)
        if ended:
            self._skipped += [ended, *([f"short chains and other modes: {ENDED} them"] if chains or modes else [])]
        elif (chains or modes) and not points and finite and self._posterior is not None:
            self._run_checks(self._posterior, chains, modes)
        verdict, reasons, advice = self._conclude()
        diagnosis = Diagnosis(
            verdict,
            self.elbo,
            self.weights.evidence,
            self.khat,
            self.share * len(self._sets[0].log_q),
            len(self._sets[0].log_q),
            tuple(reasons),
            tuple(advice),
            self.khats,
            self.shift,
            self.drift,
            self.modes,
            tuple(self._skipped),
        )
        return finished(diagnosis, self._sets, self._stopped)

    def _columns(self) -> Columns | None:
        if not self._sets[0].latents:
            return None
        columns = columns_of_sets(self._sets)
        if not columns.names:
            return None
        without = comparable(columns)[1]
        if without:
            more = ", ..." if len(without) > 3 else ""
            self._skipped.append(f"means and sds of {', '.join(without[:3])}{more}: infinite or NaN at some draws")
        return columns

    def _run_checks(self, posterior: Posterior, chains: bool, modes: bool) -> None:
        """Run the chains and the search, where the model allows them."""
        if not self._sets[0].latents:
            self._skipped.append("short chains and other modes: the latents are too many to keep their draws")
            return
        try:
            with seeded(self._seed):
                density, u, kept = self._points_of(posterior)
                if density is not None:
                    self._run(density, u, kept, chains, modes)
        except Interrupted:
            left = "other modes" if self.drift is not None or not chains else "short chains and other modes"
            self._skipped.append(f"{left}: {ENDED} their end")
        except VipackError as error:
            self._skipped.append(f"short chains and other modes: {error}")
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            # vmap and grad refuse programs in many ways, such as control flow by values. The weights need neither.
            said = " ".join(str(error).split())[:120]
            self._skipped.append(
                f"short chains and other modes: the model cannot be run for many points at once ({said})"
            )

    def _run(self, density: ManyPoints, u: Tensor, kept: np.ndarray, chains: bool, modes: bool) -> None:
        weights = self.even[kept] / self.even[kept].sum()
        if chains:
            assert self.columns is not None  # as each latent on R^D is a column
            columns = self.columns.subset(draws=kept)
            self.drift, why = find_drift(
                density, u, columns, weights if self.usable else None, seed=self._seed, progress=self._progress
            )
            if why:
                self._skipped.append(f"short chains: {why}")
        if modes and self._decide()[0] is not Verdict.DISTRUST:
            share = torch.from_numpy(weights).to(u.device)
            evidence = self.weights.evidence.value
            white = whitening(u, share if self.usable else None)
            self.modes, why = search_modes(density, u, share, evidence, white, seed=self._seed, progress=self._progress)
            if why:
                self._skipped.append(f"other modes: {why}")

    def _points_of(self, posterior: Posterior) -> tuple[ManyPoints | None, Tensor, np.ndarray]:
        """The density on R^D, and the draws there that are inside its support."""
        joint = LogJoint(posterior.program, posterior.arguments)
        empty = torch.empty(0)
        if not 0 < joint.dim <= MOST_LATENTS:
            self._skipped.append(
                f"short chains and other modes: {joint.dim:,} latent numbers (at most {MOST_LATENTS:,})"
            )
            return None, empty, np.empty(0)
        latents = {name: torch.cat([draws.latents[name] for draws in self._sets]) for name in joint.shapes}
        u = joint.unconstrain_many(latents)
        kept = u.isfinite().all(1)
        if int(kept.sum()) < 100:
            self._skipped.append("short chains and other modes: fewer than 100 draws lie inside the model's support")
            return None, empty, np.empty(0)
        return ManyPoints(joint, u[kept][0]), u[kept], kept.cpu().numpy()

    def _conclude(self) -> tuple[Verdict, list[str], list[str]]:
        """What :meth:`_decide` says, unless it certifies one start by weights that are all there is to go by."""
        verdict, reasons, advice = self._decide()
        searched = self.drift is not None or self.modes is not None
        if verdict is Verdict.DISTRUST or not self._alone or searched or self.share > ESS_ALONE:
            return verdict, reasons, advice
        why = f"nothing looked beyond the draws of its one start, and weights alone ({reasons[0]}) see no other mode"
        advice = ["several starts (restarts=8), or no guide: the ladder begins at several points"]
        return Verdict.DISTRUST, [why], advice

    def _decide(self) -> tuple[Verdict, list[str], list[str]]:
        if self.modes is not None and self.modes.missed:
            advice = [
                "several starts (restarts=) or a mixture of guides",
                "an ordering or a prior that rules the other mode out, if it is a mere relabelling",
            ]
            return Verdict.DISTRUST, [f"the draws miss {self.modes.missed[0]}"], advice
        drift = None if self.drift is None or self.drift.stuck else self.drift
        against_raw, against_weighted = self._against_raw(drift), self._against_weighted(drift)
        if against_raw is None:
            return Verdict.TRUST, [self._for_raw(drift)], []
        if against_weighted is None:
            reasons = [
                f"the guide is off ({against_raw}), but its weights can mend it "
                f"(k-hat {self.khat:.2f}, ESS {self.share:.0%}): use draws resampled with the weights"
            ]
            return Verdict.CORRECTED, reasons, ["a richer guide, or more steps, if raw draws are needed"]
        return Verdict.DISTRUST, [f"the guide is far from the posterior: {against_weighted}"], list(self._advice)

    def _against_raw(self, drift: Drift | None) -> str | None:
        """Why the guide's own draws are not certified; None where they are."""
        if not self.enough and (drift is None or not _strong(drift, drift.draws, CONFIDENT)):
            return self._against_weights()
        if self.shift is None and self.enough and self.share <= ESS_ALONE:
            return f"ESS is {self.share:.0%} of the draws"
        shift = self.shift.beyond(SHIFT_LIMIT, 0.0, sd_bound=SHIFT_SD_LIMIT) if self.shift is not None else None
        if shift is not None:
            return f"the weights move {shift}"
        # Nothing is lost by strictness here: where raw draws are doubtful, weighted ones may still be certified.
        shift = drift.draws.beyond(DRIFT_LIMIT, DRIFT_SES, DRIFT_MOST) if drift is not None else None
        return None if shift is None else f"short chains move {shift}"

    def _against_weighted(self, drift: Drift | None) -> str | None:
        """Why weighted draws are not certified; None where they are."""
        weighted = None if drift is None else drift.weighted
        if not self.enough and (drift is None or weighted is None or not _strong(drift, weighted, FRESH * CONFIDENT)):
            return self._against_weights()
        shift = weighted.beyond(DRIFT_LIMIT, DRIFT_SES, DRIFT_MOST) if weighted is not None else None
        return None if shift is None else f"short chains from its weighted draws move {shift}"

    def _against_weights(self) -> str:
        if self.khat >= KHAT_LIMIT:
            return f"k-hat {self.khat:.2f} is above {KHAT_LIMIT}"
        return f"ESS is {self.share:.1%} of the draws"

    def _for_raw(self, drift: Drift | None) -> str:
        said = f"the importance weights are nearly even (ESS {self.share:.0%} of the draws)"
        if not self.enough and drift is not None:
            return (
                f"{drift.num_chains} short chains do not drift from the draws, whose importance weights say little "
                f"({self._against_weights()})"
            )
        if self.share <= 0.9 and self.shift is not None:
            said = f"the importance weights (ESS {self.share:.0%} of the draws) move no mean or sd by much"
        return said if drift is None else f"{said}, and short chains do not drift"


def _strong(drift: Drift, shift: Shift, num_se: float) -> bool:
    """Whether chains can vouch for draws alone."""
    return drift.step_size >= DRIFT_STEP and shift.sharp(DRIFT_SHARP) and shift.within(BAD, num_se)
