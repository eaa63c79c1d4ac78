"""Means, sds and quantiles of draws, element by element."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vipack.diagnostics.rounding import COMPUTED, DRAWN, constant
from vipack.display import element_name
from vipack.posterior.answers import Used

__all__ = ["summary_table"]


def summary_table(
    sites: Mapping[str, Tensor], computed: Collection[str], which: Used, *, most: int | None = None
) -> pd.DataFrame:
    """One row an element of ``site -> (S, *shape)``.

    Args:
        computed: sites whose values are computed from others, with more rounding.
        which: which draws these are.
        most: elements of each site, the first ones; all by default.
    """
    rows: dict[str, list[float]] = {}
    for name, draws in sites.items():
        values = draws.reshape(len(draws), -1)[:, :most].double()
        elements = itertools.islice(np.ndindex(*draws.shape[1:]), most)
        labels = [element_name(name, index) for index in elements]
        probabilities = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64, device=values.device)
        # torch.quantile refuses more than 16 million numbers at once.
        columns = values.split(max(1, 2**23 // len(values)), dim=1)
        quantiles = torch.cat([block.quantile(probabilities, dim=0) for block in columns], dim=1)
        ulps = COMPUTED if name in computed else DRAWN
        mean, sd = _mean_and_sd(values, ulps * torch.finfo(draws.dtype).eps if draws.is_floating_point() else 0.0)
        figures = torch.cat([mean[None], sd[None], quantiles]).T
        rows.update(zip(labels, figures.tolist(), strict=True))
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "sd", "5%", "50%", "95%"])
    table.columns.name = which.label
    table.attrs["draws"] = str(which)
    return table


def _mean_and_sd(values: Tensor, relative: float) -> tuple[Tensor, Tensor]:
    """Of the columns of ``(S, P)``; what does not vary beyond rounding is what its first draw is."""
    first = values[0]
    still = torch.from_numpy(constant(values.cpu().numpy(), relative)).to(values.device)
    reference = torch.where(first.isfinite(), first, 0.0)  # sums of large numbers would lose what is between them
    x = values - reference
    sd = torch.where(still, 0.0, x.std(0)) if len(values) > 1 else torch.full_like(first, torch.nan)
    return torch.where(still, first, reference + x.mean(0)), sd
