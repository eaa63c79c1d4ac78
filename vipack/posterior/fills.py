"""Draws of the latents given some entries of observations: from a mixture of guides, each on another way to fill the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.display import listed
from vipack.errors import UsageError
from vipack.posterior.entries import IncompleteSite, incomplete_sites, with_values
from vipack.posterior.matched import MatchedT
from vipack.posterior.posterior import Posterior
from vipack.posterior.row_densities import RowDensities, bounded_latents
from vipack.posterior.vectorize import joined, vmap_or_loop
from vipack.program import Arguments
from vipack.program.densities.densities import compute, row_sums
from vipack.program.densities.substitution import Given
from vipack.program.running.runs import trace_model
from vipack.program.sites.sites import base_distribution, has_density, sample_nodes

__all__ = ["Filling", "Proposals"]

_NUMBERS_AT_ONCE = 20_000_000  # held by one vectorized pass, about 80 MB in float32
_STARTS = 10  # draws of the prior for each fill that a chain starts with
_SAME = 1e-3  # nats, of an observation's entries under other fills


@dataclass(frozen=True)
class Filling:
    """How the latents given incomplete observations are drawn.

    Attributes:
        num_particles: draws of the latents of each observation, weighted.
        num_fills: chains that fill in what is missing, each of which leaves a guide to draw from.
        num_rounds: of each chain.
    """

    num_particles: int = 1_000
    num_fills: int = 20
    num_rounds: int = 20


class Incomplete:
    """B observations of which some entries are missing: runs of guide and model on them, one row of numbers an observation.

    Args:
        posterior: the program called on them, what is missing filled.
        missing: argument -> which of its entries are missing.

    Attributes:
        sites: the observed ones that hold an argument; `gaps` are those with missing entries.
        call: the present arguments; filled anew by :meth:`fill`.
    """

    def __init__(self, posterior: Posterior, missing: Mapping[str, Tensor]) -> None:
        self.posterior, self.call = posterior, posterior.arguments
        self.sites = incomplete_sites(posterior, missing)
        self.gaps = {name: site for name, site in self.sites.items() if site.argument in missing}
        plate = posterior.evaluation.row_plate
        assert plate is not None
        self._plate = plate
        self._rows = RowDensities(posterior, moved=False)
        self._latents = [site.name for site in posterior.table.of_kind("latent")]
        for name, site in self.gaps.items():
            site.check(posterior.evaluation.model_trace.nodes[name])

    @property
    def takes_nan(self) -> bool:
        """Whether every site with missing entries has a density where NaN stands for them."""
        return all(site.takes_nan for site in self.gaps.values())

    def unfilled(self) -> Arguments:
        """The call with NaN where entries are missing."""
        return self._with({n: self._value(s).masked_fill(s.missing, torch.nan) for n, s in self.gaps.items()})

    def model(self, z: Tensor) -> Trace:
        """A trace of the model at latents ``(B, D)``."""
        with Given(self._rows.sites(z)):
            return trace_model(self.posterior.program.model, self.call)

    def prior(self) -> tuple[Tensor, Tensor]:
        """Latents from the prior ``(B, D)``, and the log density of all that is observed given them ``(B,)``."""
        trace = trace_model(self.posterior.program.model, self.call)
        z = self._rows.flat({name: trace.nodes[name]["value"][None] for name in self._latents})[0]
        return z, self.log_likelihood(trace)

    def guide(self, call: Arguments | None = None) -> tuple[Tensor, Tensor]:
        """A draw of the guide ``(B, D)``, and log q of it ``(B,)``."""
        trace = compute(trace_model(self.posterior.program.guide, call or self.call))
        z = self._rows.flat({name: trace.nodes[name]["value"][None] for name in self._latents})[0]
        return z, row_sums(trace, self._plate)

    def log_q(self, z: Tensor, call: Arguments | None = None) -> Tensor:
        """log q of latents ``(B, D)`` of one's own ``(B,)``."""
        with Given(self._rows.sites(z)):
            trace = compute(trace_model(self.posterior.program.guide, call or self.call))
        return row_sums(trace, self._plate)

    def log_prior(self, trace: Trace) -> Tensor:
        """log p(z) ``(B,)``."""
        return self._sum(trace, self._latents)

    def log_likelihood(self, trace: Trace) -> Tensor:
        """log p of all that is observed, given z ``(B,)``."""
        others = [
            n for n, node in sample_nodes(trace).items() if has_density(node) and n not in {*self.gaps, *self._latents}
        ]
        terms = [site.log_observed(trace.nodes[name]) for name, site in self.gaps.items()]
        total = torch.stack(terms).sum(0)
        return total + self._sum(trace, others) if others else total

    def log_joint(self, trace: Trace) -> Tensor:
        """log p(x, z) of the observations as they are filled ``(B,)``."""
        return row_sums(compute(trace), self._plate)

    def fill(self, values: Mapping[str, Tensor]) -> None:
        """Fill what is missing by other values of the sites."""
        self.call = self._with(values)

    def refill(self, z: Tensor) -> None:
        """Fill what is missing by draws of p(x | z) at latents ``(B, D)``."""
        self.fill(self.drawn(z))

    def log_prior_and_likelihood(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z) and log p of all that is observed given z, each ``(B,)``, at latents ``(B, D)``."""
        trace = self.model(z)
        return self.log_prior(trace), self.log_likelihood(trace)

    def guide_is_everywhere(self) -> bool:
        """Whether the guide has a density at any latents, for about what a draw costs.

        Raises:
            UsageError: it has none, being a point.
        """
        points = self.posterior.draws(2, densities=False, keep=False).points
        if points:
            raise UsageError(
                f"impute: the guide is a point at {listed(map(repr, points))}, which has no density to weigh draws by; fit a guide "
                "with one, such as a normal."
            )
        nodes = sample_nodes(self.posterior.evaluation.guide_trace)
        if {name for name, node in nodes.items() if has_density(node)} != set(self._latents):
            return False  # it draws others, from which it computes the latents
        return not any(_is_inverted_slowly(nodes[name]["fn"]) for name in self._latents)

    @property
    def at_once(self) -> int:
        """How many draws are computed at once."""
        return max(1, _NUMBERS_AT_ONCE // max(1, self.posterior.numbers))

    def expectations(self, z: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Of each site with missing entries, at latents ``(B, D)``; see :meth:`IncompleteSite.expectations`."""
        trace = self.model(z)
        return {name: site.expectations(trace.nodes[name]) for name, site in self.gaps.items()}

    def drawn(self, z: Tensor) -> dict[str, Tensor]:
        """Values of the sites with missing entries, those drawn, at latents ``(B, D)``."""
        trace = self.model(z)
        return {name: site.drawn(trace.nodes[name]) for name, site in self.gaps.items()}

    def running(self) -> AbstractContextManager[None]:
        """What runs of guide and model are made in."""
        return self.posterior.running()

    def of_each(self, what: str, one: Callable[[Tensor], Any], z: Tensor) -> Any:
        """A function of latents ``(B, D)`` at each of ``(S, B, D)``, results stacked."""

        def results() -> Iterator[Any]:
            for chunk in z.split(self.at_once):
                methods = vmap_or_loop(lambda values: one(values["z"]), {"z": chunk}, len(chunk))
                yield self.posterior.vectorizer.run(what, methods, self.call)

        return joined(results(), len(z))

    def of_draws(self, what: str, one: Callable[[], Any], count: int) -> Any:
        """So many calls of a function that draws, results stacked."""
        return self.of_each(what, lambda _: one(), torch.arange(count))

    def _value(self, site: IncompleteSite) -> Tensor:
        value: Tensor = self.posterior.named_arguments(self.call)[site.argument]
        return value.reshape(site.missing.shape)

    def _with(self, values: Mapping[str, Tensor]) -> Arguments:
        named = self.posterior.named_arguments(self.call)
        others = {
            self.sites[name].argument: value.to(named[self.sites[name].argument].dtype).reshape(
                named[self.sites[name].argument].shape
            )
            for name, value in values.items()
        }
        return with_values(self.posterior, self.call, others)

    def _sum(self, trace: Trace, names: list[str]) -> Tensor:
        trace.compute_log_prob(site_filter=lambda name, _: name in names)
        return row_sums(trace, self._plate, names=names)


