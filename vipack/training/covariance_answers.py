"""What a fit says of covariances beyond those of its guide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import RenyiELBO, ReweightedWakeSleep, Trace_MMD, TraceTailAdaptive_ELBO, TraceTMC_ELBO
from pyro.infer.autoguide import AutoNormalizingFlow
from torch import Tensor

from vipack.diagnostics.sources import positive
from vipack.entry import entry
from vipack.errors import GuideError, UsageError
from vipack.guides import Amortized, Flow, Mixture
from vipack.objectives import BetaELBO, ImportanceWeighted
from vipack.posterior import LinearResponse
from vipack.posterior.linear_response import linear_response
from vipack.posterior.observations import Observations
from vipack.program.running.randomness import check_seed
from vipack.training.fit_record import FitRecord

__all__ = ["CovarianceAnswers"]

_OTHER_BOUNDS = (RenyiELBO, ReweightedWakeSleep, Trace_MMD, TraceTailAdaptive_ELBO, TraceTMC_ELBO, ImportanceWeighted)


class CovarianceAnswers(FitRecord):
    """The part of a fit that answers for covariances."""

    @entry
    def linear_response(
        self,
        function: Callable[[dict[str, Tensor]], Any] | None = None,
        *,
        num_particles: int = 32,
        seed: int = 0,
        tolerance: float = 1e-4,
        max_iterations: int = 500,
    ) -> LinearResponse:
        """Covariances by linear response, ``Cov(g) = J H^-1 J'``, for a mean-field fit at its optimum, whose own are too small.

        H is the Hessian of the negative ELBO in all unconstrained parameters of the guide, J the gradients of E_q[g]; parameters
        of the model alone keep their values. The system is solved by conjugate gradients, on products of H with vectors, at two
        sets of fixed draws. Data that do not fit in memory are taken in blocks. Exact for a Gaussian posterior and guide.

        Means stay those of the guide, and nothing is said of other modes, skewness or tails. Guides with full covariances have
        nothing to gain.

        Args:
            function: g, called with the latent and deterministic sites of one draw, ``site -> site shape``, gives a tensor, or a
                dict of them, that is differentiable in the latents; all their elements by default, up to 500 of them.
            num_particles: draws in each of the two sets; even.
            tolerance: of the residuals of conjugate gradients, relative.
            max_iterations: of conjugate gradients.

        Returns:
            mean, sd, mean-field sd, covariance and correlation ``(G, G)`` of the G elements, and what was checked.

        Raises:
            UsageError: the fit minimised something other than the negative ELBO, there are too many elements to ask for each, or
                `function` has no gradient.
            GuideError: the guide has weights of networks, or draws that are not reparametrized; the site is named.

        Warns:
            TrustWarning: the fit is not at an optimum, a system is not solved, or draws are too few.

        Source: Giordano, Broderick and Jordan (2018), JMLR 19(51).
        """
        if positive("num_particles", num_particles, 2) % 2:
            raise UsageError(
                f"num_particles: draws come in mirrored pairs, so expected an even number, found {num_particles}."
            )
        positive("max_iterations", max_iterations)
        check_seed(seed)
        if isinstance(tolerance, bool) or not isinstance(tolerance, float | int) or not 0 < tolerance < 1:
            raise UsageError(f"tolerance: expected a number between 0 and 1, found {tolerance!r}.")
        if function is not None and not callable(function):
            raise UsageError(
                f"function: expected a function of a draw, such as lambda z: z['theta'], found {type(function).__name__}."
            )
        loss = self._trainer.prepared.loss
        if isinstance(loss, _OTHER_BOUNDS) or (
            isinstance(loss, BetaELBO) and not (loss.beta == 1 and loss.free_bits == 0)
        ):
            raise UsageError(
                f"linear_response: the fit was trained by {type(loss).__name__}, and linear response holds at the optimum of the ELBO; "
                "fit with Trace_ELBO()."
            )
        guide = self._trainer.program.guide
        family = getattr(guide, "base", guide)  # of a whitened one
        if isinstance(family, AutoNormalizingFlow | Flow | Amortized):
            raise GuideError(
                f"linear_response: the guide is a {type(guide).__name__} with weights of a network, in which the negative ELBO has no "
                "single minimum. A flow has covariances of its own, as fit.summary() shows; for linear response fit AutoNormal."
            )
        if isinstance(family, Mixture):
            raise GuideError(
                f"linear_response: the guide is a {type(guide).__name__} of components, and which one draws has no gradient to their "
                "weights; fit AutoNormal."
            )
        rows = self._trainer.rows
        observations = Observations(rows.num_rows, rows.rows, rows.full, fitted=True) if rows.num_rows else None
        return linear_response(
            self.posterior,
            function,
            num_particles=num_particles,
            seed=seed,
            tolerance=tolerance,
            max_iterations=max_iterations,
            observations=observations,
        )
