"""The eager tier: ``pyro.infer.SVI`` itself, one step at a time. Faster tiers are compared with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro.infer import SVI
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from vipack.engine.capture.capture import Layout
from vipack.engine.graph.all_reduce import Reducer
from vipack.engine.optimizers.fit_optimizer import FitOptimizer
from vipack.errors import NonFiniteError, ProcessError, VipackError
from vipack.program import Arguments, Program, TorchState
from vipack.program.densities.values import count_non_finite, non_finite_densities, outside_support, unvalidated
from vipack.program.running.runs import explanation, named_arguments, without_trace_shapes

__all__ = ["EagerStep", "explain_missing"]

_OVERFLOW = (
    "no site's log_prob is itself non-finite, so the gradient overflowed on the way back; lower the learning rate, clip "
    "gradients, or standardise the data"
)
_MISSING = (
    "The arguments hold NaN or infinite values. Pyro refuses them even under a mask: fill those that a mask leaves out with a "
    "value in the support of their site, as in torch.where(mask, y, 0.0). vipack.fit does so by itself."
)


class EagerStep:
    """One gradient step on one batch, exactly as ``pyro.infer.SVI.step`` takes it.

    Draws come from the ambient generators, in the order in which the guide and then the model make them.

    Args:
        reducer: adds up gradients over the processes of a run.
    """

    def __init__(self, program: Program, loss: Any, optimizer: FitOptimizer, reducer: Reducer | None = None) -> None:
        self._reducer = reducer
        self._program = program
        self._loss = loss
        self._optimizer = optimizer
        self._generator_before = TorchState.current()
        self._svi = SVI(program.model, program.guide, optimizer, loss=loss.loss, loss_and_grads=self._loss_and_grads)
        optimizer.__dict__.setdefault("pt_optim_args", {})

    def __call__(self, arguments: Arguments) -> float:
        """The loss (nats, minus the ELBO) before the step.

        Raises:
            NonFiniteError: the loss or a gradient is NaN or infinite; nothing was changed, and the site is named.
            SupportError: the batch holds a value outside the support of its site.
            ModelError: the model or guide raised.
        """
        self._generator_before = TorchState.current()
        with self._program.bound(arguments):
            try:
                loss = self._svi.step(*arguments.args, **arguments.kwargs)
            except VipackError as error:
                raise without_trace_shapes(error) from error.__cause__
            except Exception as error:
                raise self._explained(error, arguments) from error
        return float(sum(loss)) if isinstance(loss, tuple) else float(loss)

    def _loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        if self._reducer is not None and not self._reducer.is_alone:
            return self._reduced(self._reducer, model, guide, args, kwargs)
        return self._own_loss_and_grads(model, guide, *args, **kwargs)

    def _own_loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        loss = self._loss.loss_and_grads(model, guide, *args, **kwargs)
        total = float(sum(loss)) if isinstance(loss, tuple) else float(loss)
        culprit = f"the loss is {total}" if not math.isfinite(total) else self._non_finite_gradient()
        if culprit is not None:
            self._drop_gradients()
            cause = self._find_cause(Arguments(args, kwargs))
            if cause is None or isinstance(cause, NonFiniteError):
                raise NonFiniteError(f"{culprit}: {cause or _OVERFLOW}")
            raise cause
        self._optimizer.loss = total
        return loss

    def _reduced(self, reducer: Reducer, model: Any, guide: Any, args: Any, kwargs: Any) -> float:
        """The loss over all processes of the run, with the gradients to go with it.

        Where one of them cannot compute its own, all of them raise.
        """
        wrong: Exception | None = None
        loss = math.nan
        try:
            value = self._own_loss_and_grads(model, guide, *args, **kwargs)
            loss = float(sum(value)) if isinstance(value, tuple) else float(value)
        except Exception as error:
            wrong = error
        unconstrained = self._program.parameters.unconstrained
        every = {name: unconstrained[name] for name in Layout.of(self._program.parameters).names}
        own = {name: value for name, value in every.items() if name not in reducer.of_rows}
        gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in own.values()]
        # A parameter without a gradient is left as it is, where no process has one.
        with_gradient = torch.tensor([float(v.grad is not None) for v in own.values()], dtype=torch.float64)
        like = torch.tensor(loss, dtype=self._program.parameters.dtype)
        flat = reducer([*gradients, with_gradient.to(like.dtype)], like).sum(0)
        total, weight = float(flat[-1]), reducer.own_weight()
        if not math.isfinite(total):
            self._drop_gradients()
            raise self._of_all(reducer, wrong, total)
        *pieces, counts = flat[:-1].split([*(value.numel() for value in own.values()), len(own)])
        for value, piece, count in zip(own.values(), pieces, counts.tolist(), strict=True):
            value.grad = piece.view(value.shape).clone() if count > 0 else None
        for name in every.keys() & reducer.of_rows:
            gradient = every[name].grad
            if gradient is not None:
                gradient.mul_(weight)
        self._optimizer.loss = total
        culprit = self._non_finite_gradient()
        if culprit is not None:
            self._drop_gradients()
            raise NonFiniteError(f"{culprit}: {_OVERFLOW}")
        return total

    def _of_all(self, reducer: Reducer, wrong: Exception | None, total: float) -> Exception:
        """What every process raises where one of them has no finite loss."""
        said = reducer.exchange.gather(None if wrong is None else f"{type(wrong).__name__}: {wrong}")
        others = [f"process {rank} raised {text}" for rank, text in enumerate(said) if text is not None]
        if wrong is not None:
            return wrong
        text = "; ".join(map(str, others)) or f"the loss over all processes is {total}"
        kinds = {str(each).partition(":")[0] for each in said if each is not None}
        return NonFiniteError(text) if kinds <= {"NonFiniteError"} else ProcessError(text)

    def _non_finite_gradient(self) -> str | None:
        for name, value in self._program.parameters.unconstrained.items():
            # The sum of finite numbers may overflow, so it only says where to look.
            if value.grad is None or math.isfinite(float(value.grad.sum())):
                continue
            if not bool(torch.isfinite(value.grad).all()):
                return f"the gradient of parameter {name!r} is not finite"
        return None

    def _drop_gradients(self) -> None:
        for value in self._program.parameters.tensors():
            value.grad = None

    def _explained(self, error: Exception, arguments: Arguments) -> VipackError:
        """What made a step raise: numbers that went wrong, data outside a support, or the user's own code."""
        self._drop_gradients()
        own: VipackError = explanation("model or guide", error, arguments, "in a step")
        try:
            cause = self._find_cause(arguments)
        except VipackError as again:  # it raises without validation too, and now says after which site
            own, cause = again, None
        singular = isinstance(error, LinAlgError) or isinstance(own.__cause__, LinAlgError)
        if cause is None and (singular or "to satisfy the constraint" in str(error)):
            return NonFiniteError(str(own).rstrip("."))
        return cause or own

    def _find_cause(self, arguments: Arguments) -> VipackError | None:
        """Run the step's draw again and name the first site or parameter whose numbers are wrong."""
        after = TorchState.current()
        self._generator_before.install()
        try:
            with torch.no_grad(), unvalidated():
                for _ in range(max(1, int(getattr(self._loss, "num_particles", 1)))):
                    cause = self._wrong_numbers(arguments)
                    if cause is not None:
                        return cause
        finally:
            after.install()
        return None

    def _wrong_numbers(self, arguments: Arguments) -> VipackError | None:
        for name, value in self._program.parameters.unconstrained.items():
            if not bool(torch.isfinite(value).all()):
                return NonFiniteError(f"parameter {name!r} is NaN or infinite")
        guide_trace, model_trace = self._program.traces(arguments)
        arrays = named_arguments(self._program.model, arguments)
        for error in outside_support(model_trace, arrays):
            return error
        # Data may hold NaN where the model masks it, so here it is a hint and no more.
        counts = {name: count_non_finite(array) for name, array in arrays.items()}
        hints = [
            f"{name!r} of this batch has {count} NaN or infinite value(s)" for name, count in counts.items() if count
        ]
        for error in non_finite_densities(model_trace, guide_trace, {}, arguments, cure="look at its parameters"):
            return NonFiniteError("; ".join([str(error).rstrip("."), *hints]))
        return None


def explain_missing(error: ValueError, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Add to what Pyro raises that the arguments hold NaN or infinite values, where they do."""
    if "within the support" in str(error) and any(count_non_finite(value) for value in (*args, *kwargs.values())):
        error.add_note(_MISSING)
