"""What missing entries of observations may be, given those that are there: draws of the latents, weighted by the latter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.distributions import Categorical

from vipack.display import Readable, listed
from vipack.errors import TrustWarning, warn
from vipack.importance import KHAT_LIMIT, importance
from vipack.posterior.by_rows import blocks, guide_knows_all_together
from vipack.posterior.entries import incomplete_sites, summary
from vipack.posterior.fills import Filling, Proposals
from vipack.posterior.observations import Observations
from vipack.posterior.posterior import Posterior
from vipack.program import Program, seeded
from vipack.program.running.randomness import check_seed
from vipack.program.sites.sites import base_distribution
from vipack.progress import Progress

__all__ = ["Imputation", "impute"]

_MOST_ROWS = 500  # in a block, the copies of an observation with different fills counted
_LEAST_DRAWS = 100  # for a k-hat
_LEAST_ESS = 10.0
_ENOUGH_ESS = 100.0  # for weights that are bounded, whatever their k-hat (tests/posterior/test_imputation.py)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Imputation(Readable):
    """What N observations may be where their entries are missing: p(x_missing | x_observed).

    Attributes:
        mean, sd: observed site -> ``(N, *event shape)``; entries that are there are themselves, and have an sd of 0. Of classes
            (labels, and columns of categories) the mean is the most probable one, and the sd that of its indicator.
        draws: observed site -> ``(S, N, *event shape)``, complete observations, if any were asked for. Missing entries of one
            observation are drawn together.
        missing: observed site -> which entries were missing, ``(N, *event shape)``.
        ess: the effective number of draws of the latents of each observation ``(N,)``; NaN where nothing was missing.
        khats: k-hat of each observation's weights ``(N,)``; NaN where nothing was missing, or for fewer than 100 draws.
        doubtful: numbers of the observations whose weights cannot be trusted: with an ESS below 10, or with one below 100 and a
            k-hat above 0.7. A k-hat above 0.7 is enough where latents are not drawn from the prior as well as from the guide,
            which bounds the weights: for guides whose densities are known at their own draws alone.
        num_particles: draws of the latents of each observation.

    Source: Mattei and Frellsen (2019), MIWAE, arXiv:1812.02633, equations 12 and 13.
    """

    mean: dict[str, Tensor]
    sd: dict[str, Tensor]
    draws: dict[str, Tensor] = field(default_factory=dict)
    missing: dict[str, Tensor] = field(default_factory=dict)
    ess: Array = field(default_factory=lambda: np.empty(0))
    khats: Array = field(default_factory=lambda: np.empty(0))
    doubtful: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    num_particles: int = 0

    def __str__(self) -> str:
        sites = ", ".join(
            f"{name} {tuple(value.shape)} ({int(self.missing[name].sum()):,} missing)"
            for name, value in self.mean.items()
        )
        drawn = f"; {len(next(iter(self.draws.values())))} draws" if self.draws else ""
        if np.isnan(self.ess).all():
            return f"nothing is missing in {sites}{drawn}"
        return (
            f"mean and sd of {sites}{drawn}; ESS {np.nanmedian(self.ess):.0f} of {self.num_particles} in the median, "
            f"{len(self.doubtful)} of {int((~np.isnan(self.ess)).sum())} observations doubtful"
        )


def impute(
    program: Program,
    observations: Observations,
    missing: Mapping[str, Tensor],
    how: Filling,
    num_draws: int,
    *,
    seed: int,
    progress: Progress,
) -> Imputation:
    """Mean, sd and draws of what is missing.

    Args:
        observations: their missing entries filled with anything that the model can observe.
        missing: argument -> which of its entries are missing, in its shape; of any argument that has some.

    Raises:
        UsageError, GuideError: as of :func:`vipack.posterior.by_rows.blocks`; the guide is a point.
        UsageError: entries depend on each other given the latents, or densities of some on values of others.
        DataError: entries are missing of an argument that no observed site holds.

    Warns:
        TrustWarning: the weights of some observations cannot be trusted.
    """
    check_seed(seed)
    together = guide_knows_all_together(program, observations, "impute")
    if together:
        how = replace(how, num_fills=1, num_rounds=0)
    rows = torch.zeros(observations.num_rows, dtype=torch.bool)
    for mask in missing.values():
        rows |= mask.reshape(len(mask), -1).any(1).cpu()
    if together and bool(rows.any()):
        rows[:] = True
    chosen = rows.nonzero()[:, 0]
    answers = _Answers(program, observations, missing, num_draws, together)
    if len(chosen):
        own = observations if together else observations.chosen(chosen)
        seeds = np.random.SeedSequence(seed)
        progress.begin("impute", len(chosen))
        for start, stop, posterior in blocks(program, own, "impute", most=max(1, _MOST_ROWS // how.num_fills)):
            (number,) = seeds.spawn(1)[0].generate_state(1)
            wide = posterior
            if not together:
                copies = observations.chosen(chosen[start:stop].repeat(how.num_fills))
                wide = Posterior(program, copies.block(0, copies.num_rows), scaled=False)
            gaps = {name: mask[chosen[start:stop]] for name, mask in missing.items()}
            with seeded(int(number)):
                answers.add(chosen[start:stop], Proposals(posterior, wide, gaps, how))
            progress(stop - start)
        progress.close()
    result = answers.imputation(how.num_particles if len(chosen) else 0)
    if len(result.doubtful):
        ess, khat = (np.median(values[result.doubtful]) for values in (result.ess, result.khats))
        warn(
            TrustWarning(
                f"impute: the weights of {len(result.doubtful)} of {len(chosen)} observations (numbers "
                f"{listed(map(str, result.doubtful))}) cannot be trusted: a few draws decide what is imputed there (ESS {ess:.0f} of "
                f"{result.num_particles}, k-hat {khat:.1f} in the median). Raise num_particles, num_fills and num_rounds, or train longer."
            )
        )
    return result


class _Answers:
    """Means, sds and draws of all observations, which blocks of them fill in.

    Args:
        together: whether blocks are of all observations.
    """

    def __init__(
        self,
        program: Program,
        observations: Observations,
        missing: Mapping[str, Tensor],
        num_draws: int,
        together: bool,
    ) -> None:
        self._num_draws = num_draws
        count = observations.num_rows
        few = observations if together else observations.chosen(torch.arange(min(2, count)))
        _, seen, posterior = next(blocks(program, few, "impute"))
        sites = incomplete_sites(posterior, {name: mask[:seen] for name, mask in missing.items()})
        values = posterior.named_arguments(observations.full())
        self.mean: dict[str, Tensor] = {}
        self.sd: dict[str, Tensor] = {}
        self.draws: dict[str, Tensor] = {}
        self.missing: dict[str, Tensor] = {}
        for name, site in sites.items():
            shape = site.rows_first(site.missing).shape[1:]
            value = values[site.argument].reshape(count, *shape)
            mask = missing.get(site.argument)
            self.missing[name] = (
                torch.zeros_like(value, dtype=torch.bool) if mask is None else mask.reshape(value.shape)
            )
            labels = isinstance(base_distribution(posterior.evaluation.model_trace.nodes[name]["fn"]), Categorical)
            self.mean[name] = value.clone() if labels else value.to(torch.get_default_dtype(), copy=True)
            self.sd[name] = torch.zeros(value.shape, dtype=self.mean[name].dtype if not labels else None)
            if num_draws:
                self.draws[name] = value.expand(num_draws, *value.shape).clone()
        self._ess, self._khats = np.full(count, np.nan), np.full(count, np.nan)
        self._doubtful = np.zeros(count, dtype=bool)

    def add(self, indices: Tensor, proposals: Proposals) -> None:
        """Answer for the observations `indices`."""
        z, log_weights = proposals.draws()
        weights = self._smoothed(indices, log_weights, proposals.with_prior)
        narrow = proposals.narrow
        with narrow.running():
            trace = narrow.model(z[0])
            sums: dict[str, list[Tensor]] = {}
            for start in range(0, len(z), narrow.at_once):
                stop = start + narrow.at_once
                pieces = narrow.of_each("expected", narrow.expectations, z[start:stop])
                for name, pair in pieces.items():
                    terms = [_averaged(narrow.gaps[name].rows_first(v, 1), weights[start:stop]) for v in pair]
                    sums[name] = [a + b for a, b in zip(sums.get(name, [torch.zeros(())] * 2), terms, strict=True)]
            drawn = {}
            if self._num_draws:
                chosen = torch.multinomial(weights.T, self._num_draws, replacement=True).T
                drawn = narrow.of_each("drawn", narrow.drawn, z[chosen, torch.arange(z.shape[1])])
        for name, site in narrow.gaps.items():
            mask = site.rows_first(site.missing)
            mean, sd = summary(trace.nodes[name], *sums[name])
            self._put(self.mean[name], indices, mask, mean)
            self._put(self.sd[name], indices, mask, sd)
            if self._num_draws:
                for own, values in zip(self.draws[name], drawn[name], strict=True):
                    self._put(own, indices, mask, site.rows_first(values))

    def imputation(self, num_particles: int) -> Imputation:
        """All of it."""
        doubtful = np.flatnonzero(self._doubtful)
        return Imputation(self.mean, self.sd, self.draws, self.missing, self._ess, self._khats, doubtful, num_particles)

    def _put(self, values: Tensor, indices: Tensor, mask: Tensor, others: Tensor) -> None:
        values[indices] = torch.where(mask, others.to(values.dtype), values[indices])

    def _smoothed(self, indices: Tensor, log_weights: Tensor, bounded: bool) -> Tensor:
        """Normalised weights ``(K, B)``."""
        weights = torch.empty(log_weights.shape, dtype=torch.float64)
        for column, index in enumerate(indices.tolist()):
            smoothed = importance(log_weights[:, column])
            weights[:, column] = torch.from_numpy(smoothed.log_weights).exp()
            self._ess[index] = smoothed.ess
            self._khats[index] = smoothed.khat if len(log_weights) >= _LEAST_DRAWS else np.nan
            heavy = smoothed.khat > KHAT_LIMIT and (not bounded or smoothed.ess < _ENOUGH_ESS)
            self._doubtful[index] = smoothed.ess < _LEAST_ESS or (heavy and len(log_weights) >= _LEAST_DRAWS)
        return weights.to(log_weights.device)


def _averaged(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over draws of ``(S, B, ...)``."""
    return (values.double() * weights.reshape(weights.shape + (1,) * (values.dim() - 2))).sum(0)
