"""Linear response: how posterior means move where the log density is tilted, which is what covariances are."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

from vipack.display import listed
from vipack.errors import TrustWarning, warn
from vipack.posterior.blocked_posterior import all_arguments
from vipack.posterior.linear_response.base_draws import check_drawable
from vipack.posterior.linear_response.conjugate_gradients import solve
from vipack.posterior.linear_response.covariances import LinearResponse
from vipack.posterior.linear_response.fixed_draws import FixedDraws, Parameters, draws_are_sites, negative_log_q
from vipack.posterior.linear_response.functions import Function, Functions
from vipack.posterior.linear_response.hessian import Hessian
from vipack.posterior.observations import Observations
from vipack.posterior.posterior import Posterior
from vipack.program import seeded
from vipack.program.evaluation.evaluation import Evaluation

__all__ = ["linear_response"]

_MOMENT_DRAWS = 2_000  # for means and sds of the guide
_NUMBERS_SOLVED_AT_ONCE = 20_000_000  # of the vectors of all systems
_NOISE_WARNED = 0.1  # of sds, relative
_SHIFT_WARNED = 0.25  # of means, in sds
_RANDOM_CURVATURE = 1e-3  # met by a random system, below which it counts, as a share of the usual


def linear_response(
    posterior: Posterior,
    function: Function | None = None,
    *,
    num_particles: int = 32,
    seed: int = 0,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
    observations: Observations | None = None,
) -> LinearResponse:
    """``Cov(g) = J H^-1 J'``, of H the Hessian of the negative ELBO in the guide's parameters, J the gradients of E_q[g].

    Args:
        function: g, of the latent and deterministic sites of one draw by name; None for each of their elements.
        num_particles: draws of the guide in each of two sets; even.
        tolerance: of the residuals of conjugate gradients.
        observations: the rows of the data, where the program may be called on some of them.

    Raises:
        GuideError: the guide has weights of networks, or draws that are not reparametrized.
        UsageError: there are too many elements to ask for each, or the function has no gradient.

    Source: Giordano, Broderick and Jordan (2018), JMLR 19(51).
    """
    # Anew, since parameters may have moved since the posterior was first looked at.
    with posterior.running(), seeded(0):
        evaluation = Evaluation(posterior.program, all_arguments(posterior, "linear response"))
    parameters = Parameters(posterior.program, evaluation)
    with posterior.running(), seeded(1):
        check_drawable(evaluation.guide_trace, evaluation.guide(posterior.program.guide))
    functions = Functions(function, evaluation, parameters)
    sets = []
    for own in (2 * seed, 2 * seed + 1):
        draws = FixedDraws(evaluation, parameters, num_particles, own, observations)
        gradients = functions.gradients(num_particles, own)
        sets.append(_answer_of(draws, gradients, own, tolerance, max_iterations))
    moments = _moments(evaluation, functions, parameters, num_particles, 2 * seed + 2)
    result = _combined(functions, parameters, moments, sets, num_particles, tolerance)
    _warn(result, num_particles)
    return result


@dataclass(frozen=True)
class _Answer:
    """What one set of draws gives."""

    covariance: Tensor  # (G, G)
    shift: Tensor  # (G,), of means by a Newton step
    residuals: Tensor  # (G,)
    flat: Tensor  # (G,)
    iterations: int
    curvature: Tensor  # (G + 1,), of these systems and a random one
    direction: Tensor  # (P,), of the smallest
    rounding: float
    products: str

    @property
    def positive_definite(self) -> bool:
        # A random system looks into directions too that the functions do not depend on, such as the rotations of a
        # full-rank guide, where the noise of fixed draws bends what is flat.
        own, random = self.curvature[:-1], float(self.curvature[-1])
        return bool((own >= -self.rounding).all()) and random >= -max(self.rounding, _RANDOM_CURVATURE)


def _answer_of(draws: FixedDraws, gradients: Tensor, seed: int, tolerance: float, max_iterations: int) -> _Answer:
    generator = torch.Generator().manual_seed(seed)
    hessian = Hessian(draws, len(gradients))
    norms = hessian.row_norms(generator)
    size = len(norms)
    _, slope = draws.gradient()
    # A random system too: conjugate gradients from it look into every direction, that of the lowest curvature among the first.
    probe = norms.sqrt() * torch.randn(1, size, generator=generator, dtype=torch.float64, device="cpu")
    solutions = []
    for some in torch.cat([gradients, probe]).split(max(1, _NUMBERS_SOLVED_AT_ONCE // size)):
        solutions.append(
            solve(hessian, some, norms, tolerance=tolerance, max_iterations=max_iterations, rounding=hessian.rounding)
        )
    x = torch.cat([solution.x for solution in solutions])[:-1]
    covariance = gradients @ x.T
    return _Answer(
        covariance=(covariance + covariance.T) / 2,
        shift=-x @ slope,
        residuals=torch.cat([solution.residuals for solution in solutions])[:-1],
        flat=torch.cat([solution.flat for solution in solutions])[:-1],
        iterations=max(int(solution.iterations.max()) for solution in solutions),
        curvature=torch.cat([solution.curvature for solution in solutions]),
        direction=min(solutions, key=lambda solution: float(solution.curvature.min())).direction,
        rounding=hessian.rounding,
        products=hessian.name,
    )


def _moments(
    evaluation: Evaluation, functions: Functions, parameters: Parameters, num_particles: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Means and sds under the guide, and the shares of their squares that its Fisher information F explains: J F^-1 J'."""
    values = functions.values(_MOMENT_DRAWS, seed).cpu()
    mean, sd = values.mean(0), values.std(0, correction=0)
    share = torch.full_like(sd, torch.nan)
    varies = sd > 1e-6 * mean.abs()
    if bool(varies.any()):
        with contextlib.suppress(RuntimeError):  # log q has no second derivative
            share[varies] = (
                _family_variances(evaluation, functions, parameters, num_particles, seed)[varies] / sd[varies].square()
            )
    return mean, sd, share.clamp(max=1.0)


