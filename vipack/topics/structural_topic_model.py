"""Topics whose prevalence depends on what is known of documents, as a Pyro model with its mean-field guide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from vipack.errors import UsageError
from vipack.sparse import BagOfWords
from vipack.sparse.count_rows import CountRows
from vipack.topics.ascent_steps import Totals, sweep
from vipack.topics.dirichlet_allocation import DirichletAllocation

__all__ = ["EFFECT_SD", "OFFSET_SD", "StructuralTopicModel"]

_SD_OF_LOGITS, _SD_OF_OTHERS = 0.5, 0.1  # of the guide, to start with
_SWEEPS = 400  # of latent Dirichlet allocation at most, for the start
_ALPHA, _ETA = 1.0, 0.5  # of it; a lower eta, as of the model itself, ends in poor optima
_GAIN, _PERIOD = 1e-5, 10
OFFSET_SD = -1.0, 1.0  # of log offset_sd
EFFECT_SD = 10.0  # of an outcome of unit sd: shares that vary by a tenth need effects of ten


class StructuralTopicModel:
    """Topics of D documents whose shares have a logistic normal prior, with a mean that is linear in P covariates::

        topic k:     words_k      ~ Dirichlet(eta)
                     coefficients ~ Normal(0, coefficient_sd)          (P, K)
                     spread       ~ LogNormal(0, 1)                    (K)
        document d:  logits_d     ~ Normal(covariates_d @ coefficients [+ offsets of its group], spread)
                     counts_d     ~ BagOfWords(softmax(logits_d), words)

    With ``supervised=True`` there is an outcome of each document too, in one joint model (shares that are estimated first and plugged into a
    regression afterwards bias it)::

        outcome_effects ~ Normal(0, 10) (K),  noise ~ LogNormal(0, 1),  outcome_d ~ Normal(softmax(logits_d) @ outcome_effects, noise)

    There is no intercept, since shares sum to 1: an effect is the expected outcome of a document of that topic alone.

    There are K logits, one more than needed, so that no topic is a reference and the numbering of topics means nothing; their
    common level is known by the priors alone. ``model(counts, covariates, groups, outcome)`` and ``guide`` are a plain Pyro program; the
    guide is a Dirichlet for each topic, a LogNormal for each spread and a Normal for every other number.

    Args:
        counts: ``(D, V)``; the start is drawn for them.
        num_topics: K, at least 2.
        num_covariates: P, the intercept among them.
        num_groups: of documents, such as authors or sources, each with offsets of its own; 0 for none. Their sd is a latent,
            ``offset_sd`` ``(K)``, with a LogNormal(-1, 1) prior.
        eta: prior concentration of words.
        coefficient_sd: prior sd of coefficients; covariates should be of unit scale.
        supervised: whether there is an outcome, which should be of zero mean and unit sd.
        num_starts: random starts of latent Dirichlet allocation, of which the best by its bound is where the guide begins.

    Source: Roberts, Stewart and Airoldi (2016), "A model of text for experimentation in the social sciences", for prevalence.
    Topics have full posteriors here, where that paper has point estimates. Blei and McAuliffe (2007), "Supervised topic models", for
    outcomes, which there depend on the topics of the words.

    Raises:
        UsageError: an option that cannot be.
        DataError: `counts` is no matrix.
    """

    def __init__(
        self,
        counts: Any,
        num_topics: int,
        num_covariates: int = 1,
        *,
        num_groups: int = 0,
        eta: float = 0.1,
        coefficient_sd: float = 2.0,
        supervised: bool = False,
        num_starts: int = 10,
    ) -> None:
        for name, value, least in (
            ("num_topics", num_topics, 2),
            ("num_covariates", num_covariates, 1),
            ("num_groups", num_groups, 0),
            ("num_starts", num_starts, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise UsageError(f"{name}: expected a whole number of at least {least}, found {value!r}.")
        for name, number in (("eta", eta), ("coefficient_sd", coefficient_sd)):
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
                raise UsageError(f"{name}: expected a positive number, found {number!r}.")
        self._allocation = DirichletAllocation(counts, num_topics, alpha=_ALPHA, eta=_ETA)
        self._counts = counts
        self._start: tuple[Tensor, Tensor] | None = None
        self.num_documents, self.num_words = self._allocation.num_documents, self._allocation.num_words
        self.num_topics, self.num_covariates, self.num_groups = num_topics, num_covariates, num_groups
        self.eta, self.coefficient_sd, self.num_starts = float(eta), float(coefficient_sd), num_starts
        self.supervised = supervised

    def model(
        self, counts: Tensor, covariates: Tensor, groups: Tensor | None = None, outcome: Tensor | None = None
    ) -> None:
        """The Pyro model of some documents ``(B, V)`` with covariates ``(B, P)`` and, where there are any, groups and outcomes ``(B,)``."""
        one = covariates.new_ones(())
        with pyro.plate("topic", self.num_topics):
            words = pyro.sample("words", dist.Dirichlet(one.new_full((self.num_words,), self.eta)))
        prior = dist.Normal(0 * one, self.coefficient_sd * one).expand([self.num_covariates, self.num_topics])
        coefficients = pyro.sample("coefficients", prior.to_event(2))
        spread = pyro.sample("spread", dist.LogNormal(0 * one, one).expand([self.num_topics]).to_event(1))
        mean = covariates @ coefficients
        if self.num_groups:
            loc, scale = OFFSET_SD
            offset_sd = pyro.sample(
                "offset_sd", dist.LogNormal(loc * one, scale * one).expand([self.num_topics]).to_event(1)
            )
            with pyro.plate("group", self.num_groups):
                offsets = pyro.sample("offsets", dist.Normal(0 * offset_sd, offset_sd).to_event(1))
            assert groups is not None
            mean = mean + offsets[groups.long()]
        if self.supervised:
            wide = dist.Normal(0 * one, EFFECT_SD * one).expand([self.num_topics])
            effects = pyro.sample("outcome_effects", wide.to_event(1))
            noise = pyro.sample("noise", dist.LogNormal(0 * one, one))
        with pyro.plate("document", counts.shape[0]):
            logits = pyro.sample("logits", dist.Normal(mean, spread).to_event(1))
            shares = logits.softmax(-1)
            pyro.sample("counts", BagOfWords(shares, words, coefficient=False), obs=counts)
            if self.supervised:
                pyro.sample("outcome", dist.Normal((shares * effects).sum(-1), noise), obs=outcome)

    def guide(
        self, counts: Tensor, covariates: Tensor, groups: Tensor | None = None, outcome: Tensor | None = None
    ) -> None:
        """The mean-field guide of all documents, of which a minibatch takes its own."""
        size, dtype = self.num_topics, covariates.dtype
        positive = {"constraint": constraints.positive, "event_dim": 1}
        topics = pyro.param("topics", lambda: self._starting_point()[0].to(dtype, copy=True), **positive)
        with pyro.plate("topic", size):
            pyro.sample("words", dist.Dirichlet(topics))
        zeros = covariates.new_zeros
        loc, scale = _locations("coefficients", zeros(self.num_covariates, size), _SD_OF_OTHERS)
        pyro.sample("coefficients", dist.Normal(loc, scale).to_event(2))
        loc, scale = _locations("spread", zeros(size), _SD_OF_OTHERS)
        pyro.sample("spread", dist.LogNormal(loc, scale).to_event(1))
        if self.num_groups:
            loc, scale = _locations("offset_sd", zeros(size) + OFFSET_SD[0], _SD_OF_OTHERS)
            pyro.sample("offset_sd", dist.LogNormal(loc, scale).to_event(1))
            loc, scale = _locations("offsets", zeros(self.num_groups, size), _SD_OF_OTHERS)
            with pyro.plate("group", self.num_groups):
                pyro.sample("offsets", dist.Normal(loc, scale).to_event(1))
        if self.supervised:
            loc, scale = _locations("outcome_effects", zeros(size), _SD_OF_OTHERS)
            pyro.sample("outcome_effects", dist.Normal(loc, scale).to_event(1))
            loc, scale = _locations("noise", zeros(()), _SD_OF_OTHERS)
            pyro.sample("noise", dist.LogNormal(loc, scale))
        loc, scale = _locations("logits", lambda: self._starting_point()[1].to(dtype, copy=True), _SD_OF_LOGITS)
        with pyro.plate("document", self.num_documents) as rows:
            pyro.sample("logits", dist.Normal(loc[rows], scale[rows]).to_event(1))

    @property
    def prior(self) -> tuple[float, float, int, bool]:
        """Its numbers: eta, the sd of coefficients, how many groups there are, and whether there is an outcome."""
        return self.eta, self.coefficient_sd, self.num_groups, self.supervised

    def _starting_point(self) -> tuple[Tensor, Tensor]:
        """Concentrations of topics ``(K, V)`` and logits ``(D, K)``, from the best of several runs of latent Dirichlet allocation."""
        if self._start is None:
            totals = Totals.of(CountRows.of(self._counts, torch.float32))
            runs = [self._run(totals) for _ in range(self.num_starts)]
            _, topics, documents = max(runs, key=lambda run: run[0])
            logs = documents.double().log()
            concentrations = (topics.T.double() - _ETA + self.eta).clamp_min(self.eta / 5)
            self._start = concentrations.contiguous(), logs - logs.mean(1, keepdim=True)
        return self._start

    def _run(self, totals: Totals) -> tuple[float, Tensor, Tensor]:
        documents = self._allocation.random_documents().to(totals.rows.counts.dtype)
        topics = self._allocation.topics_of(documents).T.contiguous()
        alpha, eta = self._allocation.alpha, self._allocation.eta.expand(self.num_topics)
        bounds: list[float] = []
        for _ in range(_SWEEPS):
            topics, documents, bound = sweep(totals, topics, documents, alpha, eta, lambda _: 1.9)
            bounds.append(bound)
            if len(bounds) > _PERIOD and bound - bounds[-1 - _PERIOD] < _GAIN * abs(bound):
                break
        return bounds[-1], topics, documents


def _locations(name: str, start: Any, sd: float) -> tuple[Tensor, Tensor]:
    """Location and scale of a site's normals."""
    loc = pyro.param(f"{name}_loc", start)
    scale = pyro.param(f"{name}_scale", lambda: torch.full_like(loc.detach(), sd), constraint=constraints.positive)
    return loc, scale
