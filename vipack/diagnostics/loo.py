"""Leave-one-out predictive accuracy from an approximate posterior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vipack.diagnostics.sources import HasPosterior, positive, posterior_of
from vipack.display import Readable, element_name
from vipack.entry import entry
from vipack.errors import TrustWarning, UsageError, warn
from vipack.importance import KHAT_LIMIT, importance, logsumexp, mean_and_se
from vipack.posterior import Posterior
from vipack.posterior.blocked_posterior import pieces
from vipack.types import Estimate, Verdict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Loo", "loo"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Loo(Readable):
    """Expected log predictive density of N observations, each predicted from the others; in nats.

    Attributes:
        elpd: their sum, with the standard error that the scatter between observations gives.
        effective_parameters: ``p_loo``, by how much the same data are predicted better when they are not left out.
        names: of the observations, as ``y[3]``.
        elpds, khats: of each observation, ``(N,)``; above 0.7 the observation is so influential that its estimate is
            unreliable.
        khat: of the weights that correct for the guide being an approximation.
        verdict: of the last diagnosis of the fit; None where it was not judged.
    """

    elpd: Estimate
    effective_parameters: float
    names: tuple[str, ...]
    elpds: Array
    khats: Array
    khat: float
    verdict: Verdict | None = None

    @property
    def influential(self) -> tuple[str, ...]:
        """Observations whose k-hat is above 0.7, the highest first."""
        order = np.argsort(-self.khats)
        return tuple(self.names[i] for i in order if self.khats[i] > KHAT_LIMIT)

    def to_frame(self) -> pd.DataFrame:
        """One row an observation: its elpd (nats) and k-hat."""
        import pandas as pd

        table = {"elpd": self.elpds, "khat": self.khats}
        return pd.DataFrame(table, index=pd.Index(self.names, name="observation"))

    def __str__(self) -> str:
        lines = [
            f"elpd {self.elpd} nats over {len(self.names)} observations, about {self.effective_parameters:.1f} parameters"
        ]
        judged = "not judged: run fit.diagnose()" if self.verdict is None else self.verdict.value
        if self.verdict is Verdict.DISTRUST:
            judged += ": nothing is certified, weighted or not"
        lines.append(f"  from draws of the guide, weighted to be the posterior's ({judged})")
        if self.khat > KHAT_LIMIT:
            lines.append(f"  not to be believed: the guide's own k-hat is {self.khat:.2f}; fit a better guide")
        elif self.influential:
            shown = ", ".join(self.influential[:5]) + (", ..." if len(self.influential) > 5 else "")
            lines.append(
                f"  {len(self.influential)} observations have k-hat above {KHAT_LIMIT} ({shown}): fit without them to be sure"
            )
        return "\n".join(lines)


@entry
def loo(source: Posterior | HasPosterior, *, num_draws: int = 4_000, seed: int = 0) -> Loo:
    """Pareto-smoothed leave-one-out cross-validation with draws from a guide instead of the posterior.

    The weights of observation i are ``p(z, y) / q(z) / p(y_i | z)``: the guide is corrected for together with leaving the
    observation out. Plain PSIS-LOO takes q for the posterior. So the draws are weighted ones whatever the verdict of the
    last diagnosis, which ``str()`` tells.

    Args:
        num_draws: S.

    Raises:
        UsageError: the model observes nothing, an observation has no density given the latents (discrete latents are
            summed out), or every latent belongs to one row, which is then left to its prior.

    Warns:
        TrustWarning: the model has a ``pyro.factor``, which is in no observation.

    Source: Magnusson, Andersen, Jonasson, Vehtari (2019), arXiv:1904.10679, equation 9; Vehtari, Gelman, Gabry (2017).
    """
    posterior = posterior_of(source)
    positive("num_draws", num_draws, 100)
    draws = posterior.draws(num_draws, seed=seed)
    if draws.row_log_weights is not None:
        raise UsageError(
            "every latent belongs to one row of the data, so that leaving the row out leaves its latent to the prior; "
            "hold rows out and compare their evidence instead."
        )
    log_weights = draws.log_weights.cpu().numpy()
    # Plain PSIS, as published: a cut of the largest weights would hide how badly an influential observation is predicted.
    own = importance(log_weights, cut=False)
    names: list[str] = []
    elpds, fitted, khats = [], [], []
    for first, piece in pieces(posterior):
        for name, column in _observations(piece, first, piece.log_likelihood(draws.latents)):
            weights = importance(log_weights - column, cut=False)
            names.append(name)
            elpds.append(logsumexp(weights.log_weights + column))
            fitted.append(logsumexp(own.log_weights + column))
            khats.append(weights.khat)
    factors = ", ".join(repr(site.name) for site in posterior.table.of_kind("factor"))
    if not names:
        why = f"has pyro.factor {factors} alone" if factors else "observes nothing, or sums out discrete latents"
        raise UsageError(
            f"no observation has a density of its own: the model {why}; leave-one-out needs independent observations given "
            "the latents, in a pyro.sample statement with obs=."
        )
    if factors:
        warn(
            TrustWarning(
                f"loo: pyro.factor {factors} has no observations to leave out and is not counted in elpd; if it is a likelihood, "
                "write it as a pyro.sample statement with obs=, of a distribution with that log_prob."
            )
        )
    total = Estimate(float(np.sum(elpds)), len(elpds) * mean_and_se(np.array(elpds)).se)
    parameters = float(np.subtract(fitted, elpds).sum())
    return Loo(total, parameters, tuple(names), np.array(elpds), np.array(khats), own.khat, posterior.verdict)


def _observations(posterior: Posterior, first: int, likelihood: Mapping[str, Tensor]) -> Iterator[tuple[str, Array]]:
    """Name and log densities ``(S,)`` of each observation that is not masked.

    Args:
        first: the number of the posterior's first observation among all.
    """
    for site, densities in likelihood.items():
        value = densities.cpu().double().numpy()
        shape, axis = value.shape[1:], 0
        if first:
            dims, plate = posterior.table[site].dim_names, getattr(posterior.program.batch_plate, "name", None)
            if plate not in dims:
                continue  # it belongs to all observations, and was counted with the first block
            axis = dims.index(plate)
        mask = posterior.observed_masks.get(site)
        kept = np.ones(shape, dtype=bool) if mask is None else np.broadcast_to(mask.cpu().numpy(), shape)
        for index in np.ndindex(*shape):
            if kept[index]:
                number = tuple(i + first * (k == axis) for k, i in enumerate(index))
                yield element_name(site, number), value[(slice(None), *index)]
