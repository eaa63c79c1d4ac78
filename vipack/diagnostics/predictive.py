"""Does the model, as fitted, make data like those observed? Posterior predictive p-values of test statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from vipack.diagnostics.rounding import COMPUTED, constant, same
from vipack.diagnostics.sources import HasPosterior, positive, posterior_of
from vipack.entry import entry
from vipack.errors import UsageError
from vipack.posterior import Posterior
from vipack.posterior.answers import predictions

__all__ = ["predictive_pvalues"]

Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], float]

DEFAULT: dict[str, Statistic] = {
    "mean": lambda values: float(np.mean(values)),
    "sd": lambda values: float(np.std(values)),
    "min": lambda values: float(np.min(values)),
    "max": lambda values: float(np.max(values)),
}


@entry
def predictive_pvalues(
    source: Posterior | HasPosterior,
    statistics: Mapping[str, Statistic] | None = None,
    *,
    num_draws: int = 1_000,
    seed: int = 0,
    resample: bool | None = None,
) -> pd.DataFrame:
    """How often data drawn from the fit have a larger test statistic than the observed ones.

    One row for each observed site and statistic, with ``observed``, the ``predicted`` mean and its ``sd`` over draws, and
    ``p = P(T(y_rep) > T(y)) + P(T(y_rep) = T(y)) / 2``. A p near 0 or 1 shows a feature of the data that the model, as
    fitted, does not make. As the data were fitted too, p is closer to 1/2 than a uniform number would be.

    Args:
        statistics: name -> function of a site's observed values, a NumPy array of the site's shape, flat where values are
            masked; mean, sd, min and max by default.
        resample: from which draws of the latents, resampled ones or the guide's own; None follows the verdict of the last
            diagnosis. ``attrs["draws"]`` says which they are.

    Raises:
        UsageError: the model observes nothing, or a statistic is not a function of an array that gives a number.

    Source: Gelman, Meng, Stern (1996), Statistica Sinica 6.
    """
    posterior = posterior_of(source)
    positive("num_draws", num_draws)
    chosen = DEFAULT if statistics is None else statistics
    if not isinstance(chosen, Mapping) or not chosen or not all(callable(f) for f in chosen.values()):
        raise UsageError(
            "statistics: expected a dict of names and functions, as in {'range': lambda y: y.max() - y.min()}."
        )
    if not posterior.observed:
        raise UsageError("the model observes nothing, so that there is nothing to predict; give a site obs=.")
    drawn, which, _ = predictions(posterior, num_draws, seed=seed, resample=resample)
    rows = {}
    for site, value in posterior.observed.items():
        observed, predicted = _kept(value, drawn[site], posterior.observed_masks.get(site))
        relative = COMPUTED * torch.finfo(drawn[site].dtype if drawn[site].is_floating_point() else torch.float64).eps
        for name, statistic in chosen.items():
            actual = _number(name, statistic, observed)
            replicated = np.array([_number(name, statistic, each) for each in predicted])
            tied = same(replicated, actual, relative)  # as the mean of probabilities is with that of others
            p = np.mean((replicated > actual) & ~tied) + np.mean(tied) / 2
            sd = 0.0 if constant(replicated, relative) else replicated.std()
            rows[site, name] = [actual, replicated.mean(), sd, float(p)]
    index = pd.MultiIndex.from_tuples(rows, names=["site", "statistic"])
    table = pd.DataFrame(list(rows.values()), index=index, columns=["observed", "predicted", "sd", "p"])
    table.columns.name = which.label
    table.attrs["draws"] = str(which)
    return table


def _kept(value: Tensor, drawn: Tensor, mask: Tensor | None) -> tuple[Array, Array]:
    observed = value.detach().cpu().to_dense().double().numpy()
    predicted = drawn.detach().cpu().double().numpy()
    if mask is None:
        return observed, predicted
    wide = mask.cpu().numpy().reshape(tuple(mask.shape) + (1,) * (observed.ndim - mask.dim()))
    kept = np.broadcast_to(wide, observed.shape)
    return observed[kept], predicted[:, kept]


def _number(name: str, statistic: Statistic, values: Array) -> float:
    try:
        return float(statistic(values))
    except Exception as error:
        raise UsageError(
            f"statistics[{name!r}]: raised {type(error).__name__}: {error} on an array of shape {values.shape}; expected a "
            "function of an array that gives one number."
        ) from error
