"""Passes over rows of counts: mixtures of topics at the nonzeros alone, and expectations under Dirichlet distributions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vipack.errors import ShapeError
from vipack.sparse.count_rows import CountRows
from vipack.sparse.library import library

__all__ = ["Expectations", "Pass", "column_expectations", "fold_in", "fused_pass", "relaxed", "row_expectations"]

_AT_ONCE = 2_000_000  # numbers of the fallback's arrays
_FEWEST = 400_000  # nonzeros worth a thread of their own
_DOCUMENT_RELAXATION = 0.6  # as in passes.cpp: a third fewer steps than plain ones


class Pass(NamedTuple):
    """What one pass over D rows gives.

    Attributes:
        log_likelihood: ``(D,)`` float64, nats: the sum over nonzeros of count * log(theta . beta).
        theta_sums: ``(D, K)``, its gradient by theta.
        word_sums: ``(V, K)``, its gradient by beta.
    """

    log_likelihood: Tensor
    theta_sums: Tensor
    word_sums: Tensor


class Expectations(NamedTuple):
    """Of Dirichlet distributions q(x).

    Attributes:
        weights: exp(E[log x] - shift), the largest of each row being 1.
        shifts: ``(rows,)`` float64.
        divergence: KL(q || p) summed over all distributions, nats, less the normalisers of p.
    """

    weights: Tensor
    shifts: Tensor
    divergence: float


def fused_pass(rows: CountRows, theta: Tensor, beta: Tensor) -> Pass:
    """
    Args:
        theta: ``(D, K)``.
        beta: ``(V, K)``, of the same type; words by topics, so that a word's numbers lie side by side.
    """
    theta, beta = theta.contiguous(), beta.contiguous()
    num_rows, num_topics = theta.shape
    _check(theta, "theta", (rows.num_rows, num_topics), rows.counts.dtype)
    _check(beta, "beta", (rows.num_words, num_topics), rows.counts.dtype)
    compiled = library(num_topics, theta.dtype, rows.words.dtype)
    if compiled is None:
        return _plain_pass(rows, theta, beta)
    log_likelihood = torch.zeros(num_rows, dtype=torch.float64)
    theta_sums = torch.empty_like(theta)
    longest = int(rows.lengths.max()) if num_rows else 0

    def run(first: int, last: int) -> Tensor:
        word_sums, workspace = torch.zeros_like(beta), torch.empty(longest, dtype=torch.float64)
        compiled.vipack_pass(
            ctypes.c_int64(first), ctypes.c_int64(last),
            *map(_address, (rows.starts, rows.words, rows.counts, theta, beta, log_likelihood, theta_sums, word_sums, workspace)),
        )  # fmt: skip
        return word_sums

    return Pass(log_likelihood, theta_sums, _shared_out(run, rows))


def fold_in(
    rows: CountRows, beta: Tensor, prior: Tensor, start: Tensor, *, most_steps: int = 100, tolerance: float = 1e-3
) -> Tensor:
    """Dirichlet concentrations ``(D, K)`` of documents' shares by coordinate ascent, while the topics stay as they are.

    Args:
        beta: ``(V, K)``, exp(E[log beta]) up to a factor for each word.
        prior: ``(K,)``.
        start: ``(D, K)``.
        tolerance: a document is done when its concentrations change by less than this, in the mean over topics.
    """
    beta, prior = beta.contiguous(), prior.double().contiguous()
    _check(start, "start", (rows.num_rows, start.shape[1]), rows.counts.dtype)
    _check(beta, "beta", (rows.num_words, start.shape[1]), rows.counts.dtype)
    _check(prior, "prior", (start.shape[1],), torch.float64)
    gamma = start.clone(memory_format=torch.contiguous_format)
    compiled = library(gamma.shape[1], gamma.dtype, rows.words.dtype)
    if compiled is None:
        return _plain_fold_in(rows, beta, prior, gamma, most_steps, tolerance)
    longest = int(rows.lengths.max()) if rows.num_rows else 0

    def run(first: int, last: int) -> Tensor:
        workspace = torch.empty(longest * ((gamma.shape[1] + 7) // 8 * 8), dtype=gamma.dtype)
        compiled.vipack_fold_in(
            ctypes.c_int64(first), ctypes.c_int64(last),
            *map(_address, (rows.starts, rows.words, rows.counts, beta, prior, gamma)),
            ctypes.c_int64(most_steps), ctypes.c_double(tolerance), _address(workspace),
        )  # fmt: skip
        return torch.zeros(())

    _shared_out(run, rows)
    return gamma


def row_expectations(x: Tensor, prior: Tensor) -> Expectations:
    """Of one distribution for each row of x ``(D, K)``, with the prior's concentrations ``(K,)`` or ``(D, K)``, float64."""
    return _expectations(x, prior, None)


def column_expectations(x: Tensor, prior: Tensor) -> Expectations:
    """Of one distribution for each column of x ``(V, K)``, with the prior's concentrations ``(K,)`` or ``(V, K)``, float64."""
    totals = x.sum(0, dtype=torch.float64)
    outcome = _expectations(x, prior, totals.digamma())
    return Expectations(outcome.weights, outcome.shifts, outcome.divergence + float(totals.lgamma().sum()))


