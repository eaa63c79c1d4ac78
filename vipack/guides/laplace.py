"""The Laplace approximation as a guide to go on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from vipack.errors import GuideError
from vipack.guides.whitened import Whitened
from vipack.hints import checked
from vipack.program.evaluation.logjoint import LogJoint
from vipack.program.program import Program
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments

__all__ = ["from_laplace"]

_RANGE = 1e-10  # below this ratio to the largest, a curvature is rounding


@checked
def from_laplace(
    model: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    base: Callable[..., Any] = AutoMultivariateNormal,
    num_starts: int = 4,
    num_steps: int = 500,
    seed: int = 0,
) -> Whitened:
    """A guide in coordinates whitened by the curvature at the highest mode that was found; it starts at that Gaussian.

    The mode is the highest that L-BFGS finds from `num_starts` random points, on the unconstrained space, of
    log p(x, z) with the transforms' Jacobian (MacKay 2003, chapter 27). At a funnel or another posterior whose mode lies
    far from its mass, the Gaussian is a poor start.

    Args:
        args, kwargs: what the model is called with; all rows of the data.
        base: the family in whitened coordinates, as in :class:`Whitened`.
        num_steps: of L-BFGS from each start.

    Raises:
        GuideError: log p(x, z) is finite nowhere, has no maximum, or is flat in a direction, whose site is named.

    Example:
        >>> guide = from_laplace(model, (x, y))
        >>> fit = vi.fit(model, guide, data=(x, y))
    """
    arguments = Arguments(args, dict(kwargs or {}))
    tensors = [array for array in (*args, *arguments.kwargs.values()) if isinstance(array, Tensor)]
    floating = [array for array in tensors if array.is_floating_point()]
    dtype = floating[0].dtype if floating else torch.get_default_dtype()
    device = tensors[0].device if tensors else torch.device("cpu")
    with seeded(seed):
        joint = LogJoint(Program(model, model, dtype=dtype, device=device), arguments)
        maxima = [_climbed(joint, joint.initial(), num_steps) for _ in range(num_starts)]
    best = max((point for point in maxima if point is not None), key=lambda point: point[0], default=None)
    if best is None:
        raise GuideError(
            f"from_laplace: log p(x, z) is not finite at any of {num_starts} random starts; look at the model with "
            "vipack.check, or raise num_starts."
        )
    mode = best[1]
    return Whitened(model, base, loc=mode, scale_tril=_root_of_inverse(joint, _curvature(joint, mode)))


def _climbed(joint: LogJoint, start: Tensor, num_steps: int) -> tuple[float, Tensor] | None:
    """The value and the point of a local maximum."""
    u = start.clone().requires_grad_()
    options: dict[str, Any] = {"max_iter": num_steps, "line_search_fn": "strong_wolfe", "tolerance_change": 1e-12}
    optimizer = torch.optim.LBFGS([u], **options, tolerance_grad=1e-8, history_size=50)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -joint(u)
        if value.requires_grad and bool(torch.isfinite(value)):
            value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        value = float(joint(u))
    return (value, u.detach()) if torch.isfinite(torch.tensor(value)) and bool(torch.isfinite(u).all()) else None


def _curvature(joint: LogJoint, mode: Tensor) -> Tensor:
    """The Hessian of -log p ``(D, D)``."""
    u = mode.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(-joint(u), u, create_graph=True)
    rows = [torch.autograd.grad(slope, u, retain_graph=True)[0] for slope in gradient]
    hessian = torch.stack(rows)
    return 0.5 * (hessian + hessian.mT)


def _root_of_inverse(joint: LogJoint, hessian: Tensor) -> Tensor:
    """Lower triangular L with ``L L^T`` the inverse.

    Raises:
        GuideError: the curvature is not positive in every direction.
    """
    names = [name for name, shape in joint.shapes.items() for _ in range(shape.numel())]
    diagonal = hessian.diagonal()
    flat = ~(diagonal > 0) | ~torch.isfinite(diagonal)
    if bool(flat.any()):
        worst = int(flat.to(torch.uint8).argmax())
        raise _no_maximum(names[worst], float(diagonal[worst]))
    scale = diagonal.rsqrt()  # scales that make curvatures comparable
    values, vectors = torch.linalg.eigh(scale[:, None] * hessian * scale)
    if float(values[0]) <= _RANGE * float(values[-1]):
        raise _no_maximum(names[int(vectors[:, 0].abs().argmax())], float(values[0]))
    covariance = scale[:, None] * ((vectors / values) @ vectors.mT) * scale
    size = covariance.diagonal().sqrt()
    factor: Tensor = size[:, None] * torch.linalg.cholesky(covariance / size[:, None] / size)
    return factor


def _no_maximum(name: str, curvature: float) -> GuideError:
    return GuideError(
        f"from_laplace: at the highest point that was found, log p(x, z) does not bend down in a direction of site {name!r} "
        f"(curvature {curvature:.3g}): the posterior is improper there, or two latents cannot be told apart; give them a "
        "prior, or raise num_steps."
    )
