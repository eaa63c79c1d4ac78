"""Structural topics fitted by L-BFGS on the bound at fixed draws, as an engine of the training loop."""

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
from vipack.topics.ascent_steps import check_on_host
from vipack.topics.structural_bound import StructuralBound
from vipack.topics.structural_topic_model import EFFECT_SD, OFFSET_SD, StructuralTopicModel
from vipack.types import EngineReport

__all__ = ["StructuralAscent", "bound_of"]

_NAME = "L-BFGS at fixed draws"
_ITERATIONS = 10  # of a step


@dataclass(frozen=True)
class StructuralAscent:
    """Makes the engine; for ``vipack.fit(model.model, model.guide, data=(counts, covariates), engine=StructuralAscent(model))``.

    A step is 10 iterations of L-BFGS on all documents, in float64; its loss is minus the bound (nats) before it, at fixed draws
    of the documents' logits. A run that is taken up from a file starts L-BFGS anew.

    Args:
        model: whose guide is fitted.
        num_draws: of each document's logits, even.
        seed: of these.
    """

    model: StructuralTopicModel
    num_draws: int = 12
    seed: int = 0
    name: str = field(default=_NAME, init=False)

    def __post_init__(self) -> None:
        if (
            isinstance(self.num_draws, bool)
            or not isinstance(self.num_draws, int)
            or self.num_draws < 2
            or self.num_draws % 2
        ):
            raise UsageError(f"num_draws: expected an even number of at least 2, found {self.num_draws!r}.")

    def make_engine(self, program: Program) -> StructuralAscentEngine:
        """See :class:`vipack.engine.steps.contracts.EngineMaker`.

        Raises:
            UsageError: the program is not the model's own, or not in float64.
        """
        own = program.parameters.unconstrained
        shape = (self.model.num_topics, self.model.num_words)
        if "topics" not in own or "logits_loc" not in own or tuple(own["topics"].shape) != shape:
            raise UsageError(
                f"engine: {_NAME} is for model.model and model.guide of the StructuralTopicModel that it was given."
            )
        if own["topics"].dtype != torch.float64:
            raise UsageError(f"engine: {_NAME} needs float64, found {own['topics'].dtype}; pass dtype=torch.float64.")
        given = getattr(program.model, "__self__", None)
        whole = getattr(program.model, "__func__", None) is StructuralTopicModel.model
        if not (whole and isinstance(given, StructuralTopicModel) and given.prior == self.model.prior):
            raise UsageError(
                f"engine: {_NAME} is derived for model.model itself, and the fit has another model or prior; train that by gradients "
                "(leave engine= out)."
            )
        check_on_host(program.parameters.device, _NAME)
        return StructuralAscentEngine(self, program)


class StructuralAscentEngine:
    """Takes the steps."""

    def __init__(self, options: StructuralAscent, program: Program) -> None:
        self._options = options
        self._own = program.parameters.unconstrained
        self._bound: tuple[Tensor, StructuralBound] | None = None
        self._optimizer: torch.optim.LBFGS | None = None
        self.report = EngineReport(_NAME, steps={_NAME: 0})

    def advance(self, batches: Batches, num_steps: int, remaining: int) -> list[float]:
        """See :class:`vipack.engine.steps.contracts.Engine`.

        Raises:
            UsageError: the data come in minibatches.
        """
        losses: list[float] = []
        for _ in range(num_steps):
            batch = next(batches)
            if batch.indices is not None:
                raise UsageError(f"batch_size: {_NAME} takes all documents at every step; leave it out.")
            loss = self._step(batch)
            if not math.isfinite(loss):
                raise NonFiniteStep(losses, NonFiniteError(f"the bound is {loss}"))
            losses.append(loss)
            self.report.steps[_NAME] += 1
        return losses

    def refresh(self) -> None:
        """See :class:`vipack.engine.steps.contracts.Engine`."""
        self._bound = self._optimizer = None

    def rest(self) -> None:
        """See :class:`vipack.engine.steps.contracts.Engine`."""

    def go_on(self, tier: Tier, running: str) -> None:
        """See :class:`vipack.engine.steps.contracts.Engine`."""

    def _step(self, batch: Arguments) -> float:
        counts = batch.args[0] if batch.args else batch.kwargs["counts"]
        if self._bound is None or self._bound[0] is not counts:
            self._bound = counts, bound_of(self._options, batch)
        if self._optimizer is None:
            self._optimizer = torch.optim.LBFGS(
                list(self._own.values()),
                max_iter=_ITERATIONS,
                history_size=20,
                line_search_fn="strong_wolfe",
                tolerance_grad=1e-9,
                tolerance_change=0,
            )
        bound, optimizer = self._bound[1], self._optimizer

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = -bound(self._own)
            loss.backward()
            return loss

        return float(optimizer.step(closure).detach())


def bound_of(options: StructuralAscent, batch: Arguments) -> StructuralBound:
    """The bound on the data of a call of the model."""
    named: dict[str, Any] = dict(zip(("counts", "covariates", "groups", "outcome"), batch.args, strict=False)) | dict(
        batch.kwargs
    )
    counts, model, outcome = named["counts"], options.model, named.get("outcome")
    if isinstance(counts, Tensor) and counts.layout != torch.sparse_csr:
        counts = counts.to_sparse_csr()
    return StructuralBound(
        CountRows.of(counts, torch.float64),
        named["covariates"].double(),
        named.get("groups"),
        eta=model.eta,
        coefficient_sd=model.coefficient_sd,
        offset_sd=OFFSET_SD,
        effect_sd=EFFECT_SD,
        outcome=outcome.double() if model.supervised and outcome is not None else None,
        num_topics=model.num_topics,
        num_draws=options.num_draws,
        seed=options.seed,
    )