def relaxed(old: Tensor, updated: Tensor, power: float) -> Tensor:
    """``updated * (updated / old)^power``, written over `updated` ``(n, K)``."""
    _check(old, "old", tuple(updated.shape), updated.dtype)
    old = old.contiguous()
    compiled = library(updated.shape[-1], updated.dtype, torch.int32)
    if compiled is None or not updated.is_contiguous():
        return updated.mul_((updated / old).pow_(power))
    compiled.vipack_relax(ctypes.c_int64(updated.numel()), _address(old), _address(updated), ctypes.c_double(power))
    return updated


def _expectations(x: Tensor, prior: Tensor, columns: Tensor | None) -> Expectations:
    x, prior = x.contiguous(), prior.double().contiguous()
    _check(prior, "prior", tuple(x.shape)[2 - prior.dim() :], torch.float64)
    compiled = library(x.shape[1], x.dtype, torch.int32)
    if compiled is None:
        return _plain_expectations(x, prior, columns)
    weights, shifts = torch.empty_like(x), torch.empty(len(x), dtype=torch.float64)
    divergence = torch.zeros(1, dtype=torch.float64)
    compiled.vipack_expectations(
        ctypes.c_int64(len(x)), _address(x), _address(prior), ctypes.c_int64(x.shape[1] if prior.dim() == 2 else 0),
        None if columns is None else _address(columns), _address(weights), _address(shifts), _address(divergence),
    )  # fmt: skip
    return Expectations(weights, shifts, float(divergence))


def _plain_fold_in(
    rows: CountRows, beta: Tensor, prior: Tensor, gamma: Tensor, most_steps: int, tolerance: float
) -> Tensor:
    active = torch.arange(rows.num_rows)
    for step in range(most_steps):
        if not len(active):
            break
        some = rows.take(active)
        expectations = _plain_expectations(gamma[active], prior, None)
        updated = (
            prior.to(gamma.dtype) + expectations.weights * _plain_pass(some, expectations.weights, beta).theta_sums
        )
        moves = (updated - gamma[active]).abs().mean(1) >= tolerance
        if 2 * step + 1 < most_steps:
            longer = updated * (updated / gamma[active]) ** _DOCUMENT_RELAXATION
            longer *= updated.sum(1, keepdim=True) / longer.sum(1, keepdim=True)
            updated = torch.where(moves[:, None], longer, updated)
        gamma[active] = updated
        active = active[moves]
    return gamma


def _plain_expectations(x: Tensor, prior: Tensor, columns: Tensor | None) -> Expectations:
    values = x.double()
    totals = values.sum(1, keepdim=True)
    expected = values.digamma() - (totals.digamma() if columns is None else columns)
    divergence = float(((values - prior) * expected - values.lgamma()).sum())
    if columns is None:
        divergence += float(totals.lgamma().sum())
    shifts = expected.amax(1)
    return Expectations((expected - shifts[:, None]).to(x.dtype).exp(), shifts, divergence)


def _plain_pass(rows: CountRows, theta: Tensor, beta: Tensor) -> Pass:
    log_likelihood = torch.zeros(len(theta), dtype=torch.float64)
    theta_sums, word_sums = torch.zeros_like(theta), torch.zeros_like(beta)
    index = torch.repeat_interleave(torch.arange(len(theta)), rows.lengths.long())
    for some in torch.arange(len(index)).split(max(1, _AT_ONCE // theta.shape[1])):
        row, word, count = index[some], rows.words[some].long(), rows.counts[some]
        shares, words = theta[row], beta[word]
        probability = (shares * words).sum(1)
        quotient = (count / probability)[:, None]
        log_likelihood.index_add_(0, row, count.double() * probability.double().log())
        theta_sums.index_add_(0, row, quotient * words)
        word_sums.index_add_(0, word, quotient * shares)
    return Pass(log_likelihood, theta_sums, word_sums)


def _shared_out(run: Callable[[int, int], Tensor], rows: CountRows) -> Tensor:
    """The sum of `run` over ranges of rows, with about as many nonzeros each, one for each thread."""
    nonzeros = len(rows.words)
    num_threads = max(1, min(torch.get_num_threads(), nonzeros // _FEWEST))
    if num_threads == 1:
        return run(0, rows.num_rows)
    marks = torch.arange(1, num_threads) * (nonzeros // num_threads)
    cuts = [0, *torch.searchsorted(rows.starts.long(), marks).tolist(), rows.num_rows]
    with ThreadPoolExecutor(num_threads) as pool:
        sums = list(pool.map(run, cuts[:-1], cuts[1:]))
    return torch.stack(sums).sum(0)


def _address(tensor: Tensor) -> Any:
    return ctypes.c_void_p(tensor.data_ptr())


def _check(tensor: Tensor, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """
    Raises:
        ShapeError: compiled code would read or write beyond its memory.
    """
    if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device.type != "cpu":
        raise ShapeError(
            f"{name}: expected shape {shape} of {dtype} on the host, found {tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}."
        )
