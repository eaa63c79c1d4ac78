"""Linear-response covariances of a mean-field fit, with all that is known of how good they are."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from vipack.display import Readable, listed

__all__ = ["LEAST_SHARE", "LinearResponse"]

LEAST_SHARE = 0.85  # of the variance; an sd is 8% too small then
_SCOPE = (
    "Linear response mends covariances and scales of a mean-field fit at its optimum. It mends no wrong mean, no mode that was "
    "missed, no skewness or tails, and no fit that has not converged; fit.diagnose() judges means."
)


@dataclass(frozen=True, repr=False)
class LinearResponse(Readable):
    """Covariances of functions of the latents by linear response, G elements in all; ``print`` it, or see :meth:`summary`.

    Attributes:
        names: of the elements, as ``theta[0]``, in the order of `covariance`.
        mean: name of a function or site -> its mean under the guide, in its own shape, which linear response leaves as it is.
        sd: likewise, the square roots of the covariance's diagonal.
        mean_field_sd: likewise, the guide's own sds.
        covariance: ``(G, G)``, the mean of those of two sets of draws; NaN where the Hessian is not positive definite.
        noise: likewise as `sd`, half the difference of the sds by two sets of draws, a rough standard error of `sd`.
        share: likewise, of the variance under the guide, how much linear response would see if the guide were the posterior: that
            of the part that is linear in the guide's sufficient statistics (z and z**2 of normals, logarithms of Gamma and
            Dirichlet). NaN where it is not known, or the guide is a point.
        newton_shift: likewise, how far a Newton step on the ELBO would move the mean, in sds; far from zero the fit has not converged.
        newton_noise: standard error of these, root mean square over all elements.
        residual: the largest ``|b - H x| / |b|`` of all systems, computed anew at the end.
        iterations: the most products with the Hessian that a system took.
        solved: whether all systems came to the tolerance that was asked for, or within ten times of it.
        positive_definite: False where a direction of negative curvature was met: no covariances can be had. True says that none
            was met by the systems and a random one, not that there is none.
        curvature: the smallest curvature met, as a share of the usual one; negative where not positive definite.
        direction: the parameter that this direction moves most.
        num_parameters: P, of the guide.
        num_particles: draws in each of the two sets.
        products: how products with the Hessian were made, "second derivatives" or "differences of gradients".
    """

    names: tuple[str, ...]
    mean: dict[str, Tensor]
    sd: dict[str, Tensor]
    mean_field_sd: dict[str, Tensor]
    covariance: Tensor
    noise: dict[str, Tensor]
    share: dict[str, Tensor]
    newton_shift: dict[str, Tensor]
    newton_noise: float
    residual: float
    iterations: int
    solved: bool
    positive_definite: bool
    curvature: float
    direction: str
    num_parameters: int
    num_particles: int
    products: str

    @property
    def correlation(self) -> Tensor:
        """``(G, G)``; NaN where an element does not vary."""
        sd = self.covariance.diagonal().sqrt()
        return self.covariance / torch.outer(sd, sd)

    @property
    def missed(self) -> list[str]:
        """Elements of whose variance under the guide linear response sees less than 85%, so that their sd is too small."""
        return [self.names[i] for i in (_flat(self.share) < LEAST_SHARE).nonzero()[:, 0].tolist()]

    @property
    def undetermined(self) -> list[str]:
        """Elements that the ELBO does not determine, as those that a mask leaves out: it is flat where they move, and they have no sd."""
        return (
            [self.names[i] for i in _flat(self.sd).isnan().nonzero()[:, 0].tolist()] if self.positive_definite else []
        )

    @property
    def largest_shift(self) -> float:
        """The largest of the Newton shifts, in sds."""
        shift = _flat(self.newton_shift).abs().nan_to_num()
        return float(shift.max()) if len(shift) else 0.0

    @property
    def relative_noise(self) -> float:
        """Root mean square of noise / sd over the elements that vary."""
        sd, noise = _flat(self.sd), _flat(self.noise)
        varies = sd > 0
        return float((noise[varies] / sd[varies]).square().mean().sqrt()) if bool(varies.any()) else 0.0

    def summary(self) -> pd.DataFrame:
        """One row an element: mean, sd, mean-field sd, noise of the sd, share and Newton shift."""
        columns = {
            "mean": self.mean,
            "sd": self.sd,
            "mean-field sd": self.mean_field_sd,
            "noise": self.noise,
            "share": self.share,
            "newton shift": self.newton_shift,
        }
        figures = {name: _flat(values).tolist() for name, values in columns.items()}
        table = pd.DataFrame(figures, index=list(self.names))
        table.columns.name = "linear response"
        table.attrs["scope"] = _SCOPE
        return table

    def __str__(self) -> str:
        lines = [f"Linear-response covariances of {len(self.names)} number(s), {self.num_parameters} parameters"]
        lines += [self.summary().to_string(float_format=lambda value: f"{value:.4g}"), "", *self.checks(), _SCOPE]
        return "\n".join(lines)

    def checks(self) -> list[str]:
        """What was checked, a sentence each."""
        if not self.positive_definite:
            return [
                f"The Hessian of the negative ELBO is not positive definite: curvature {self.curvature:.2g} of the usual one, in a "
                f"direction of {self.direction!r}. The fit is not at an optimum, and there are no covariances; train further."
            ]
        solved = "solved" if self.solved else "NOT solved"
        return [
            f"Systems {solved}: residual {self.residual:.1e} after {self.iterations} products with the Hessian ({self.products}); "
            "no negative curvature met.",
            f"Two sets of {self.num_particles} draws: sds differ by {2 * self.relative_noise:.1%} (root mean square).",
            f"A Newton step would move means by {self.largest_shift:.2g} sds at most (noise {self.newton_noise:.2g}).",
            *(
                [f"Not determined by the ELBO, hence without an sd: {listed(self.undetermined)}."]
                if self.undetermined
                else []
            ),
            *([f"Too small, since they bend over the posterior: sds of {listed(self.missed)}."] if self.missed else []),
        ]


def _flat(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values.values()]) if values else torch.zeros(0)
