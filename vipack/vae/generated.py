"""Whether what a model generates is like the data, as varied as they are, and no copy of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.cluster.vq
import scipy.stats
import torch
from torch import Tensor

from vipack.display import Readable
from vipack.errors import DataError

__all__ = ["LEAST", "GeneratedReport", "judge_generated", "nearest"]

Array = npt.NDArray[np.float64]

LEAST = 50  # observations to compare
_NEIGHBOURS = 5  # for precision and recall
_CELLS, _LEAST_IN_CELL = 10, 20  # of the space of the data, for the test for copies
_QUANTILE = 0.01  # of distances of data held out, below which an observation counts as a duplicate


@dataclass(frozen=True, repr=False)
class GeneratedReport(Readable):
    """Generated observations beside training data, with data held out as the yardstick.

    Attributes:
        copying: z-score of distances to the nearest training observation, generated against held out: far below 0, what is
            generated lies nearer to the training data than new data do, that is, copies; far above 0, it lies farther away.
        duplicates: the share of generated observations nearer to a training one than all but a hundredth of those held out
            are; about .01 where nothing is copied.
        precision: the share of generated observations within the reach of the data held out (k-nearest neighbours, k = 5).
        recall: the share of data held out within the reach of generated ones.
        told_apart: the share of both that their nearest neighbour tells apart; .5 where they have one distribution.
        counts: how many there are of each.
        classes: label -> share of the generated observations whose nearest training observation bears it; empty without labels.

    Source: Meehan, Chaudhuri, Dasgupta (2020), arXiv:2004.05675, for copying; Kynkäänniemi et al. (2019), arXiv:1904.06991,
    for precision and recall; Lopez-Paz, Oquab (2017), arXiv:1610.06545, for the two-sample test.
    """

    copying: float
    duplicates: float
    precision: float
    recall: float
    told_apart: float
    counts: dict[str, int]
    classes: dict[int, float]

    @property
    def copies(self) -> bool:
        """Whether what is generated is surely nearer to the training data than data held out are: z below -3."""
        return self.copying < -3.0

    def __str__(self) -> str:
        verdict = "copies of training data" if self.copies else "no copies"
        lines = [
            f"{self.counts['generated']:,} generated, {self.counts['train']:,} training, {self.counts['held out']:,} held out",
            f"copying z {self.copying:+.1f} ({verdict}), duplicates {self.duplicates:.1%} (held out: {_QUANTILE:.1%})",
            f"precision {self.precision:.2f}, recall {self.recall:.2f}, told apart from data held out {self.told_apart:.0%} "
            "(50% if alike)",
        ]
        if self.classes:
            lines.append("classes " + ", ".join(f"{label}: {share:.0%}" for label, share in self.classes.items()))
        return "\n".join(lines)


def judge_generated(
    generated: Tensor, train: Tensor, held_out: Tensor, labels: Tensor | None = None, *, seed: int = 0
) -> GeneratedReport:
    """Compare generated observations with training data and data held out, by Euclidean distance.

    Args:
        generated, train, held_out: ``(n, *event shape)``; features, such as encodings, where distances of these mean more.
        labels: of the training data ``(n,)``, to count classes by the nearest neighbour.

    Raises:
        DataError: shapes that do not fit, or fewer than 50 observations generated or held out.
    """
    sets = {"generated": generated, "train": train, "held out": held_out}
    flat = {name: torch.as_tensor(values).double().flatten(1) for name, values in sets.items()}
    for name, values in flat.items():
        if len(values) < LEAST:
            raise DataError(f"{name}: {len(values)} observations are too few to compare; give at least {LEAST}.")
        if values.shape[1:] != flat["train"].shape[1:]:
            raise DataError(
                f"{name}: an observation has shape {tuple(sets[name].shape[1:])}, one of the training data "
                f"{tuple(train.shape[1:])}; they must be alike."
            )
        if not bool(values.isfinite().all()):
            raise DataError(f"{name}: has values that are not finite.")
    to_train, which = nearest(flat["generated"], flat["train"])
    yardstick, _ = nearest(flat["held out"], flat["train"])
    classes: dict[int, float] = {}
    if labels is not None:
        shown = torch.as_tensor(labels)[which]
        classes = {int(label): float((shown == label).double().mean()) for label in torch.as_tensor(labels).unique()}
    threshold = float(np.quantile(yardstick, _QUANTILE))
    count = min(len(generated), len(held_out))
    order = torch.Generator().manual_seed(seed)
    alike = [flat[name][torch.randperm(len(flat[name]), generator=order)[:count]] for name in ("generated", "held out")]
    return GeneratedReport(
        _copying(flat, to_train, yardstick, seed),
        float((to_train < threshold).mean()),
        _share_inside(alike[0], alike[1]),
        _share_inside(alike[1], alike[0]),
        _told_apart(*alike),
        {name: len(values) for name, values in flat.items()},
        classes,
    )


def nearest(queries: Tensor, points: Tensor, k: int = 1) -> tuple[Array, npt.NDArray[np.int64]]:
    """Distance to the k-th nearest of `points`, and which it is, for each of `queries`: ``(n,)`` both."""
    distances, indices = [], []
    for block in queries.flatten(1).double().split(max(1, 20_000_000 // max(1, len(points)))):
        values, which = torch.cdist(block, points.flatten(1).double()).topk(k, largest=False)
        distances.append(values[:, -1])
        indices.append(which[:, -1])
    return torch.cat(distances).numpy(), torch.cat(indices).numpy()


def _copying(flat: dict[str, Tensor], generated: Array, yardstick: Array, seed: int) -> float:
    """The mean z-score of Mann-Whitney's test over cells of the training data, each weighted by its data held out."""
    train = flat["train"].numpy()
    subset = np.random.default_rng(seed).permutation(len(train))[:5_000]
    centres, _ = scipy.cluster.vq.kmeans2(train[subset], min(_CELLS, len(subset) // 50 + 1), minit="++", seed=seed)
    cells = {name: nearest(flat[name], torch.from_numpy(centres))[1] for name in ("generated", "held out")}
    scores, weights = [], []
    for cell in range(len(centres)):
        ours, theirs = generated[cells["generated"] == cell], yardstick[cells["held out"] == cell]
        if min(len(ours), len(theirs)) >= _LEAST_IN_CELL:
            scores.append(_z(ours, theirs))
            weights.append(len(theirs))
    if not scores:
        return _z(generated, yardstick)
    share = np.asarray(weights) / sum(weights)
    return float((share * scores).sum() / math.sqrt((share**2).sum()))


def _z(ours: Array, theirs: Array) -> float:
    """Mann-Whitney's z-score: positive where `ours` are the larger ones."""
    u = scipy.stats.mannwhitneyu(ours, theirs).statistic
    n, m = len(ours), len(theirs)
    return float((u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12))


def _share_inside(queries: Tensor, points: Tensor) -> float:
    """The share of `queries` that lie no farther from one of `points` than its own fifth neighbour does."""
    radius = torch.from_numpy(nearest(points, points, _NEIGHBOURS + 1)[0])
    inside = [(torch.cdist(block, points) <= radius).any(1) for block in queries.split(2_000)]
    return float(torch.cat(inside).double().mean())


def _told_apart(ours: Tensor, theirs: Tensor) -> float:
    """The share of both whose nearest neighbour among all others is of their own kind."""
    both = torch.cat([ours, theirs])
    own = torch.arange(len(both)) < len(ours)
    return float((own[torch.from_numpy(nearest(both, both, 2)[1])] == own).double().mean())
