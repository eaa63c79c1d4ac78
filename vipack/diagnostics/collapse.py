"""Whether latents of observations carry anything of them: posterior collapse, and the dimensions that are idle.

A guide is exact where the decoder ignores z, since the posterior is then the prior. That is true, and of no use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.distributions import Categorical

from vipack.display import Readable, element_name, listed
from vipack.posterior import Posterior
from vipack.program import seeded
from vipack.program.densities.densities import compute
from vipack.program.densities.divergences import elementwise_divergence
from vipack.program.sites.sites import base_distribution

__all__ = ["ACTIVE", "LatentActivity", "latent_activity"]

Array = npt.NDArray[np.float64]

ACTIVE = 0.01  # variance of a posterior mean over observations from which a dimension counts
_COLLAPSED = 0.05  # below, for all dimensions: noise of training may move posterior means by so much
_DRAWS = 100  # for divergences that are not known


@dataclass(frozen=True, repr=False)
class LatentActivity(Readable):
    """How much the latents of observations say of them.

    Attributes:
        divergence: latent -> mean over observations of KL(q(z_d | x) || p(z_d)) in nats for each dimension of its event;
            one number for all where the dimensions' are not known.
        variance: latent -> variance over observations of the mean of q(z_d | x), for each dimension of its event, as a share of
            the prior's variance where that is known. A label (Categorical) is one dimension, whose variances are sums over its
            classes' indicators.
        num_rows: observations looked at.

    Source: Burda, Grosse, Salakhutdinov (2016), arXiv:1509.00519, for active units.
    """

    divergence: dict[str, Array]
    variance: dict[str, Array]
    num_rows: int

    @property
    def total(self) -> float:
        """Mean KL(q(z | x) || p(z)) of an observation, in nats."""
        return float(sum(values.sum() for values in self.divergence.values()))

    @property
    def active(self) -> dict[str, npt.NDArray[np.bool_]]:
        """latent -> whether each dimension of its event is active: its variance over observations is above .01."""
        return {name: values > ACTIVE for name, values in self.variance.items()}

    @property
    def num_active(self) -> int:
        """How many dimensions are active."""
        return int(sum(active.sum() for active in self.active.values()))

    @property
    def num_dimensions(self) -> int:
        """How many there are."""
        return int(sum(active.size for active in self.active.values()))

    @property
    def idle(self) -> tuple[str, ...]:
        """The dimensions that are not active, as ``z[3]``."""
        return tuple(name for name, active in self._elements() if not active)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """All of them, as ``z[3]``."""
        return tuple(name for name, _ in self._elements())

    def _elements(self) -> list[tuple[str, bool]]:
        return [
            (element_name(name, index), bool(active[index]))
            for name, active in self.active.items()
            for index in np.ndindex(active.shape)
        ]

    @property
    def collapsed(self) -> bool:
        """Whether no dimension's posterior mean moves with the data, beyond what noise of training does."""
        return bool(self.variance) and all((values < _COLLAPSED).all() for values in self.variance.values())

    def __str__(self) -> str:
        said = f"{self.num_active} of {self.num_dimensions} latent dimensions active, KL {self.total:.2f} nats an observation"
        return said if not self.idle else f"{said}; idle: {listed(self.idle)}"


def latent_activity(posterior: Posterior, *, seed: int = 0) -> LatentActivity | None:
    """Of a posterior whose observations have latents of their own; None where they have not."""
    plate = posterior.evaluation.row_plate
    if plate is None:
        return None
    sites = {site.name: len(site.event_shape) for site in posterior.table.of_kind("latent")}
    divergence: dict[str, Array] = {}
    variance: dict[str, Array] = {}
    spread: dict[str, Array] = {}
    with seeded(seed), posterior.running():
        pairs = _pairs(posterior, list(sites))
        for name, event_dim in sites.items():
            guide, model = pairs[0][name]
            known = elementwise_divergence(guide["fn"], model["fn"])
            if known is not None:
                divergence[name] = _over_rows(known, event_dim).mean(0)
            probs = _probabilities(guide), _probabilities(model)
            if probs[0] is not None and probs[1] is not None:
                variance[name] = _over_rows(probs[0], 1).var(0).sum()
                spread[name] = _over_rows(probs[1] * (1 - probs[1]), 1).mean(0).sum()
                continue
            mean = _moment(guide, "mean")
            if mean is not None:
                variance[name] = _over_rows(mean, event_dim).var(0)
            of_prior = _moment(model, "variance")
            spread[name] = np.ones(()) if of_prior is None else _over_rows(of_prior, event_dim).mean(0)
        unknown = [name for name in sites if name not in divergence or name not in variance]
        pairs += [_pairs(posterior, unknown)[0] for _ in range(_DRAWS - 1 if unknown else 0)]
    count = posterior.table.seen.get(plate, posterior.table.plates[plate])
    for name in unknown:
        if name not in divergence:
            terms = [
                guide["unscaled_log_prob"] - model["unscaled_log_prob"] for guide, model in (p[name] for p in pairs)
            ]
            divergence[name] = np.asarray(float(torch.stack(terms).double().sum()) / _DRAWS / count)
        if name not in variance:
            drawn = np.stack([_over_rows(p[name][0]["value"], sites[name]) for p in pairs])
            within = drawn.var(0, ddof=1).mean(0) / _DRAWS  # what means over few draws vary by themselves
            variance[name] = np.maximum(drawn.mean(0).var(0) - within, 0.0)
    shares = {name: values / np.where(spread[name] > 0, spread[name], 1.0) for name, values in variance.items()}
    return LatentActivity(divergence, shares, count)


def _pairs(posterior: Posterior, names: list[str]) -> list[dict[str, tuple[Any, Any]]]:
    """The nodes of the named latents in guide and model, of one draw, with their densities."""
    guide_trace, model_trace = posterior.program.traces(posterior.arguments)
    compute(guide_trace), compute(model_trace)
    return [{name: (guide_trace.nodes[name], model_trace.nodes[name]) for name in names}]


def _probabilities(node: Any) -> Tensor | None:
    """Of a label's classes ``(*site shape, C)``; None for other sites."""
    fn = base_distribution(node["fn"])
    return fn.probs.expand(*node["value"].shape, -1) if isinstance(fn, Categorical) else None


def _moment(node: Any, name: str) -> Tensor | None:
    """The mean or variance of a site's distribution, where it is known and finite."""
    try:
        moment: Tensor = getattr(node["fn"], name).expand(node["value"].shape)
    except (NotImplementedError, AttributeError):
        return None
    return moment if bool(moment.isfinite().all()) else None


def _over_rows(values: Tensor, event_dim: int) -> Array:
    """``(rows, *event shape)``, whatever plates there are."""
    event = values.shape[values.dim() - event_dim :]
    return np.asarray(values.double().cpu().reshape(-1, *event))
