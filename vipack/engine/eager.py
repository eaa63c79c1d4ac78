"""The eager tier: ``pyro.infer.SVI`` itself, one step at a time. It is the truth that faster tiers are held to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.infer import SVI
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from vipack.engine.optimizers import FitOptimizer
from vipack.errors import NonFiniteError
from vipack.program import Arguments, Program

__all__ = ["EagerStep"]

Loss = Callable[..., Any]


class EagerStep:
    """One gradient step on one batch, exactly as ``pyro.infer.SVI.step`` takes it.

    Draws come from the ambient generators, in the order in which the guide and then the model make them.
    """

    def __init__(self, program: Program, loss: Any, optimizer: FitOptimizer) -> None:
        self._program = program
        self._loss = loss
        self._optimizer = optimizer
        self._generator_before = torch.get_rng_state()
        self._svi = SVI(program.model, program.guide, optimizer, loss=loss.loss, loss_and_grads=self._loss_and_grads)
        optimizer.__dict__.setdefault("pt_optim_args", {})

    def __call__(self, arguments: Arguments) -> float:
        """The loss (nats, minus the ELBO) before the step.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite; nothing was changed, and the site is named.
        """
        self._generator_before = torch.get_rng_state()
        with self._program.bound(arguments):
            loss = self._svi.step(*arguments.args, **arguments.kwargs)
        return float(sum(loss)) if isinstance(loss, tuple) else float(loss)

    def _loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        loss = self._loss.loss_and_grads(model, guide, *args, **kwargs)
        total = float(sum(loss)) if isinstance(loss, tuple) else float(loss)
        culprit = f"the loss is {total}" if not math.isfinite(total) else self._non_finite_gradient()
        if culprit is not None:
            for value in self._program.parameters.tensors():
                value.grad = None
            raise NonFiniteError(f"{culprit}: {self._find_site(args, kwargs)}")
        self._optimizer.loss = total
        return loss

    def _non_finite_gradient(self) -> str | None:
        for name, value in self._program.parameters.unconstrained.items():
            # The sum of finite numbers may overflow, so it only says where to look.
            if value.grad is None or math.isfinite(float(value.grad.sum())):
                continue
            if not bool(torch.isfinite(value.grad).all()):
                return f"the gradient of parameter {name!r} is not finite"
        return None

    def _find_site(self, args: Any, kwargs: Any) -> str:
        """Run the step's draw again and name the first site or parameter that is not finite."""
        after = torch.get_rng_state()
        torch.set_rng_state(self._generator_before)
        try:
            with torch.no_grad(), pyro.validation_enabled(False):
                for _ in range(max(1, int(getattr(self._loss, "num_particles", 1)))):
                    found = self._non_finite_site(Arguments(args, kwargs))
                    if found:
                        return found
        finally:
            torch.set_rng_state(after)
        return (
            "no site's log_prob is itself non-finite, so the gradient overflowed on the way back; lower the learning rate, "
            "clip gradients, or standardise the data"
        )

    def _non_finite_site(self, arguments: Arguments) -> str | None:
        for name, value in self._program.parameters.unconstrained.items():
            if not bool(torch.isfinite(value).all()):
                return f"parameter {name!r} is NaN or infinite"
        for where, trace in zip(("guide", "model"), self._program.traces(arguments), strict=True):
            for name, site in trace.nodes.items():
                if site["type"] != "sample" or site_is_subsample(site):
                    continue
                if isinstance(site["value"], Tensor) and not bool(torch.isfinite(site["value"].float()).all()):
                    return f"{where} site {name!r} has a non-finite value"
                log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
                if not bool(torch.isfinite(log_prob).all()):
                    return (
                        f"{where} site {name!r} has log_prob {float(log_prob[~torch.isfinite(log_prob)].flatten()[0])}"
                    )
        return None
