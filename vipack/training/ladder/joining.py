"""Several modes in one guide: those that are no copies of each other weighted by evidence, and copies evenly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vipack.diagnostics.chains import whitening
from vipack.diagnostics.elsewhere import copies_of, images_near, prior_points
from vipack.diagnostics.peaks import Peak, PeakSearch, ends_of
from vipack.diagnostics.symmetries import Copies
from vipack.importance import importance, mean_and_se
from vipack.posterior import Posterior
from vipack.program.evaluation.ascent import climb
from vipack.training.ladder.candidates import Gaussian, scaled_cholesky
from vipack.training.ladder.effort import Effort
from vipack.training.ladder.rungs import Family, Rung, joined_rung
from vipack.training.ladder.surface import Surface
from vipack.training.ladder.weighted_gaussian import match_moments
from vipack.training.prepare import Problem
from vipack.training.trainer import Plan

__all__ = ["Ends", "copies_of_rung", "join_copies", "join_modes", "more_ends"]

Ends = tuple[Tensor, Tensor]  # points on R^D at which climbs ended (R, D), and the widths there

_MOST_MODES = 8
_CUBE = 8  # points of the model's usual cube
_STEP = 1e-3  # of second derivatives, in widths
_DRAWS = 1_000  # pairs, that weigh a mode
_INSIDE = 0.1  # share of a rung's draws inside a mode's ellipsoid, above which the rung has this mode
_LEAST_MASS = 0.005  # of all, below which a mode is left out
_EVEN = 0.5  # nats: draws whose weights scatter by less need no training
_STEPS, _TRAINING_DRAWS = 600, 16
_MOST_COPIES = 120


def more_ends(surface: Surface, posterior: Posterior, ends: Ends, seed: int, steps: int) -> tuple[Ends, Tensor]:
    """The ends of the paths, and of as many climbs from draws of the prior as these can be had; and these draws ``(N, D)``."""
    starts = prior_points(posterior, surface.joint, seed).to(ends[0])
    if not len(starts):
        return ends, starts
    more = ends_of(climb(surface.gradients, starts, memory=10, num_steps=steps, side_by_side=False))
    return (torch.cat([ends[0], more[0]]), torch.cat([ends[1], more[1]])), starts


def copies_of_rung(rung: Rung, modes: Sequence[Mapping[str, Tensor]] = ()) -> tuple[Copies | None, Posterior]:
    """What symmetries make of the region that a rung's draws hold; the modes may suggest more of them."""
    posterior = Posterior(rung.trainer.program, rung.trainer.rows.full())
    draws = posterior.draws(2_000, seed=rung.trainer.plan.seed, densities=False, computed=False)
    return copies_of(posterior, draws.latents, draws.counted, modes)[0], posterior


def join_modes(
    problem: Problem, plan: Plan, best: Rung, surface: Surface, ends: Ends, starts: Tensor, effort: Effort
) -> tuple[Rung | None, str]:
    """A mixture of `best` and of a Gaussian for each other mode that matters and is no copy; or None, and why if there is more than one.

    Args:
        ends: of climbs.
        starts: points ``(N, D)``, as wide as which others are tried whose slopes the modes at these ends do not explain.
    """
    starts = torch.cat([ends[0], starts, 4 * torch.rand(_CUBE, surface.dim, dtype=ends[0].dtype) - 2])

    def search(nearest: Callable[[Tensor], Tensor] | None) -> tuple[list[Peak], list[Gaussian]]:
        """All peaks, and Gaussians at those that the draws of the best rung hardly visit."""
        peaks = PeakSearch(surface.gradients, _MOST_MODES, _STEP)
        peaks.add(ends[0] if nearest is None else nearest(ends[0]), ends[1])
        if effort.unexplained:
            generator = torch.Generator().manual_seed(plan.seed)
            steps = effort.path_steps // 2
            peaks.climb_unexplained(starts, effort.unexplained, generator, num_steps=steps, nearest=nearest)
        return peaks.peaks, _others(best, surface, peaks.peaks)

    peaks, gaussians = search(None)
    if not gaussians:
        return None, ""
    copies, _ = copies_of_rung(best, _constrained(surface, peaks))
    if copies is not None and copies.moves:
        _, gaussians = search(images_near(surface.joint, copies, whitening(best.u)))
    weighed = [_weighed(surface, gaussian) for gaussian in gaussians]
    own = importance(best.log_weights).evidence.value
    total = float(torch.logsumexp(torch.tensor([own, *(evidence for _, evidence in weighed)]), 0))
    kept = [(g, evidence) for g, evidence in weighed if math.exp(evidence - total) > _LEAST_MASS]
    if not kept:
        if copies is None or copies.count == 1:
            return None, ""
        return None, f'the other modes are copies by {copies.kinds}: symmetric="all" joins all {copies.count:,}'
    family, state = _inside(best, "Mixture.component_0")
    components = [family, *(_family_at(gaussian) for gaussian, _ in kept)]
    state["Mixture.logits"] = torch.tensor([own, *(evidence for _, evidence in kept)]).double() - own
    mixture = Family("mixture", surface.dim, components=tuple(components))
    shares = ", ".join(f"{math.exp(evidence - total):.1%}" for evidence in (own, *(e for _, e in kept)))
    new = _joined(problem, plan, mixture, state, surface, best, 0)
    if float(new.log_weights.std()) > _EVEN:
        trained = _joined(problem, plan, mixture, state, surface, best, _STEPS)
        gain = mean_and_se(trained.log_weights - new.log_weights)
        new = trained if gain.value > gain.se else new
    return new, f"{len(components)} modes, with {shares} of the mass"


