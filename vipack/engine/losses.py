"""Functions in the place of an ELBO, as ``pyro.infer.SVI`` takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["FunctionLoss"]


class FunctionLoss:
    """A user's loss, asked as an ELBO is asked.

    Args:
        loss: ``(model, guide, *args, **kwargs) -> loss``.
        loss_and_grads: likewise; it leaves gradients in the parameters.
    """

    def __init__(self, loss: Callable[..., Any], loss_and_grads: Callable[..., Any]) -> None:
        self.loss = loss
        self.loss_and_grads = loss_and_grads

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """What runs in a step, for those who look at what it reads."""
        return self.loss, self.loss_and_grads
