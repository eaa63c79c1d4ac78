"""One rung of the ladder: a guide, its training, and what its draws say of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from pyro.infer import TraceEnum_ELBO, autoguide
from pyro.infer.autoguide import AutoDiagonalNormal, AutoLowRankMultivariateNormal, AutoMultivariateNormal
from torch import Tensor

from vipack.guides import Copies, Flow, Mixture, Whitened
from vipack.importance import KHAT_LIMIT, importance
from vipack.objectives import StickingTheLanding
from vipack.program import seeded
from vipack.training.ladder.by_draws import train_by_draws
from vipack.training.ladder.candidates import Gaussian
from vipack.training.ladder.surface import Surface
from vipack.training.prepare import Problem, prepare
from vipack.training.stopping import Settled
from vipack.training.trainer import Plan, Trainer
from vipack.types import StopReason

__all__ = ["Family", "Rung", "guide_of", "joined_rung", "loss_of_family", "polish", "train_rung"]

_RATE, _POLISH_RATE = 0.005, 0.001
_BLOCKS = 4  # of draws, each with a k-hat of its own
_KHAT, _SHARE, _FLAT, _GAP = 0.6, 0.985, 0.99, 0.007  # of weights that leave nothing to gain; the gap in nats
_SMALL_GAP, _SMALL_SHIFT, _SMALL_STRETCH = 0.1, 0.035, 0.07  # of weights that leave too little for a flow
_LEAST_GAIN = 0.003  # nats, of a third of a stage's steps, below which the stage ends
_SHIFT, _STRETCH = 0.02, 0.03  # likewise, what the weights may change of a mean (in sd) and of a log sd


@dataclass(frozen=True)
class Family:
    """A guide of the ladder's by name, with the size that it takes to make it again from a file.

    Attributes:
        name: "gaussian", "low-rank", "diagonal" or "flow"; "mixture" or "copies" of these; or an automatic guide of Pyro's, trained
            without a ladder.
        components: of a mixture; of copies, what is copied.
        constants: what such a guide does not train: how a component is whitened, and the maps of copies.
    """

    name: str
    dim: int
    rank: int = 0
    components: tuple[Family, ...] = ()
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Family:
        """The inverse of ``dataclasses.asdict``."""
        components = tuple(cls.from_plain(component) for component in content.get("components", ()))
        return cls(**{**content, "components": components})


@dataclass(frozen=True)
class Left:
    """What importance weights say that a rung leaves to be gained.

    Attributes:
        gap: log evidence less ELBO, nats.
        khat, share: of all draws, and their ESS; below 0.7, or with weights nearly even, they can tell.
        shift, stretch: the most that they move a mean, in sds, and a log sd.
    """

    gap: float
    khat: float
    share: float
    shift: float
    stretch: float


@dataclass
class Rung:
    """A guide with its draws of ``u``.

    Attributes:
        u: ``(S, D)``.
        log_weights: log p(x, u) - log q(u) there, ``(S,)`` in nats.
        steps: of gradients.
    """

    trainer: Trainer
    family: Family
    u: Tensor
    log_weights: Tensor
    steps: int

    def excellent(self) -> bool:
        """Whether a better guide would change no answer: the weights are even, and change no mean and no sd."""
        khat, share = self.tail()
        if share < _SHARE or (share < _FLAT and khat > _KHAT):  # of weights nearly even a k-hat says nothing
            return False
        left = self.left()
        return left.gap < _GAP and left.shift < _SHIFT and left.stretch < _STRETCH

    def spared(self) -> str:
        """Why a flow, at many times the cost, is not worth it; empty where it may be.

        The gap between ELBO and evidence is all that any guide could gain.
        """
        left = self.left()
        small = left.gap < _SMALL_GAP and left.shift < _SMALL_SHIFT and left.stretch < _SMALL_STRETCH
        clear = left.share > _FLAT or left.khat < KHAT_LIMIT
        if not (small and clear):
            return ""
        return (
            f"it could gain {left.gap:.3f} nats at most (k-hat {left.khat:.2f}, ESS {left.share:.1%}), and the weights move no mean by more than "
            f"{left.shift:.2f} sd and no sd by more than {left.stretch:.0%}"
        )

    def left(self) -> Left:
        """What the weights leave to be gained."""
        smoothed = importance(self.log_weights)
        weights = torch.from_numpy(np.exp(smoothed.log_weights))[:, None]
        gap = float(torch.logsumexp(self.log_weights, 0)) - math.log(len(self.u)) - float(self.log_weights.mean())
        sd = self.u.std(0)
        mean = (weights * self.u).sum(0)
        spread = (weights * (self.u - mean) ** 2).sum(0).sqrt()
        shift = float(((mean - self.u.mean(0)) / sd).abs().max())
        return Left(gap, smoothed.khat, smoothed.ess_share, shift, float((spread / sd).log().abs().max()))

    def tail(self) -> tuple[float, float]:
        """The largest k-hat and the least ESS share of four blocks of draws."""
        blocks = [importance(chunk) for chunk in self.log_weights.chunk(_BLOCKS)]
        return max(block.khat for block in blocks), min(block.ess_share for block in blocks)

    def gaussian(self) -> Gaussian:
        """The normal distribution that this rung, which is one, has for ``u``."""
        program = self.trainer.program
        guide: Any = program.guide
        with program.bound(self.trainer.rows.full(), training=False), torch.no_grad():
            base = guide.base.get_posterior()
            if self.family.name == "gaussian":
                loc, factor = guide.origin + guide.scale_tril @ base.loc, guide.scale_tril @ base.scale_tril
            else:
                loc, factor = guide.origin + guide.scale * base.mean, guide.scale * base.stddev
        return Gaussian(loc.cpu().double(), factor.cpu().double())


def guide_of(family: Family, at: Gaussian | None = None) -> Callable[..., Any]:
    """What makes a guide of the family, whitened by a Gaussian; by the standard normal where its numbers are to be read."""
    if family.name.startswith("Auto"):
        builder: Callable[..., Any] = getattr(autoguide, family.name)
        return functools.partial(builder, rank=family.rank) if family.rank else builder
    if family.name == "mixture":
        return functools.partial(Mixture, components=[guide_of(component) for component in family.components])
    if family.name == "copies":
        maps: dict[str, Any] = dict(family.constants)
        return functools.partial(Copies, base=guide_of(family.components[0]), **maps)
    if "loc" in family.constants:
        at = Gaussian(family.constants["loc"], family.constants["factor"])
    like = torch.zeros(family.dim, dtype=torch.float64)
    loc = like if at is None else at.loc
    if family.name in ("gaussian", "flow"):
        tril = torch.eye(family.dim, dtype=like.dtype) if at is None else at.factor
        base: Any = AutoMultivariateNormal if family.name == "gaussian" else Flow
        return functools.partial(Whitened, base=base, loc=loc, scale_tril=tril)
    scale = like + 1 if at is None else at.factor
    base = AutoDiagonalNormal
    if family.name == "low-rank":
        base = functools.partial(AutoLowRankMultivariateNormal, rank=family.rank)
    return functools.partial(Whitened, base=base, loc=loc, scale=scale)


def loss_of_family(family: Family, saved: str) -> Any:
    """The objective that such a guide was trained by; `saved` is its name in a file."""
    if family.name.startswith("Auto"):
        return TraceEnum_ELBO() if saved == "TraceEnum_ELBO" else None
    return StickingTheLanding(16, antithetic=True)


def train_rung(
    problem: Problem,
    plan: Plan,
    family: Family,
    at: Gaussian,
    surface: Surface,
    *,
    steps: int,
    draws: int,
    judged_by: int,
    by_draws: bool = False,
) -> Rung:
    """Train a guide from the Gaussian on, and judge it by draws of its own.

    Raises:
        NonFiniteError: the first step has no finite loss.
    """
    prepared = prepare(problem, guide_of(family, at), seed=plan.seed, loss=StickingTheLanding(draws, antithetic=True))
    prepared.check.raise_if_bad()
    trainer = Trainer(prepared, replace(plan, steps=steps, average=True), None)
    num_steps = steps
    if by_draws:
        num_steps = train_by_draws(trainer, surface, steps, plan.rate or _RATE)
    elif steps:
        _train(trainer, plan, steps)
        num_steps = trainer.state.step
    return Rung(trainer, family, *_judged(trainer, surface, judged_by), num_steps)


def joined_rung(
    problem: Problem,
    plan: Plan,
    family: Family,
    state: Mapping[str, Tensor],
    surface: Surface,
    *,
    steps: int,
    draws: int,
    judged_by: int,
) -> Rung:
    """Train a mixture or copies of guides that are trained already, whose parameters are in `state` by name, and judge it."""
    loss = StickingTheLanding(draws)  # draws of a mixture have no mirror image
    prepared = prepare(problem, guide_of(family), seed=plan.seed, loss=loss)
    prepared.check.raise_if_bad()
    trainer = Trainer(prepared, replace(plan, steps=steps, average=True), None)
    own = trainer.program.parameters.state()
    trainer.program.parameters.load_state({**own, "params": {**own["params"], **state}})
    if steps:
        _train(trainer, plan, steps)
    return Rung(trainer, family, *_judged(trainer, surface, judged_by), trainer.state.step)


def _train(trainer: Trainer, plan: Plan, steps: int) -> None:
    """All the steps, or until they gain nothing more."""
    settled = Settled(_LEAST_GAIN, steps // 8)
    trainer.plan = replace(trainer.plan, rules=(*plan.rules, settled))
    trainer.train()
    trainer.plan = replace(trainer.plan, rules=plan.rules)
    if trainer.stopped.reason is StopReason.CONVERGED and settled(trainer.state.losses, 0.0) is not None:
        trainer.wind_up(min(steps // 8, steps - trainer.state.step))


def polish(rung: Rung, surface: Surface, steps: int) -> Rung:
    """The same guide after a few steps of weighted likelihood, which widens tails that the ELBO leaves too thin.

    The rung's own parameters move; what is returned shares them.
    """
    num_steps = train_by_draws(rung.trainer, surface, steps, _POLISH_RATE)
    return Rung(rung.trainer, rung.family, *_judged(rung.trainer, surface, len(rung.u)), num_steps)


def _judged(trainer: Trainer, surface: Surface, count: int) -> tuple[Tensor, Tensor]:
    """Draws that come of the same standard normal numbers on every rung, and their log weights, in float64."""
    program = trainer.program
    guide: Any = program.guide
    with seeded(trainer.plan.seed + 1), program.bound(trainer.rows.full(), training=False), torch.no_grad():
        q = guide.get_posterior()
        u = q.rsample((count,))
        log_q = q.log_prob(u)
    u, log_q = u.cpu().double(), log_q.cpu().double()
    return u, surface.values(u) - log_q
