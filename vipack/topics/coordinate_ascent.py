"""Coordinate ascent of latent Dirichlet allocation's parameters, as an engine of the training loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vipack.engine.steps.contracts import Batches, NonFiniteStep, Tier
from vipack.errors import NonFiniteError, UsageError
from vipack.program import Arguments, Program
from vipack.sparse.count_rows import CountRows
from vipack.topics.ascent_steps import Totals, ascend_topics, check_on_host, columns_of, step_size, sweep
from vipack.topics.dirichlet_allocation import DirichletAllocation
from vipack.topics.learned_priors import learned_alpha
from vipack.types import EngineReport

__all__ = ["CoordinateAscent"]

_NAME = "coordinate ascent"
_PLAIN = 5  # sweeps without relaxation after one that lowered the bound
_LEARN_FROM, _LEARN_EVERY = 10, 5  # sweeps between changes of learned concentrations


@dataclass(frozen=True)
class CoordinateAscent:
    """Makes the engine; for ``vipack.fit(allocation.model, allocation.guide, engine=CoordinateAscent(allocation))``.

    On all data a step is a sweep: q of every word's topic, then of all documents and topics at their optimum given these, so
    that the bound never falls. On minibatches it infers the documents of a batch and moves the topics by a natural gradient.
    The loss of a step is minus the exact bound (nats) before it. In that bound every word's topic has a distribution of its
    own in q; ``fit.elbo()``, of the program that sums these topics out, is higher (by .6% after five sweeps of a small corpus).

    Args:
        allocation: the model.
        relaxation: 1 for plain sweeps. Above 1 each sweep goes further in its direction, ``new * (new / old)**(relaxation - 1)``
            with the totals kept: 1.9 saves half of the sweeps, 2 and more diverge. Should the bound fall, plain sweeps follow.
        document_steps: the most updates of a document's shares in a minibatch's step.
        delay, forgetting: of the natural gradient's step size, ``(delay + step)**-forgetting``.
        normalized_sweeps: first sweeps over all data, in which exp(E[log words]) of each topic is divided by its sum, in the first
            of them wholly and from one to the next less. The sum is below 1, the more so the fewer words a topic has, and plain
            sweeps take words from small topics for that. What follows ends at a better bound, with more coherent topics; these
            sweeps themselves may lower the bound, so a fit should go on after them.

    Source: Blei, Ng and Jordan (2003), section 5.2; Hoffman, Blei and Bach (2010), algorithm 2, for minibatches.

    Raises:
        UsageError: an option out of range.
    """

    allocation: DirichletAllocation
    relaxation: float = 1.9
    document_steps: int = 20
    delay: float = 10.0
    forgetting: float = 0.7
    normalized_sweeps: int = 0
    name: str = field(default=_NAME, init=False)

    def __post_init__(self) -> None:
        for option, low, high in (
            ("relaxation", 1, 2),
            ("normalized_sweeps", 0, math.inf),
            ("document_steps", 1, math.inf),
            ("delay", 0, math.inf),
            ("forgetting", 0.5, 1),
        ):
            value = getattr(self, option)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not low <= value <= high
                or value == math.inf
            ):
                raise UsageError(f"{option}: expected a number from {low} to {high}, found {value!r}.")

    def make_engine(self, program: Program) -> AscentEngine:
        """See :class:`vipack.engine.steps.contracts.EngineMaker`.

        Raises:
            UsageError: the program is not the allocation's own.
        """
        own = {
            "topics": (self.allocation.num_topics, self.allocation.num_words),
            "documents": (self.allocation.num_documents, self.allocation.num_topics),
        }
        shapes = {name: tuple(value.shape) for name, value in program.parameters.unconstrained.items()}
        if any(shapes.get(name) != shape for name, shape in own.items()):
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"
            raise UsageError(
                f"engine: coordinate ascent moves the parameters topics {own['topics']} and documents {own['documents']} of "
                f"allocation.model and allocation.guide; found {listed}."
            )
        given = getattr(program.model, "__self__", None)
        whole = getattr(program.model, "__func__", None) is DirichletAllocation.model
        if not (whole and isinstance(given, DirichletAllocation) and given.same_prior(self.allocation)):
            raise UsageError(
                "engine: coordinate ascent is derived for allocation.model itself, and the fit has another model or prior; train that "
                "by gradients (leave engine= out)."
            )
        check_on_host(program.parameters.device, _NAME)
        return AscentEngine(self, program)


class AscentEngine:
    """Takes the steps; all that it needs to go on is in the parameters and in the number of steps of its report."""

    def __init__(self, options: CoordinateAscent, program: Program) -> None:
        self._options = options
        self._program = program
        self._totals: tuple[Tensor, Totals] | None = None
        self._last, self._plain = -math.inf, 0
        self.report = EngineReport(_NAME, steps={_NAME: 0})

    def advance(self, batches: Batches, num_steps: int, remaining: int) -> list[float]:
        """See :class:`vipack.engine.steps.contracts.Engine`."""
        losses: list[float] = []
        with torch.no_grad():
            for _ in range(num_steps):
                batch = next(batches)
                before = self._values()
                loss = self._sweep(batch, *before) if batch.indices is None else self._step(batch, *before)
                if not math.isfinite(loss):
                    raise NonFiniteStep(losses, NonFiniteError(f"the bound is {loss}"))
                losses.append(loss)
                self.report.steps[_NAME] += 1
        return losses

    def refresh(self) -> None:
        """See :class:`vipack.engine.steps.contracts.Engine`."""
        self._totals = None

    def rest(self) -> None:
        """See :class:`vipack.engine.steps.contracts.Engine`."""

    def go_on(self, tier: Tier, running: str) -> None:
        """See :class:`vipack.engine.steps.contracts.Engine`."""

    def _values(self) -> tuple[Tensor, Tensor, Tensor]:
        """Topics ``(V, K)``, documents ``(D, K)`` and alpha ``(K,)``, as the guide and the model see them."""
        own = self._program.parameters.unconstrained
        alpha = own["alpha"].double().exp() if "alpha" in own else self._options.allocation.alpha
        return own["topics"].T.contiguous().exp_(), own["documents"].exp(), alpha

    def _write(self, name: str, values: Tensor) -> None:
        self._program.parameters.unconstrained[name].copy_(values.log())

    def _sweep(self, batch: Arguments, topics: Tensor, documents: Tensor, alpha: Tensor) -> float:
        eta = columns_of(self._options.allocation.eta, documents.shape[1])
        step = self.report.steps[_NAME]
        first = self._options.normalized_sweeps
        normalized = 1 - step / first if step < first else 0.0
        relaxation = (lambda _: self._options.relaxation) if normalized else self._relaxation
        totals = self._totals_of(batch, documents.dtype)
        outcome = sweep(totals, topics, documents, alpha, eta, relaxation, normalized=normalized)
        self._write("documents", outcome.documents)
        self._write("topics", outcome.topics.T)
        if self._options.allocation.learn_alpha and step >= _LEARN_FROM and step % _LEARN_EVERY == 0:
            self._write("alpha", learned_alpha(documents, alpha))
        return -outcome.bound

    def _step(self, batch: Arguments, topics: Tensor, documents: Tensor, alpha: Tensor) -> float:
        assert batch.indices is not None
        options, step = self._options, self.report.steps[_NAME]
        rows = CountRows.of(_counts(batch), documents.dtype)
        outcome = ascend_topics(
            rows,
            topics,
            alpha,
            self._options.allocation.eta,
            scale=len(documents) / rows.num_rows,
            rate=step_size(step, options.delay, options.forgetting),
            start=documents[batch.indices],
            document_steps=options.document_steps,
        )
        self._write("topics", outcome.topics.T)
        self._program.parameters.unconstrained["documents"][batch.indices] = outcome.documents.log()
        return -outcome.bound

    def _totals_of(self, batch: Arguments, dtype: torch.dtype) -> Totals:
        counts = _counts(batch)
        if self._totals is None or self._totals[0] is not counts:
            self._totals = counts, Totals.of(CountRows.of(counts, dtype))
        return self._totals[1]

    def _relaxation(self, bound: float) -> float:
        """How far to go this time: plain sweeps follow upon one that lowered the bound by more than rounding."""
        if bound < self._last - 1e-7 * abs(self._last):
            self._plain = _PLAIN
        self._last, self._plain = bound, max(0, self._plain - 1)
        return 1.0 if self._plain else self._options.relaxation


def _counts(batch: Arguments) -> Any:
    """The counts among a call's arguments, in CSR form."""
    values = [*batch.args, *batch.kwargs.values()]
    counts = values[0]
    return counts if counts.layout == torch.sparse_csr else counts.to_sparse_csr()