def join_copies(problem: Problem, plan: Plan, best: Rung, surface: Surface, ends: Ends) -> tuple[Rung | None, str]:
    """`best` in all the copies that symmetries make of it; or None, and why."""
    peaks = PeakSearch(surface.gradients, _MOST_MODES, _STEP)
    peaks.add(*ends)
    copies, _ = copies_of_rung(best, _constrained(surface, peaks.peaks))
    if copies is None or not copies.moves:
        return (
            None,
            "no symmetry makes copies of the fit"
            if copies is None or copies.count == 1
            else f"{copies.count:,} copies are too many",
        )
    if len(copies.moves) > _MOST_COPIES:
        return None, f"{copies.count:,} copies are too many: more than {_MOST_COPIES}"
    family, state = _inside(best, "Copies.base")
    constants = {
        name: torch.stack([getattr(move, name) for move in copies.moves]) for name in ("index", "sign", "offset")
    }
    joined = Family("copies", surface.dim, components=(family,), constants=constants)
    new = _joined(problem, plan, joined, state, surface, best, 0)
    return new, f"{len(copies.moves)} equal modes ({copies.kinds})"


def _joined(
    problem: Problem, plan: Plan, family: Family, state: dict[str, Tensor], surface: Surface, best: Rung, steps: int
) -> Rung:
    plan = replace(plan, label=family.name)
    return joined_rung(problem, plan, family, state, surface, steps=steps, draws=_TRAINING_DRAWS, judged_by=len(best.u))


def _others(best: Rung, surface: Surface, peaks: Iterable[Peak]) -> list[Gaussian]:
    """Gaussians at the modes that the draws of a rung hardly visit."""
    others = []
    for at, tril, _ in peaks:
        squared = (((best.u - at) @ tril) ** 2).sum(-1)
        if float((squared <= surface.dim).double().mean()) > _INSIDE:
            continue
        factor = scaled_cholesky(torch.linalg.inv(tril @ tril.T))
        if factor is not None:
            others.append(Gaussian(at, factor))
    return others


def _constrained(surface: Surface, peaks: Iterable[Peak]) -> list[dict[str, Tensor]]:
    joint = surface.joint
    return [joint.constrain(peak.at.to(joint.device, joint.dtype)) for peak in peaks]


def _weighed(surface: Surface, gaussian: Gaussian) -> tuple[Gaussian, float]:
    """The Gaussian, moved to the moments that its weights ask for, and the log evidence of its mode (nats)."""
    half = torch.randn(_DRAWS, surface.dim, dtype=gaussian.loc.dtype)
    eps = torch.cat([half, -half])
    u, log_q = gaussian.at(eps)
    gaussian, _ = match_moments(surface, gaussian, mean_and_se(surface.values(u) - log_q))
    u, log_q = gaussian.at(eps)
    return gaussian, importance(surface.values(u) - log_q).evidence.value


def _family_at(gaussian: Gaussian) -> Family:
    return Family("gaussian", len(gaussian.loc), constants={"loc": gaussian.loc, "factor": gaussian.factor})


def _inside(rung: Rung, name: str) -> tuple[Family, dict[str, Tensor]]:
    """The family of a rung with its constants, and its parameters under the name that it has inside another guide."""
    guide: Any = rung.trainer.program.guide
    program = rung.trainer.program
    family = rung.family
    if not family.components:
        with program.bound(rung.trainer.rows.full(), training=False):
            factor = guide.scale_tril if family.name in ("gaussian", "flow") else guide.scale
            constants = {"loc": guide.origin.detach().clone().cpu(), "factor": factor.detach().clone().cpu()}
        family = replace(family, constants=constants)
    own = type(guide).__name__
    state = program.parameters.state()["params"]
    return family, {f"{name}{key.removeprefix(own)}": value for key, value in state.items()}
