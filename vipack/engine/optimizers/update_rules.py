"""Update rules of optimizers as tensor arithmetic, so that they can stand in the captured graph.

Each rule repeats its optimizer's own formula, with what changes from step to step (learning rate, bias corrections) as
coefficients, so that one graph serves every step and every schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

__all__ = ["Rule", "rule_of"]

_FORGOTTEN = 40.0  # exp(-40) is less than half the distance of 1 to the next number below

Coefficients = Sequence[Tensor]
Update = Callable[[Tensor, Tensor, Sequence[Tensor], Coefficients], tuple[Tensor, list[Tensor]]]


@dataclass(frozen=True)
class Rule:
    """One optimizer with one set of options.

    Attributes:
        key: equal for rules that do the same.
        state: names of the state tensors, each of its parameter's shape, as the optimizer itself names them.
        first: their values before the first step.
        num_coefficients: of a step.
        coefficients: ``(steps done, learning rates (K,)) -> (K, num_coefficients)``, float64.
        update: ``(parameter, gradient, state, coefficients) -> (new parameter, new state)``.
    """

    key: tuple[Any, ...]
    state: tuple[str, ...]
    first: tuple[float, ...]
    num_coefficients: int
    coefficients: Callable[[int, np.ndarray], np.ndarray]
    update: Update


def rule_of(optimizer: Optimizer, group: dict[str, Any]) -> Rule | None:
    """The rule of a parameter group, or None where the optimizer is not one of those known here.

    Known: Adam, AdamW, pyro's ClippedAdam, SGD with momentum, RMSprop, Adagrad.
    """
    if group.get("maximize") or group.get("differentiable") or not isinstance(group.get("lr"), float | int):
        return None
    maker = _MAKERS.get(type(optimizer))
    return maker(dict(group)) if maker is not None else None


def _adam(group: dict[str, Any], *, decoupled: bool = False) -> Rule | None:
    (beta1, beta2), eps, decay = group["betas"], group["eps"], group["weight_decay"]
    amsgrad = bool(group["amsgrad"])
    decoupled = decoupled or bool(group.get("decoupled_weight_decay"))
    if isinstance(beta1, Tensor) or isinstance(beta2, Tensor):
        return None

    shrinks = bool(decay and decoupled)

    def coefficients(done: int, rates: np.ndarray) -> np.ndarray:
        columns = np.empty((len(rates), 2 + shrinks))
        np.divide(rates, _debiased(beta1, done, len(rates)), out=columns[:, 0])
        np.divide(1.0, np.sqrt(_debiased(beta2, done, len(rates))), out=columns[:, 1])
        if shrinks:
            columns[:, 2] = 1 - rates * decay
        return columns

    def update(p: Tensor, g: Tensor, state: Sequence[Tensor], c: Coefficients) -> tuple[Tensor, list[Tensor]]:
        step_size, correction = c[:2]
        if shrinks:
            p = p * c[2]
        elif decay:
            g = g + decay * p
        mean = state[0] + (g - state[0]) * (1 - beta1)
        square = state[1] * beta2 + (1 - beta2) * (g * g)
        largest = torch.maximum(state[2], square) if amsgrad else square
        new = p - step_size * (mean / (largest.sqrt() * correction + eps))  # a product costs less than a quotient
        return new, [mean, square, *([largest] if amsgrad else [])]

    names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if amsgrad else ()))
    key = ("adam", beta1, beta2, eps, decay, amsgrad, decoupled)
    return Rule(key, names, (0.0,) * len(names), 2 + shrinks, coefficients, update)


def _debiased(beta: float, done: int, number: int) -> np.ndarray:
    """``1 - beta**t`` for the next steps t; powers too small to change a 1 are left out."""
    corrections = np.ones(number)
    if beta > 0:
        last = math.inf if beta >= 1 else math.ceil(_FORGOTTEN / -math.log(beta))
        needed = int(min(number, max(0, last - done)))
        corrections[:needed] -= beta ** (done + 1.0 + np.arange(needed))
    return corrections


def _clipped_adam(group: dict[str, Any]) -> Rule:
    (beta1, beta2), eps, decay = group["betas"], group["eps"], group["weight_decay"]
    bound, fall = group["clip_norm"], group["lrd"]
    centered = bool(group.get("centered_variance"))  # which Pyro has from 1.9.2 on

    def coefficients(done: int, rates: np.ndarray) -> np.ndarray:
        number = len(rates)
        return np.asarray(rates * np.sqrt(_debiased(beta2, done, number)) / _debiased(beta1, done, number))[:, None]

    def update(p: Tensor, g: Tensor, state: Sequence[Tensor], c: Coefficients) -> tuple[Tensor, list[Tensor]]:
        g = g.clamp(-bound, bound)
        if decay:
            g = g + decay * p
        mean = state[0] * beta1 + (1 - beta1) * g
        spread = g - mean if centered else g
        square = state[1] * beta2 + (1 - beta2) * (spread * spread)
        return p - c[0] * (mean / (square.sqrt() + eps)), [mean, square]

    key = ("clipped adam", beta1, beta2, eps, decay, bound, fall, centered)
    return Rule(key, ("exp_avg", "exp_avg_sq"), (0.0, 0.0), 1, coefficients, update)


def _sgd(group: dict[str, Any]) -> Rule:
    momentum, dampening = group["momentum"], group["dampening"]
    decay, nesterov = group["weight_decay"], bool(group["nesterov"])

    def coefficients(done: int, rates: np.ndarray) -> np.ndarray:
        first = done + np.arange(len(rates)) == 0  # the first buffer is the gradient itself, undamped
        return np.stack([rates, np.where(first, 0.0, momentum), np.where(first, 1.0, 1 - dampening)], axis=1)

    def update(p: Tensor, g: Tensor, state: Sequence[Tensor], c: Coefficients) -> tuple[Tensor, list[Tensor]]:
        if decay:
            g = g + decay * p
        if not momentum:
            return p - c[0] * g, []
        buffer = c[1] * state[0] + c[2] * g
        return p - c[0] * (g + momentum * buffer if nesterov else buffer), [buffer]

    names = ("momentum_buffer",) if momentum else ()
    return Rule(("sgd", momentum, dampening, decay, nesterov), names, (0.0,) * len(names), 3, coefficients, update)


def _rmsprop(group: dict[str, Any]) -> Rule:
    alpha, eps, decay = group["alpha"], group["eps"], group["weight_decay"]
    momentum, centered = group["momentum"], bool(group["centered"])

    def coefficients(done: int, rates: np.ndarray) -> np.ndarray:
        return rates[:, None]

    def update(p: Tensor, g: Tensor, state: Sequence[Tensor], c: Coefficients) -> tuple[Tensor, list[Tensor]]:
        if decay:
            g = g + decay * p
        square = state[0] * alpha + (1 - alpha) * (g * g)
        new = [square]
        if momentum:
            buffer = state[1]
        if centered:
            mean = state[-1] + (g - state[-1]) * (1 - alpha)
            scale = (square - mean * mean).sqrt() + eps
        else:
            scale = square.sqrt() + eps
        move = g / scale
        if momentum:
            move = momentum * buffer + move
            new.append(move)
        if centered:
            new.append(mean)
        return p - c[0] * move, new

    names = ("square_avg", *(("momentum_buffer",) if momentum else ()), *(("grad_avg",) if centered else ()))
    key = ("rmsprop", alpha, eps, decay, momentum, centered)
    return Rule(key, names, (0.0,) * len(names), 1, coefficients, update)


def _adagrad(group: dict[str, Any]) -> Rule:
    fall, decay, eps = group["lr_decay"], group["weight_decay"], group["eps"]
    start = group["initial_accumulator_value"]

    def coefficients(done: int, rates: np.ndarray) -> np.ndarray:
        return np.asarray(rates / (1 + (done + np.arange(len(rates))) * fall))[:, None]

    def update(p: Tensor, g: Tensor, state: Sequence[Tensor], c: Coefficients) -> tuple[Tensor, list[Tensor]]:
        if decay:
            g = g + decay * p
        total = state[0] + g * g
        return p - c[0] * (g / (total.sqrt() + eps)), [total]

    return Rule(("adagrad", fall, decay, eps, start), ("sum",), (float(start),), 1, coefficients, update)


_MAKERS: dict[type, Callable[[dict[str, Any]], Rule | None]] = {
    Adam: _adam,
    AdamW: lambda group: _adam(group, decoupled=True),
    ClippedAdam: _clipped_adam,
    SGD: _sgd,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
}
