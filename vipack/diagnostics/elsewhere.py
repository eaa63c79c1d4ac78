"""A look for posterior mass away from a fit's draws: symmetries, which are exact, and climbs for what they do not explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from vipack.diagnostics.chains import Whitening
from vipack.diagnostics.density import ManyPoints
from vipack.diagnostics.modes import ModeSearch, search_modes
from vipack.diagnostics.symmetries import Copies, find_copies
from vipack.errors import VipackError
from vipack.posterior import Posterior
from vipack.program import LogJoint, seeded
from vipack.program.densities.values import unvalidated
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.running.runs import trace_prior
from vipack.progress import Progress

__all__ = ["climb_elsewhere", "copies_of", "images_near", "prior_points"]

_PRIOR = 16  # draws to climb from


def copies_of(
    posterior: Posterior,
    latents: dict[str, Tensor],
    counted: Mapping[str, Tensor],
    modes: Sequence[Mapping[str, Tensor]] = (),
) -> tuple[Copies | None, str]:
    """What symmetries make of the region that draws ``site -> (S, *shape)`` hold; or why none was looked for.

    Args:
        counted: site -> which of its elements count; where a guide draws those that a mask leaves out says nothing.
        modes: that climbs came to, constrained, which may suggest more of them.
    """
    latents = {name: _without_idle(value, counted.get(name)) for name, value in latents.items()}
    names = [site.name for site in posterior.table.of_kind("latent")]
    if not all(latents[name].is_floating_point() for name in names):
        return None, "a latent that the guide draws is discrete"
    try:
        return find_copies(posterior, latents, names=names, modes=modes), ""
    except (VipackError, RuntimeError, ValueError) as error:
        return None, " ".join(str(error).split())[:120]


def _without_idle(draws: Tensor, counted: Tensor | None) -> Tensor:
    """Draws whose elements that do not count are all one number, which no exchange and no change of sign moves."""
    if counted is None or bool(counted.all()):
        return draws
    idle = ~counted.expand(draws.shape[1:])
    still = 0.0 if float(draws.min()) < 0 else float(draws[0][idle][0])
    return torch.where(idle, still, draws)


def climb_elsewhere(
    posterior: Posterior,
    density: ManyPoints,
    u: Tensor,
    weights: Tensor,
    log_evidence: float,
    white: Whitening,
    copies: Copies | None,
    *,
    seed: int,
    progress: Progress,
) -> tuple[ModeSearch | None, str]:
    """Search for modes that are not images of the draws' own; see :func:`search_modes`."""
    nearest = None
    if copies is not None and copies.moves:
        nearest = images_near(density.joint, copies, white)
    return search_modes(
        density,
        u,
        weights,
        log_evidence,
        white,
        seed=seed,
        prior=prior_points(posterior, density.joint, seed),
        known=posterior.ends,
        nearest=nearest,
        progress=progress,
    )


def prior_points(posterior: Posterior, joint: LogJoint, seed: int) -> Tensor:
    """Draws of the latents' own distributions on R^D ``(N, D)``, whatever factors and data make of them; none where they fail."""
    program, call = posterior.program, posterior.arguments
    empty = torch.empty(0, joint.dim, dtype=joint.dtype, device=joint.device)
    drawn = []
    try:
        bound = program.bound(call, values=program.parameters.detached(), training=False)
        with seeded(seed), bound, unvalidated(), flat_priors_sampled(), torch.no_grad():
            for _ in range(_PRIOR):
                nodes = trace_prior(program.model, call).nodes
                drawn.append({name: nodes[name]["value"] for name in joint.shapes})
        points = joint.unconstrain_many({name: torch.stack([each[name] for each in drawn]) for name in joint.shapes})
    except (VipackError, RuntimeError, NotImplementedError, ValueError, TypeError, KeyError):
        return empty
    return points[points.isfinite().all(1)]


def images_near(joint: LogJoint, copies: Copies, white: Whitening) -> Callable[[Tensor], Tensor]:
    """A function of points ``(N, D)`` that gives their images under the symmetries that are nearest to the draws."""
    coordinates = copies.coordinates
    assert coordinates is not None

    def u_of(flat: Tensor) -> Tensor:
        return joint.unconstrain_many(coordinates.named(flat.to(joint.dtype)))

    def distance(flat: Tensor) -> Tensor:
        z = white.z_of(u_of(flat).to(white.loc))
        squared = (z**2).sum(-1)
        return torch.where(squared.isfinite(), squared, torch.inf)

    def nearest(ends: Tensor) -> Tensor:
        named = torch.func.vmap(joint.constrain)(ends.to(joint.dtype))
        images = u_of(copies.nearest(coordinates.flat(named), distance)).to(ends)
        return torch.where(images.isfinite().all(-1, keepdim=True), images, ends)

    return nearest
