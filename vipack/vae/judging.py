"""How good a variational autoencoder is, by figures: evidence, what its latents carry, where its bound falls short, what it generates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vipack.diagnostics.collapse import LatentActivity, latent_activity
from vipack.diagnostics.sources import positive
from vipack.display import Readable, listed
from vipack.entry import entry
from vipack.errors import UsageError
from vipack.importance import mean_and_se
from vipack.posterior import Posterior, RowEvidence
from vipack.posterior.annealing import Annealing, annealed_rows
from vipack.posterior.by_rows import check_apart
from vipack.posterior.row_densities import RowDensities, bounded_latents
from vipack.program import seeded
from vipack.program.densities.densities import compute, row_sums
from vipack.progress import Progress, shown
from vipack.training import Fit
from vipack.types import Estimate
from vipack.vae.gaps import Gaps, refined_bounds
from vipack.vae.generated import LEAST, GeneratedReport, judge_generated

__all__ = ["Evaluation", "evaluate"]

Array = npt.NDArray[np.float64]

_ROWS = 1_000  # observations for what latents carry
_REFINED = 100  # that get a guide of their own
_DRAWS = 20  # for reconstruction and divergence
_PAIRS_AT_ONCE = 50
_TEMPERATURES = 60  # for log p(x) beside refined bounds


@dataclass(frozen=True, repr=False)
class Evaluation(Readable):
    """Figures of a model and guide whose latents each belong to an observation, on one set of data, in nats an observation.

    Attributes:
        evidence: log p(x) by importance sampling, of each observation and of all; a lower bound.
        elbo: mean and standard error over observations.
        reconstruction: mean of log p(x | z) over draws of q(z | x).
        divergence: mean of KL(q(z | x) || p(z)); ``elbo = reconstruction - divergence``.
        mutual_information: of observation and latents under q, at most the log of the number of observations looked at.
        marginal_divergence: KL(q(z) || p(z)) of the guide's average over observations; ``divergence`` less the former.
        activity: divergence and activity of each latent dimension.
        gaps: of the family and of amortisation, if they were asked for.
        generated: what generated observations are like, if they were asked for.

    Source: Hoffman, Johnson (2016), ELBO surgery, for the split of the divergence.
    """

    evidence: RowEvidence
    elbo: Estimate
    reconstruction: Estimate
    divergence: Estimate
    mutual_information: float
    marginal_divergence: float
    activity: LatentActivity
    gaps: Gaps | None
    generated: GeneratedReport | None

    def __str__(self) -> str:
        lines = [
            f"log p(x)         {self.evidence}",
            f"ELBO             {self.elbo} = reconstruction {self.reconstruction} - KL {self.divergence}",
            f"KL               {self.mutual_information:.2f} mutual information + {self.marginal_divergence:.2f} KL(q(z) || p(z))",
            f"latents          {self.activity}" + ("; COLLAPSED" if self.activity.collapsed else ""),
        ]
        if self.gaps is not None:
            lines.append(f"gaps             {self.gaps}")
        if self.generated is not None:
            lines.append("generated        " + str(self.generated).replace("\n", "\n" + 17 * " "))
        return "\n".join(lines)


@entry
def evaluate(
    fit: Fit,
    data: Any = None,
    *,
    fixed: Mapping[str, Any] | None = None,
    num_particles: int = 1_000,
    gaps: bool = True,
    generated: int = 1_000,
    train: Any = None,
    labels: Any = None,
    site: str | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Evaluation:
    """Judge a fitted autoencoder, or any model and guide whose latents each belong to an observation.

    Args:
        data, fixed: observations held out, in the form of the fit's; its own data by default, on which figures are too good.
        num_particles: K for log p(x) of each observation.
        gaps: whether to refine a Gaussian for each of up to 100 observations, which tells the family's gap from amortisation's;
            not done where a latent is not on all of R^d, as a label is not.
        generated: observations to generate and compare with training data, `data` as the yardstick; 0 for none. Fewer than 50,
            and data with missing values, are not compared.
        train: training observations ``(n, *event shape)`` to compare with, those of the fit by default.
        labels: of the training observations, to count the classes of generated ones.
        site: the observed site to compare; the only one by default.
        progress: True or False; a bar in a terminal or a notebook by default.

    Raises:
        UsageError: a latent is shared by all observations.
        GuideError: the guide cannot be called with `data`.
        KeyboardInterrupt: Ctrl-C.
    """
    positive("num_particles", num_particles)
    with shown(progress) as bar:
        evidence = fit.log_evidence(num_particles, data=data, fixed=fixed, seed=seed, progress=progress)
        some = fit.posterior_of(data, fixed=fixed, most=_ROWS)
        check_apart(some, "evaluate")
        assert isinstance(evidence, RowEvidence)
        rest, kl = _split(some, seed)
        activity = latent_activity(some, seed=seed)
        assert activity is not None
        information = _information(some, seed, bar)
        few = fit.posterior_of(data, fixed=fixed, most=_REFINED) if gaps and not bounded_latents(some) else None
        return Evaluation(
            evidence,
            mean_and_se(rest - kl),
            mean_and_se(rest),
            mean_and_se(kl),
            information,
            float(kl.mean()) - information,
            activity,
            None if few is None else _gaps(few, seed, bar),
            None if data is None or not generated else _judged(fit, some, generated, train, labels, site, seed),
        )


def _split(posterior: Posterior, seed: int) -> tuple[Array, Array]:
    """log p(x | z) and log q(z | x) - log p(z) of each observation, means over draws ``(N,)``."""
    latents = {site.name for site in posterior.table.of_kind("latent")}
    plate = posterior.evaluation.row_plate
    assert plate is not None
    rest, kl = [], []
    with seeded(seed), posterior.running():
        for _ in range(_DRAWS):
            guide_trace, model_trace = posterior.program.traces(posterior.arguments)
            compute(guide_trace), compute(model_trace)
            prior = row_sums(model_trace, plate, names=latents)
            rest.append(row_sums(model_trace, plate) - prior)
            kl.append(row_sums(guide_trace, plate) - prior)
    return torch.stack(rest).double().mean(0).numpy(), torch.stack(kl).double().mean(0).numpy()


def _information(posterior: Posterior, seed: int, progress: Progress) -> float:
    """Mutual information in nats of observation and latents under q, over the observations at hand.

    The mean over n of log q(z_n | x_n) less the log of the mean of q(z_n | x_m) over m, by one draw z_n of each.
    """
    densities = RowDensities(posterior, moved=False)
    with seeded(seed):
        z = densities.flat(posterior.guide_draws(1, seed=seed))[0]
        count = len(z)
        progress.begin("mutual information", count)
        terms = []
        with posterior.running():
            own = densities.log_q(z)
            for block in torch.arange(count).split(_PAIRS_AT_ONCE):
                others = torch.vmap(lambda one: densities.log_q(one.expand(count, -1)), randomness="different")(
                    z[block]
                )
                terms.append(own[block] - (others.logsumexp(-1) - math.log(count)))
                progress(len(block))
    progress.close()
    return float(torch.cat(terms).double().mean())


def _gaps(posterior: Posterior, seed: int, progress: Progress) -> Gaps:
    """With log p(x) by annealed importance sampling, which a refined bound does not outdo by chance."""
    best, elbo = refined_bounds(posterior, seed=seed, progress=progress)
    evidence = annealed_rows(posterior, Annealing(num_temperatures=_TEMPERATURES), seed=seed)
    return Gaps(evidence, best, elbo)


def _judged(
    fit: Fit, some: Posterior, count: int, train: Any, labels: Any, site: str | None, seed: int
) -> GeneratedReport | None:
    """What `count` generated observations are like, beside those of `some` and the fit's."""
    observed = list(some.observed)
    name = observed[0] if site is None and len(observed) == 1 else site
    if name not in observed:
        raise UsageError(f"evaluate: site: expected one of the observed sites {listed(observed)}, found {name!r}.")
    own = fit.posterior.observed[name] if train is None else torch.as_tensor(train)
    held_out = some.observed[name]
    if min(len(held_out), len(own), count) < LEAST or not bool(own.isfinite().all() & held_out.isfinite().all()):
        return None
    new = fit.generate(count, seed=seed, progress=False)[name]
    return judge_generated(new, own, held_out, None if labels is None else torch.as_tensor(labels), seed=seed)
