"""What importance weights, chains and climbs say of one fit, and which of its draws they certify."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from vipack.diagnostics.advice import BROKEN, richer
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
    FRESH,
    KHAT_WITH_CHAINS,
    SHIFT_LIMIT,
    SHIFT_SD_LIMIT,
)
from vipack.diagnostics.chains import whitening
from vipack.diagnostics.density import ManyPoints
from vipack.diagnostics.drift import MOST_LATENTS, Drift, find_drift
from vipack.diagnostics.elsewhere import climb_elsewhere, copies_of
from vipack.diagnostics.evidence import elbo
from vipack.diagnostics.modes import ModeSearch
from vipack.diagnostics.moments import Columns, Shift, columns_of_sets, comparable, shift_by_weights
from vipack.diagnostics.regions import thinned
from vipack.diagnostics.report import Diagnosis, Verdict
from vipack.diagnostics.reservations import finished
from vipack.diagnostics.symmetries import Copies
from vipack.diagnostics.tails import Tails, doubt_of_evidence, doubt_of_tails, tails_by_weights
from vipack.errors import VipackError
from vipack.importance import KHAT_LIMIT, Importance, importance
from vipack.posterior import Draws, Posterior
from vipack.posterior.blocked_posterior import all_arguments
from vipack.program import LogJoint, seeded
from vipack.progress import Interrupted, Progress
from vipack.types import Stopped

__all__ = ["ENDED", "Judgement"]

ENDED = "Ctrl-C ended the diagnosis before"


class Judgement:
    """What the witnesses say of one fit, gathered one by one, and what follows from it."""

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
        self._evidences = [weights.evidence.value for weights in each]
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
        self.copies: Copies | None = None

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
            if modes and self._sets[0].latents:
                self._find_copies(self._posterior)
            self._run_checks(self._posterior, chains, modes)
        verdict, reasons, advice = self._conclude()
        diagnosis = Diagnosis(
            verdict,
            self.elbo,
            self.weights.evidence if self.copies is None else self.copies.added_to(self.weights.evidence),
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
            self.copies,
        )
        return self._with_tails(finished(diagnosis, self._sets, self._stopped))

    def _with_tails(self, diagnosis: Diagnosis) -> Diagnosis:
        """The diagnosis with the tails of the draws that it certifies, and what of them and of the evidence is in doubt."""
        if diagnosis.verdict is Verdict.DISTRUST:
            return diagnosis
        drift = None if self.drift is None or self.drift.stuck else self.drift
        by_weights: Tails | None = None
        by_chains = None if drift is None else drift.weighted_tails
        if diagnosis.verdict is Verdict.TRUST:
            by_chains = None if drift is None else drift.tails
            if self.enough and self.columns is not None:
                by_weights = tails_by_weights(self.columns, self.even)
        evidence = f"k-hat {self.khat:.2f}, ESS {self.share:.1%} of the draws"
        if self.enough:
            evidence = doubt_of_evidence(self._evidence_se(), None if drift is None else drift.weighted_tails)
        doubts = {"tails": doubt_of_tails(by_weights, by_chains), "evidence": evidence}
        return dataclasses.replace(
            diagnosis,
            tails=tuple(each for each in (by_weights, by_chains) if each is not None),
            doubts={quantity: doubt for quantity, doubt in doubts.items() if doubt},
        )

    def _evidence_se(self) -> float:
        """Of the importance estimate, by the weights or, where that is larger, by the scatter of sets of draws."""
        scatter = (
            float(np.std(self._evidences, ddof=1)) / len(self._evidences) ** 0.5 if len(self._evidences) > 1 else 0.0
        )
        return max(self.weights.evidence.se, scatter)

    def _find_copies(self, posterior: Posterior, modes: Sequence[Mapping[str, Tensor]] = ()) -> None:
        latents = {name: torch.cat([draws.latents[name] for draws in self._sets]) for name in self._sets[0].latents}
        if self.usable:
            kept = thinned(torch.from_numpy(self.even), self._seed)
            latents = {name: value[kept.to(value.device)] for name, value in latents.items()}
        self.copies, why = copies_of(posterior, latents, self._sets[0].counted, modes)
        if why:
            self._skipped.append(f"symmetries: {why}")

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
            self.modes, why = self._climb(density, u, weights)
            if self.modes is not None and self.modes.missed and self._more_copies(self.modes):
                self.modes, why = self._climb(density, u, weights)
            if why:
                self._skipped.append(f"other modes: {why}")

    def _climb(self, density: ManyPoints, u: Tensor, weights: np.ndarray) -> tuple[ModeSearch | None, str]:
        assert self._posterior is not None
        share = torch.from_numpy(weights).to(u.device)
        white = whitening(u, share if self.usable else None)
        evidence, copies = self.weights.evidence.value, self.copies
        seed, progress = self._seed, self._progress
        return climb_elsewhere(
            self._posterior, density, u, share, evidence, white, copies, seed=seed, progress=progress
        )

    def _more_copies(self, search: ModeSearch) -> bool:
        """Whether the modes that climbs came to are copies by symmetries that were not tested before."""
        assert self._posterior is not None
        before = 1 if self.copies is None else self.copies.count
        self._find_copies(self._posterior, search.modes)
        return self.copies is not None and self.copies.count > before

    def _points_of(self, posterior: Posterior) -> tuple[ManyPoints | None, Tensor, np.ndarray]:
        """The density on R^D, and the draws there that are inside its support."""
        joint = LogJoint(posterior.program, all_arguments(posterior, "their density"))
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
        if verdict is not Verdict.DISTRUST and self.copies is not None and self.copies.broken:
            return Verdict.DISTRUST, [self.copies.broken], list(BROKEN)
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
        if self.modes is not None and self.modes.improper:
            return Verdict.DISTRUST, [self.modes.improper], ["a proper prior for what that line moves"]
        drift = None if self.drift is None or self.drift.stuck else self.drift
        against_raw, against_weighted = self._against_raw(drift), self._against_weighted(drift)
        if against_raw is None:
            return Verdict.TRUST, [self._for_raw(drift)], []
        if against_weighted is None:
            reasons = [
                f"the guide is off ({against_raw}), but its weights can correct it "
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
