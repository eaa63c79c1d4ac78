"""Is a guide calibrated for a model? Where true parameters lie among the draws of fits to simulated data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vipack.display import Readable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Calibration", "calibration"]

Array = npt.NDArray[np.float64]

LEVEL = 0.01  # at which a guide is flagged, over all elements together


@dataclass(frozen=True, repr=False)
class Calibration(Readable):
    """``p = P_q(theta < true theta)`` of M fits to simulated data, for each of P elements of the latents.

    Were the guide the posterior, each column would be uniform. A column that leans to one side tells a biased mean; one
    that piles up at both ends a spread too narrow, in the middle one too wide.

    Attributes:
        names: as ``theta[0]``.
        probabilities: ``(M, P)``.
        bias: p-values ``(P,)`` of Butler's test of symmetry about 1/2: p against 1 - p by the largest distance between
            their distribution functions, as Kolmogorov and Smirnov's, but for samples that mirror each other.
        spread: p-values ``(P,)`` of a Kolmogorov-Smirnov test of ``|p - 1/2|`` against the uniform distribution.
        seconds: that it took.
        engine: how the fits ran.

    Source: Yao, Vehtari, Simpson, Gelman (2018), arXiv:1802.02538, section 4.2 (bias); Talts et al. (2018),
    arXiv:1804.06788 (uniformity); Butler (1969), Annals of Mathematical Statistics 40(6).
    """

    names: tuple[str, ...]
    probabilities: Array
    bias: Array
    spread: Array
    seconds: float = 0.0
    engine: str = ""

    @property
    def biased(self) -> tuple[str, ...]:
        """Elements whose mean is biased, at 1% over all elements (Bonferroni)."""
        return tuple(n for n, p in zip(self.names, self.bias, strict=True) if p < LEVEL / len(self.names))

    @property
    def misjudged(self) -> dict[str, str]:
        """Elements whose spread is wrong, at 1% over all elements: name -> "too narrow" or "too wide"."""
        wrong = {}
        for i, name in enumerate(self.names):
            if self.spread[i] < LEVEL / len(self.names):
                away = np.abs(self.probabilities[:, i] - 0.5).mean()
                wrong[name] = "too narrow" if away > 0.25 else "too wide"
        return wrong

    @property
    def calibrated(self) -> bool:
        """Whether nothing is flagged."""
        return not self.biased and not self.misjudged

    def histogram(self, name: str, bins: int = 20) -> npt.NDArray[np.int64]:
        """How many of the M fits fall in each of `bins` equal intervals of [0, 1], for one element."""
        counts, _ = np.histogram(self.probabilities[:, self.names.index(name)], bins=bins, range=(0.0, 1.0))
        return counts

    def to_frame(self) -> pd.DataFrame:
        """One row an element: the p-values of its bias and of its spread."""
        import pandas as pd

        table = {"bias": self.bias, "spread": self.spread}
        return pd.DataFrame(table, index=pd.Index(self.names, name="element"))

    def __str__(self) -> str:
        count = len(self.probabilities)
        head = f"{count} fits to data simulated from the model, {self.seconds:.0f} s"
        if self.calibrated:
            return f"calibrated: {head}; no mean is biased and no spread wrong"
        lines = [f"NOT calibrated: {head}"]
        lines += [f"  {name}: the mean is biased (p = {self._p(self.bias, name):.1e})" for name in self.biased]
        lines += [
            f"  {name}: the spread is {how} (p = {self._p(self.spread, name):.1e})"
            for name, how in self.misjudged.items()
        ]
        return "\n".join(lines)

    def _p(self, values: Array, name: str) -> float:
        return float(values[self.names.index(name)])


def calibration(names: tuple[str, ...], probabilities: Array, *, seconds: float = 0.0, engine: str = "") -> Calibration:
    """The tests on ``(M, P)`` probabilities."""
    from scipy import stats  # takes a second, which every run would spend

    columns = probabilities.T
    bias = np.array([_asymmetry(p) for p in columns])
    spread = np.array([stats.kstest(2 * np.abs(p - 0.5), "uniform").pvalue for p in columns])
    return Calibration(names, probabilities, bias, spread, seconds, engine)


def _asymmetry(p: Array) -> float:
    """The p-value of Butler's test: from the outside in, the signs of p - 1/2 add up like a fair random walk.

    The largest distance of such a walk from zero is that of Brownian motion, whose distribution is a theta series.
    """
    centred = p - 0.5
    centred = centred[centred != 0]
    if not len(centred):
        return 1.0
    walk = np.sign(centred)[np.argsort(-np.abs(centred), kind="stable")].cumsum()
    distance = float(np.abs(walk).max()) / np.sqrt(len(walk))
    odd = 2 * np.arange(50) + 1
    within = 4 / np.pi * ((-1.0) ** np.arange(50) / odd * np.exp(-((np.pi * odd / distance) ** 2) / 8)).sum()
    return float(np.clip(1 - within, 0.0, 1.0))