def _family_variances(
    evaluation: Evaluation, functions: Functions, parameters: Parameters, num_particles: int, seed: int
) -> Tensor:
    """``(G,)``: the variances that linear response would give if the guide were the posterior; NaN where they are not known."""
    with parameters.running(evaluation.arguments):
        if not draws_are_sites(evaluation):
            return torch.full((len(functions.names),), torch.nan, dtype=torch.float64)
    draws = FixedDraws(evaluation, parameters, num_particles, seed, None, loss=negative_log_q)
    gradients = functions.gradients(num_particles, seed)
    fisher = Hessian(draws, len(gradients), differences=False)  # its draws stay where they are as parameters move
    norms = fisher.row_norms(torch.Generator().manual_seed(seed))
    solution = solve(fisher, gradients, norms, tolerance=1e-2, max_iterations=100, rounding=fisher.rounding)
    return (gradients * solution.x).sum(1)


def _combined(
    functions: Functions,
    parameters: Parameters,
    moments: tuple[Tensor, Tensor, Tensor],
    sets: list[_Answer],
    num_particles: int,
    tolerance: float,
) -> LinearResponse:
    mean, own_sd, share = moments
    definite = all(one.positive_definite for one in sets)
    lowest = min(sets, key=lambda one: float(one.curvature.min()))
    flat = torch.stack([one.flat for one in sets]).any(0)
    unknown = flat if definite else torch.ones_like(flat)
    residual = max(float(one.residuals[~flat].max()) if bool((~flat).any()) else 0.0 for one in sets)
    covariance = torch.stack([one.covariance for one in sets]).mean(0)
    covariance[unknown], covariance[:, unknown] = torch.nan, torch.nan
    sd = covariance.diagonal().sqrt()
    one, two = (each.covariance.diagonal().sqrt() for each in sets)
    shifts = torch.stack([each.shift for each in sets]) / torch.where(sd == 0, torch.inf, sd)
    return LinearResponse(
        names=tuple(functions.names),
        mean=functions.by_name(mean),
        sd=functions.by_name(sd),
        mean_field_sd=functions.by_name(own_sd),
        covariance=covariance,
        noise=functions.by_name(torch.where(sd.isnan(), sd, (one - two).abs() / 2)),
        share=functions.by_name(torch.where(flat, torch.nan, share)),
        newton_shift=functions.by_name(shifts.mean(0)),
        newton_noise=float(((shifts[0] - shifts[1]) / 2).square().nanmean().sqrt()),
        residual=residual,
        iterations=max(each.iterations for each in sets),
        solved=residual <= 10 * tolerance,
        positive_definite=definite,
        curvature=float(lowest.curvature.min()),
        direction=parameters.name_at(int(lowest.direction.abs().argmax())),
        num_parameters=len(parameters),
        num_particles=num_particles,
        products=sets[0].products,
    )


def _warn(result: LinearResponse, num_particles: int) -> None:
    if not result.positive_definite:
        warn(
            TrustWarning(
                f"linear_response: the negative ELBO bends down (curvature {result.curvature:.2g} of the usual one) in a direction "
                f"of parameter {result.direction!r}, so the fit is not at an optimum and has no linear response; train it further, "
                f"as by fit.resume(), or use more draws than num_particles={num_particles} if it has converged."
            )
        )
        return
    if not result.solved:
        warn(
            TrustWarning(
                f"linear_response: conjugate gradients left a residual of {result.residual:.1g} after {result.iterations} iterations, so "
                "that sds may be too small; raise max_iterations, or give a function of fewer latents."
            )
        )
    if result.relative_noise > _NOISE_WARNED:
        warn(
            TrustWarning(
                f"linear_response: sds by two sets of draws differ by {2 * result.relative_noise:.0%}; use more than "
                f"num_particles={num_particles}."
            )
        )
    if result.missed:
        warn(
            TrustWarning(
                f"linear_response: the sd of {listed(result.missed)} is too small. Linear response sees the part of a function that is "
                "linear in the guide's sufficient statistics, and this one bends strongly over the posterior; ask for one that bends "
                "less, such as a logarithm."
            )
        )
    most = result.largest_shift
    if most > max(_SHIFT_WARNED, 4 * result.newton_noise):
        warn(
            TrustWarning(
                f"linear_response: a Newton step on the ELBO would move a mean by {most:.2f} sds, so the fit is not at its optimum, "
                "where alone linear response holds; train it further, as by fit.resume()."
            )
        )