class Proposals:
    """Guides on B observations whose missing entries are filled in J ways, by chains; the prior, and the guide on what is there.

    A guide that has learned from complete observations says too much of an incomplete one, whichever way that is filled: what
    the posterior p(z | x_observed) has more of spread is the spread of what is missing. Where fills are draws of p(x_missing |
    x_observed) and the guide is the posterior, the mixture of guides over fills is p(z | x_observed) itself.

    Args:
        posterior: the program called on the observations, what is missing filled.
        wide: the same for J copies of them, one after the other.
        missing: argument -> which of the observations' entries are missing.

    Attributes:
        with_prior: whether weights are by the mixture of all, the prior among them; else each draw is weighted by the guide that
            it is of, since that has no density at others.

    Source: Rezende, Mohamed, Wierstra (2014), arXiv:1401.4082, appendix F, and Mattei and Frellsen (2018), arXiv:1802.04826,
    section 3, for the chains; Veach and Guibas (1995) for weights by the mixture of all that was drawn from.
    """

    def __init__(self, posterior: Posterior, wide: Posterior, missing: Mapping[str, Tensor], how: Filling) -> None:
        self.narrow, self._how = Incomplete(posterior, missing), how
        self._fills = how.num_fills
        self._wide = Incomplete(wide, {n: m.repeat(self._fills, *[1] * (m.dim() - 1)) for n, m in missing.items()})
        self.with_prior = self.narrow.guide_is_everywhere()
        self._unfilled: Arguments | None = None  # a call that the guide can read with nothing filled

    def draws(self) -> tuple[Tensor, Tensor]:
        """Latents ``(K, B, D)`` and their log weights ``(K, B)`` for p(z | x_observed).

        Raises:
            UsageError: the guide is a point; the model reads what is missing.
        """
        with self.narrow.running():
            starts = self._starts()
        with self._wide.running():
            z = starts.flatten(0, 1)
            self._wide.refill(z)
            densities = self._wide.log_prior_and_likelihood(starts[:1].expand_as(starts).flatten(0, 1))
        with self.narrow.running():
            self._check_free_of_fills(self.narrow.log_prior_and_likelihood(starts[0]), densities)
        visited = []
        with self._wide.running():
            for number in range(self._how.num_rounds):
                exact = self.with_prior and 2 * number >= self._how.num_rounds
                z = self._round(z, exact=exact)
                if exact:
                    visited.append(z.unflatten(0, (self._fills, -1)))
        free = not bounded_latents(self.narrow.posterior)
        if not visited or not free:
            return self._weighted(None)
        z, log_weights = self._weighted(MatchedT(torch.cat(visited)))
        return self._weighted(MatchedT(z, _shares(log_weights)))

    def _starts(self) -> Tensor:
        """Latents ``(J, B, D)`` that chains begin from: of the guide on what is there, or likely ones among draws of the prior."""
        narrow = self.narrow
        if narrow.takes_nan:
            unfilled = narrow.unfilled()
            start: Tensor = narrow.of_draws("unfilled", lambda: narrow.guide(unfilled), self._fills)[0]
            if bool(start.isfinite().all()):
                self._unfilled = unfilled
                return start
        z: Tensor
        z, log_weights = narrow.of_draws("prior", narrow.prior, _STARTS * self._fills)
        chosen = torch.multinomial(_shares(log_weights).T, self._fills, replacement=True).T
        return z[chosen, torch.arange(z.shape[1])]

    def _check_free_of_fills(self, one: tuple[Tensor, Tensor], copies: tuple[Tensor, Tensor]) -> None:
        for own, others in zip(one, copies, strict=True):
            if bool(((others.unflatten(0, (self._fills, -1)) - own).abs() > _SAME * (1 + own.abs())).any()):
                names = listed(repr(site.argument) for site in self.narrow.gaps.values())
                raise UsageError(
                    f"impute: given the latents, the density of what is there depends on what is missing: the model reads {names} "
                    "beside observing it, as a likelihood with library=True reads an observation's total. Build it with "
                    "library=False, or pass what it reads as an argument of its own."
                )

    def _round(self, z: Tensor, *, exact: bool) -> Tensor:
        """The next latents ``(J * B, D)`` of the chains: the guide's own, or if `exact` only where they are accepted; fills anew."""
        wide = self._wide
        drawn, log_q = wide.guide()
        if exact:
            gain = wide.log_joint(wide.model(drawn)) - log_q - wide.log_joint(wide.model(z)) + wide.log_q(z)
            accepted = torch.rand(gain.shape, device=gain.device, dtype=gain.dtype).log() < gain
            drawn = torch.where(accepted[:, None], drawn, z)
        wide.refill(drawn)
        return drawn

    def _weighted(self, matched: MatchedT | None) -> tuple[Tensor, Tensor]:
        narrow, wide, unfilled = self.narrow, self._wide, self._unfilled
        count = self._how.num_particles
        num_matched = 0 if matched is None else count // 2
        sources = self._fills + (unfilled is not None) + self.with_prior
        each = math.ceil((count - num_matched) / sources)
        with wide.running():
            z, log_q = wide.of_draws("guide", wide.guide, each)
            z, log_q = (value.unflatten(1, (self._fills, -1)).flatten(0, 1) for value in (z, log_q))
        with narrow.running():
            if unfilled is not None:
                own = narrow.of_draws("unfilled", lambda: narrow.guide(unfilled), each)
                z, log_q = (torch.cat(pair) for pair in zip((z, log_q), own, strict=True))
            if self.with_prior:
                z = torch.cat([z, narrow.of_draws("prior", narrow.prior, each)[0]])
            if matched is not None:
                z = torch.cat([z, matched.draw(num_matched)])
            log_prior, log_likelihood = narrow.of_each("model", narrow.log_prior_and_likelihood, z)
            log_joint = log_prior.double() + log_likelihood
            if not self.with_prior:
                return z, log_joint - log_q
            log_q = log_prior
            if unfilled is not None:
                log_q = torch.logaddexp(log_q, narrow.of_each("unfilled q", lambda one: narrow.log_q(one, unfilled), z))
        with wide.running():
            log_q = torch.logaddexp(log_q, wide.of_each("q", self._log_fills, z)).double() + math.log(each)
        if matched is not None:
            log_q = torch.logaddexp(log_q, matched.log_prob(z) + math.log(max(1, num_matched)))
        return z, log_joint - (log_q - math.log(len(z)))

    def _log_fills(self, z: Tensor) -> Tensor:
        """Log of the sum over fills of q(z | x) at latents ``(B, D)``."""
        each: Tensor = self._wide.log_q(z.repeat(self._fills, 1)).unflatten(0, (self._fills, -1))
        return each.logsumexp(0)


def _shares(log_weights: Tensor) -> Tensor:
    """Normalised weights ``(S, B)``; equal ones where all are zero."""
    top = log_weights.nan_to_num(-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return top.softmax(0).nan_to_num(1 / len(top))


def _is_inverted_slowly(fn: Any) -> bool:
    """Whether a flow's density at a point takes a pass for each latent, or has no inverse."""
    pieces = list(getattr(base_distribution(fn), "transforms", []))
    while any(hasattr(piece, "parts") for piece in pieces):
        pieces = [inner for piece in pieces for inner in getattr(piece, "parts", [piece])]
    return any("Autoregressive" in type(piece).__name__ for piece in pieces)
