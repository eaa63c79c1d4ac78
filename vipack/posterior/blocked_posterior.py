"""The posterior of latents that all observations share, given more observations than fit in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from vipack.display import listed
from vipack.errors import UsageError
from vipack.posterior.draws import Draws
from vipack.posterior.observations import Observations
from vipack.posterior.posterior import Posterior
from vipack.program import Arguments, Program
from vipack.progress import Progress

__all__ = ["BlockedPosterior", "all_arguments", "pieces"]

_BLOCK = 20_000  # observations


class BlockedPosterior(Posterior):
    """As :class:`Posterior`, with log p(x, z) added up over blocks of observations, each read when it is its turn.

    With N/B times the likelihood of a block of B, as minibatches have it, the mean over blocks by their sizes is log p(x, z) of all.
    """

    def __init__(self, program: Program, observations: Observations) -> None:
        super().__init__(program, observations.block(0, _BLOCK))
        self._blocks_of = observations
        plate = program.batch_plate.name if program.batch_plate is not None else None
        latents = self.table.of_kind("latent", "enumerated")
        self._local = tuple(site.name for site in latents if plate is not None and plate in site.plates)

    def __reduce__(self) -> tuple[Any, ...]:
        self.refuse("pickle")

    def draws(
        self,
        num_draws: int,
        *,
        seed: int = 0,
        densities: bool = True,
        computed: bool | None = None,
        keep: bool = True,
        enumerated: bool = True,
        each: Callable[[int], object] = int,
    ) -> Draws:
        """See :class:`Posterior`; deterministic sites that depend on observations are left out.

        Raises:
            UsageError: each observation has latents of its own.
        """
        if self._local:
            raise UsageError(
                f"latent {listed(map(repr, self._local))} belongs to the observations, of which there are "
                f"{self._blocks_of.num_rows:,}, too many to draw for at once; fit.encode(), fit.log_evidence() and fit.elbo(data=...) go "
                "through them in blocks, and fit.sample() of a fit of fewer rows draws them."
            )
        computed = densities if computed is None else computed
        drawn = super().draws(num_draws, seed=seed, densities=False, computed=computed, enumerated=False, each=each)
        deterministic = self._independent(drawn) if keep else {}
        joint = self._log_joint(drawn.latents, num_draws) if densities else drawn.log_joint
        latents = drawn.latents if keep else {}
        return dataclasses.replace(drawn, latents=latents, deterministic=deterministic, log_joint=joint)

    def at(self, latents: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """See :class:`Posterior`; without deterministic sites."""
        return {}, self._log_joint(latents, len(next(iter(latents.values()))))

    @property
    def observed(self) -> dict[str, Tensor]:
        self.refuse("the observed values")

    def predictive(
        self,
        num_draws: int,
        arguments: Arguments | None = None,
        *,
        seed: int = 0,
        latents: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """See :class:`Posterior`; of new observations.

        Raises:
            UsageError: those of the fit are asked for.
        """
        if arguments is None:
            self.refuse("predictions")
        return super().predictive(num_draws, arguments, seed=seed, latents=latents)

    def log_likelihood(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Posterior`, whose :meth:`pieces` have it.

        Raises:
            UsageError: always.
        """
        self.refuse("the likelihood of each")

    def refuse(self, question: str) -> NoReturn:
        """
        Raises:
            UsageError: `question` is asked of all observations at once.
        """
        raise UsageError(
            f"{question}: all {self._blocks_of.num_rows:,} observations are asked for at once, which are read in blocks since they do "
            "not fit in memory; pass fewer of them as data= where there is such an option, or to a fit of their own."
        )

    def blocks(self) -> Iterator[tuple[int, Posterior]]:
        """The posterior given each block with N/B times its likelihood, and the number of its first observation."""
        count = self._blocks_of.num_rows
        for start in range(0, count, _BLOCK):
            yield start, Posterior(self.program, self._blocks_of.block(start, min(start + _BLOCK, count)))

    def _log_joint(self, latents: Mapping[str, Tensor], num_draws: int) -> Tensor:
        """log p(x, z) ``(S,)`` in nats, float64."""
        bar = Progress(None)
        count = self._blocks_of.num_rows
        total = torch.zeros(num_draws, dtype=torch.float64)
        bar.begin("log p of all rows", count)
        try:
            for start, piece in self.blocks():
                size = min(_BLOCK, count - start)
                total += size / count * piece.at(latents)[1].double().cpu()
                bar(size)
        finally:
            bar.close()
        return total

    def _independent(self, drawn: Draws) -> dict[str, Tensor]:
        """Deterministic sites that are the same whatever observations the model is called with."""
        if not drawn.deterministic:
            return {}
        few = {name: value[:1] for name, value in drawn.latents.items()}
        last = self._blocks_of.num_rows
        other = Posterior(self.program, self._blocks_of.block(last - 7, last)).deterministic(few)
        return {
            name: value
            for name, value in drawn.deterministic.items()
            if name in other and other[name].shape == value[:1].shape and torch.equal(other[name], value[:1])
        }


def pieces(posterior: Posterior) -> Iterator[tuple[int, Posterior]]:
    """Posteriors whose observations make up all, each with the number of its first one.

    Raises:
        UsageError: the observations come in blocks, and stand in no plate by which they could be told apart.
    """
    if not isinstance(posterior, BlockedPosterior):
        yield 0, posterior
        return
    if getattr(posterior.program.batch_plate, "name", None) is None:
        posterior.refuse("the likelihood of each, which no plate holds,")
    yield from posterior.blocks()


def all_arguments(posterior: Posterior, question: str) -> Arguments:
    """What the model is called with for all observations.

    Raises:
        UsageError: they do not fit in memory, and `question` cannot be answered in blocks.
    """
    if isinstance(posterior, BlockedPosterior):
        posterior.refuse(question)
    return posterior.arguments
