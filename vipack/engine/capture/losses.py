"""Functions instead of an ELBO, as ``pyro.infer.SVI`` takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import ELBO

__all__ = ["FunctionLoss", "functions_of", "objective_of"]


class FunctionLoss:
    """A user's loss with the methods of an ELBO.

    Args:
        loss: ``(model, guide, *args, **kwargs) -> loss``.
        loss_and_grads: likewise; it leaves gradients in the parameters.
    """

    def __init__(self, loss: Callable[..., Any], loss_and_grads: Callable[..., Any]) -> None:
        self.loss = loss
        self.loss_and_grads = loss_and_grads


def objective_of(loss: Any, loss_and_grads: Any) -> Any:
    """The ELBO whose method ``loss_and_grads`` is, or an object with the two functions as its methods."""
    owner = getattr(loss_and_grads, "__self__", None)
    if isinstance(owner, ELBO) and loss_and_grads == owner.loss_and_grads:
        return owner
    return FunctionLoss(loss, loss_and_grads)


def functions_of(objective: Any) -> tuple[Any, ...]:
    """What runs in a step of it, so that guards can read what that names."""
    return (objective.loss, objective.loss_and_grads) if isinstance(objective, FunctionLoss) else (objective,)
