"""The log likelihood of sparse counts under mixtures of topics, as operators with gradients on the rows of a CSR matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vipack.compat.pytorch import OpOverload
from vipack.engine.graph.csr_operators import entry_rows, num_rows, row_operator, selected
from vipack.sparse.mixtures_of_topics import CsrRows, add_gradients, add_log_likelihood

__all__ = [
    "are_counts",
    "differentiable",
    "gradient_shapes",
    "leading_shape",
    "log_coefficient",
    "log_likelihood",
    "pairs",
    "result_shape",
    "vectorized",
]


def log_likelihood(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, theta: Tensor, beta: Tensor
) -> Tensor:
    """``sum_w x_dw log(theta_d . beta_w)`` of rows of counts, over the words that they have; with gradients of theta and beta.

    Args:
        crow, col, values: a CSR matrix ``(N, V)``.
        rows: ``(B,)`` of it; None for all N.
        theta: ``(..., B, K)``.
        beta: ``(..., K, V)``.

    Returns:
        ``(..., B)`` in nats.
    """
    words = beta.mT.contiguous()  # of which a word's numbers lie side by side
    result: Tensor = _LogLikelihood.apply(crow, col, values, rows, theta, words)
    return result


def differentiable(likelihood: OpOverload, gradients: OpOverload) -> type[torch.autograd.Function]:
    """A likelihood with its gradients as a function; an operator with a gradient of its own is none for functorch.

    Args:
        likelihood: of a CSR matrix, its rows, theta and words.
        gradients: of theta and words, from those inputs and the gradient of the result.
    """

    class LogLikelihood(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Any) -> Any:
            return likelihood(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            return (None, None, None, None, *gradients(*ctx.saved_tensors, gradient))

    return LogLikelihood


def _row_numbers(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None) -> Tensor:
    return values.new_empty(num_rows(crow, rows))


@row_operator("log_multinomial_coefficient", "", "Tensor", _row_numbers)
def log_coefficient(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None) -> Tensor:
    """``log(n! / prod_w x_w!)`` of rows of counts, ``(B,)``."""
    crow, _, values = selected(crow, col, values, rows)
    row = entry_rows(crow)
    several = (values != 1).nonzero()[:, 0]  # log 1! = 0
    totals = values.new_zeros(num_rows(crow, None)).index_add_(0, row, values)
    return torch.lgamma(totals + 1).index_add_(0, row[several], torch.lgamma(values[several] + 1), alpha=-1)


def _row_flags(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None) -> Tensor:
    return values.new_empty(num_rows(crow, rows), dtype=torch.bool)


@row_operator("are_counts", "", "Tensor", _row_flags)
def are_counts(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None) -> Tensor:
    """Whether all stored values of a row are whole numbers from 0 on, ``(B,)``."""
    crow, _, values = selected(crow, col, values, rows)
    wrong = ~((values >= 0) & (values == values.floor()))
    count = torch.zeros(num_rows(crow, None), dtype=torch.int64, device=crow.device)
    return count.index_add_(0, entry_rows(crow), wrong.long()) == 0


def vectorized(operator: Any) -> Any:
    """The rule for vmap of an operator on theta, words and perhaps a gradient."""

    def rule(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """Moves what vmap adds in front of the dimensions over which the operator repeats itself."""
        if any(dim is not None for dim in in_dims[:4]):
            raise NotImplementedError("vmap over sparse counts: every repetition must see the same documents")
        given, dims = inputs[4:], in_dims[4:]
        width = max(value.dim() - (dim is not None) for value, dim in zip(given[:2], dims, strict=False))
        repeated = [_repeated(value, dim, info.batch_size) for value, dim in zip(given, dims, strict=True)]
        # theta and words of as many dimensions, so that those over which vmap runs meet.
        shares, words = (
            value.reshape(len(value), *(1,) * (width + 1 - value.dim()), *value.shape[1:]) for value in repeated[:2]
        )
        result = operator(*inputs[:4], shares, words, *repeated[2:])
        return result, (0, 0) if isinstance(result, tuple) else 0

    return rule


def _repeated(value: Tensor, dim: int | None, size: int) -> Tensor:
    return value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)


def result_shape(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, theta: Tensor, words: Tensor
) -> Tensor:
    """A likelihood's result, for captured steps."""
    return theta.new_empty((*leading_shape(theta, words), num_rows(crow, rows)))


@row_operator("bag_of_words", "Tensor theta, Tensor words", "Tensor", result_shape, vectorized)
def _likelihood(crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, theta: Tensor, words: Tensor) -> Tensor:
    """See :func:`log_likelihood`."""
    matrix = CsrRows.of(crow, col, values, rows)
    result = theta.new_zeros((*leading_shape(theta, words), theta.shape[-2]))
    for (shares, own), total in zip(pairs(theta, words), result.view(-1, result.shape[-1]), strict=True):
        add_log_likelihood(matrix, shares, own, total)
    return result


def gradient_shapes(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, theta: Tensor, words: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Its gradients, likewise."""
    return theta.new_empty(theta.shape), words.new_empty(words.shape)


@row_operator(
    "bag_of_words_backward",
    "Tensor theta, Tensor words, Tensor gradient",
    "(Tensor, Tensor)",
    gradient_shapes,
    vectorized,
)
def _gradients(
    crow: Tensor, col: Tensor, values: Tensor, rows: Tensor | None, theta: Tensor, words: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of theta and words, from that of the result."""
    matrix, lead = CsrRows.of(crow, col, values, rows), leading_shape(theta, words)
    of_theta = theta.new_zeros((*lead, *theta.shape[-2:]))
    of_words = theta.new_zeros((*(lead if words.dim() > 2 else ()), *words.shape[-2:]))
    repetitions = zip(
        pairs(theta, words),
        of_theta.view(-1, *of_theta.shape[-2:]),
        of_words.expand(*lead, *of_words.shape[-2:]).view(-1, *of_words.shape[-2:]),  # to which all add what they share
        gradient.reshape(-1, gradient.shape[-1]),
        strict=True,
    )
    for (shares, own), to_shares, to_words, weights in repetitions:
        add_gradients(matrix, shares, own, weights, to_shares, to_words)
    return of_theta.sum_to_size(theta.shape), of_words.sum_to_size(words.shape)


_LogLikelihood = differentiable(_likelihood, _gradients)


def leading_shape(theta: Tensor, words: Tensor) -> torch.Size:
    """The shape over which likelihoods of all rows are repeated, as over particles."""
    one, other = theta.shape[:-2], words.shape[:-2]
    return (
        one if one == other else torch.Size(torch.broadcast_shapes(one, other))
    )  # which takes longer than a small step


def pairs(theta: Tensor, words: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """``(B, K)`` and ``(V, K)`` for each repetition."""
    lead = leading_shape(theta, words)
    flat = (value.expand(*lead, *value.shape[-2:]).reshape(-1, *value.shape[-2:]) for value in (theta, words))
    return zip(*flat, strict=True)
