"""What a fit says: its posterior, its predictions, and the weights of its draws."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from torch import Tensor

from vipack.diagnostics.grounds import Grounds
from vipack.diagnostics.predictive import predictive_pvalues
from vipack.diagnostics.summary import summary_table
from vipack.errors import VipackError
from vipack.importance import KHAT_LIMIT
from vipack.plots.canvas import axis_for
from vipack.plots.importance_tail import draw_tails
from vipack.plots.marginals import posterior as marginals
from vipack.plots.predictive_check import predictive
from vipack.posterior.answers import answer
from vipack.report.content import Picture, Section, Table
from vipack.report.figures import figure_of
from vipack.report.fitted import Fitted

__all__ = ["posterior_section", "predictive_section", "weight_section"]

_MOST_NUMBERS = 20_000_000  # of draws at once
_LEAST_DRAWS = 100
_MOST_OF_A_SITE, _MOST_ROWS = 12, 60  # of the table
_SHOWN_SITES, _MOST_SHOWN = 12, 200  # of the picture, and elements of each
_PREDICTED = 60  # data sets
_MOST_OBSERVED = 200_000  # numbers to predict


def posterior_section(fit: Fitted, *, num_draws: int, seed: int) -> list[Section]:
    """Table and intervals of the latents and what is computed from them; none where each observation has its own alone."""
    posterior = fit.posterior
    table = posterior.table
    chosen = table.of_kind("latent", "enumerated", "deterministic")
    if not chosen or (posterior.rows_apart and (fit.num_observations or 1) > 1):
        return []
    numbers = sum(math.prod(site.batch_shape + site.event_shape) for site in chosen)
    count = min(num_draws, max(_LEAST_DRAWS, _MOST_NUMBERS // max(1, numbers)))
    drawn, which = answer(posterior, count, seed=seed, densities=False)
    computed = {site.name for site in table.of_kind("deterministic")}
    frame = summary_table(drawn.sites, computed, which, most=_MOST_OF_A_SITE)
    frame.index.name = "element"
    shown = frame.iloc[:_MOST_ROWS]
    total = sum(value[0].numel() for value in drawn.sites.values())
    texts = [f"From {count:,} draws: {which}."]
    if len(shown) < total:
        texts.append(
            f"The table has {len(shown)} of {total:,} elements, at most {_MOST_OF_A_SITE} of a site; fit.summary() has all."
        )
    return [
        Section(
            "Posterior",
            texts,
            tables=[Table(shown, "Mean, standard deviation and quantiles of each element")],
            pictures=_intervals(drawn.sites, computed, frame),
        )
    ]


def _intervals(sites: dict[str, Tensor], computed: set[str], frame: pd.DataFrame) -> list[Picture]:
    """Of the latents; of what is computed from them where there is nothing else."""
    names = [name for name in sites if name not in computed] or list(sites)
    try:
        axes = marginals({name: _corner(sites[name]) for name in names[:_SHOWN_SITES]})
    except VipackError:  # draws that are no finite numbers
        return []
    some = frame.iloc[:6]
    described = "; ".join(f"{name} {row['mean']:.3g} ± {row['sd']:.2g}" for name, row in some.iterrows())
    return [
        Picture(
            figure_of(axes[0]),
            "Marginals of the posterior, with means and 90% intervals.",
            f"Marginals of the posterior, mean ± sd: {described}{' and so on, as in the table' if len(frame) > 6 else ''}.",
        )
    ]


def _corner(draws: Tensor) -> Tensor:
    """Of draws ``(S, *shape)`` those of the first elements along each dimension, so that names of elements stay right."""
    for dim in range(1, draws.dim()):
        beyond = math.prod(draws.shape[dim + 1 :])
        draws = draws.narrow(dim, 0, min(draws.shape[dim], max(1, _MOST_SHOWN // max(1, beyond))))
    return draws


def predictive_section(fit: Fitted, *, seed: int) -> list[Section]:
    """Data that the fit makes beside those observed."""
    if not fit.posterior.table.of_kind("observed"):
        return []
    title = "Predictive check"
    numbers = sum(value.numel() for value in fit.posterior.observed.values())
    if numbers > _MOST_OBSERVED:
        return [
            Section(title, [f"Not made: {numbers:,} observed numbers are many to predict anew; see fit.predict()."])
        ]
    try:
        axes = predictive(fit, num_draws=_PREDICTED, seed=seed)
        values = predictive_pvalues(fit, num_draws=min(1_000, _MOST_NUMBERS // max(1, numbers)), seed=seed)
    except VipackError as error:
        return [Section(title, [f"Not shown: {error}"])]
    extreme = values[(values["p"] < 0.01) | (values["p"] > 0.99)]
    names = [" ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in extreme.index]
    said = (
        f"Far out in the tails: {', '.join(names)}. The model, as fitted, does not make this feature of the data."
        if names
        else "No statistic of the observed data lies in the outer hundredth of those of predicted data."
    )
    flat = values.copy()
    flat.index = pd.Index(
        [" ".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in values.index], name="statistic"
    )
    return [
        Section(
            title,
            [
                "Does the fitted model make data like those observed? p is the share of predicted data sets with a larger "
                "value; near 0 or 1 it shows a feature that the model does not make.",
                said,
            ],
            tables=[Table(flat, "Statistics of the observed data beside those of predicted data")],
            pictures=[
                Picture(
                    figure_of(axes[0]),
                    "Observed data (dark) and data sets that the fit predicts (light).",
                    f"Observed data beside {_PREDICTED} predicted data sets. {said}",
                )
            ],
        )
    ]


def weight_section(fit: Fitted, grounds: Grounds) -> list[Section]:
    """The tail of the importance weights that the verdict stands on; none where each row's were judged by themselves."""
    diagnosis = grounds.diagnosis
    totals = grounds.weights.totals
    if fit.posterior.rows_apart or not np.isfinite(totals).any():
        return []
    sets = [totals[start : start + diagnosis.num_draws] for start in range(0, len(totals), diagnosis.num_draws)]
    if any(not np.isfinite(each).any() for each in sets):
        return []
    ax = axis_for(None, 6.8, 3.8)
    draw_tails(ax, sets)
    low, high = diagnosis.khat_range
    return [
        Section(
            "Importance weights",
            [
                f"k-hat is the shape of the weights' tail: below {KHAT_LIMIT} draws can be resampled with their weights, above "
                "it a few of them have all the weight.",
            ],
            pictures=[
                Picture(
                    figure_of(ax),
                    f"The largest importance weights of {len(sets)} {'set' if len(sets) == 1 else 'sets'} of "
                    f"{diagnosis.num_draws:,} draws, and the Pareto tails fitted to them.",
                    f"Tail of the importance weights: k-hat {diagnosis.khat:.2f}, between {low:.2f} and {high:.2f} over "
                    f"{len(sets)} sets of draws; the limit is {KHAT_LIMIT}.",
                )
            ],
        )
    ]
