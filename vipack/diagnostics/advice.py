"""What to try where a guide is far from the posterior, as far as the model and the guide tell."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pyro.infer.autoguide import (
    AutoDelta,
    AutoGuide,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormalizingFlow,
)
from torch import nn
from torch.distributions import constraints

from vipack.guides import Flow, Structured
from vipack.posterior import Posterior
from vipack.program import SiteTable

__all__ = ["BROKEN", "richer"]

BROKEN = (
    'a guide that has the symmetry, as no guide and symmetric="all" give it',
    "a prior or an order that rules all copies but one out",
)
_MOST_DENSE = 2_000  # latent numbers, up to which a full covariance can be had
_STEPS = "more steps, if the loss still falls"
_FULL = "a richer guide: AutoMultivariateNormal for correlated latents, a normalizing flow for curved ones"
_FLOW = "a richer guide: a normalizing flow (vi.guides.Flow), or no guide, which lets the ladder find one"
_NOT_CENTRED = "a non-centred parametrisation of hierarchical scales"
_AMORTISED = (
    "a larger network in the guide, or one for each group of latents: one network has to serve all rows",
    "a richer distribution of each row's latents: correlated ones, or a flow, in place of independent normals",
    "an objective by several draws (vi.objectives.ImportanceWeighted)",
)
_ROWS = "a guide in which latents of rows depend on the shared ones (vi.guides.Structured)"


def richer(posterior: Posterior | None) -> tuple[str, ...]:
    """Advice, the most promising first; without a posterior what holds for any model."""
    if posterior is None:
        return _STEPS, _FULL
    guide = posterior.program.guide
    if _is_amortised(posterior):
        return _STEPS, *_AMORTISED
    table = posterior.table
    advice = [_STEPS]
    dim = sum(math.prod(site.batch_shape + site.event_shape) for site in table.of_kind("latent"))
    family = getattr(guide, "base", guide)  # of a whitened one
    if isinstance(family, AutoNormalizingFlow | Flow):
        advice.append("several starts (restarts=8), or another form of the model: the guide is a flow already")
    elif isinstance(family, AutoMultivariateNormal | AutoLowRankMultivariateNormal) and dim <= _MOST_DENSE:
        advice.append(_FLOW)
    elif dim <= _MOST_DENSE:
        advice.append(_FULL)
    elif not isinstance(guide, Structured):
        advice.append(_ROWS)
    if any(_scaled(table)):
        advice.append(_NOT_CENTRED)
    return tuple(advice)


def _is_amortised(posterior: Posterior) -> bool:
    """Whether the guide draws latents of rows by a network that reads the row."""
    guide = posterior.program.guide
    if getattr(guide, "amortized", False):
        return True
    if isinstance(guide, AutoGuide | AutoDelta):
        return False
    own = isinstance(guide, nn.Module) and any(True for _ in guide.parameters())
    # pyro.module joins the names of a network and of its weights in this way.
    registered = any("$$$" in name for name in posterior.program.parameters.unconstrained)
    return (own or registered) and any(site.plates for site in posterior.table.of_kind("latent"))


def _scaled(table: SiteTable) -> Iterator[bool]:
    """Whether each positive latent may be the scale of others: one real latent at least stands in a plate it is outside of."""
    latents = table.of_kind("latent")
    for scale in latents:
        support = getattr(scale.support, "base_constraint", scale.support)
        positive = isinstance(support, type(constraints.positive) | type(constraints.nonnegative))
        yield positive and any(
            set(other.plates) > set(scale.plates) and not other.support.is_discrete
            for other in latents
            if other.support is not None
        )
