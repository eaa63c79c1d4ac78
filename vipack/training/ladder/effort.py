"""How much work each stage is worth, from the size of the problem and of the model's program."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from vipack.diagnostics.density import Counter
from vipack.program.evaluation.logjoint import LogJoint
from vipack.training.ladder.surface import Surface

__all__ = ["Effort", "effort_for"]

DENSE_UP_TO = 300  # unconstrained dimensions with a full covariance, and with a flow
_LONG_PROGRAM = 1_500  # operations of one gradient of log p, as a Python loop over some fifty time steps makes
_UNEXPLAINED_NUMBERS = 25_000_000  # that a look for slopes which no mode explains may produce
_ENDLESS_PROGRAM = 15_000  # whose graph takes longer to capture than the fit may last


@dataclass(frozen=True)
class Effort:
    """What the ladder spends. It depends on model and data alone, never on the machine, so that a seed decides a fit.

    Attributes:
        num_starts, path_steps: of the ascent.
        gaussian_steps, gaussian_draws, flow_steps, flow_draws: gradient steps, and draws for each.
        gaussian_rate, flow_rate: learning rates at the start. At 0.02 a flow of the centred eight schools came to an ESS
            of 74% of the draws, at 0.01 to 95%, at 0.005 to 99%.
        polish_steps: of weighted likelihood, where the flow's tails are still too thin.
        judged_by: draws that judge a stage.
        dense: full covariances, and a flow.
        by_draws: the flow is fitted to weighted draws, without gradients of log p, and the Gaussian by its moments alone.
        unexplained: points whose slopes are compared with what the modes explain.
        rank: of what the covariance has beside its diagonal, where it is not dense; 0 for a diagonal.
    """

    num_starts: int = 6
    path_steps: int = 150
    gaussian_steps: int = 1_000
    gaussian_draws: int = 16
    flow_steps: int = 4_000
    flow_draws: int = 64
    gaussian_rate: float = 0.02
    flow_rate: float = 0.005
    polish_steps: int = 400
    judged_by: int = 4_000
    dense: bool = True
    rank: int = 0
    unexplained: int = 4_096
    by_draws: bool = False


def effort_for(surface: Surface) -> Effort:
    """The effort for one model.

    Many draws cost a long program hardly more than one, since what takes the time is to call its many operations: fewer
    and better steps then.
    """
    joint = surface.joint
    surface.gradients(torch.stack([joint.initial(), joint.initial()]))
    if not surface.vectorized:
        # Every draw is a run of the model by itself.
        few = Effort(num_starts=2, path_steps=60, gaussian_steps=500, gaussian_draws=4, flow_steps=1_000, flow_draws=4)
        return replace(few, judged_by=1_000, dense=joint.dim <= DENSE_UP_TO)
    if joint.dim > DENSE_UP_TO:
        rank = 20 if joint.dim <= 2_000 else 0
        return Effort(gaussian_steps=2_000, gaussian_draws=8, judged_by=1_000, dense=False, rank=rank)
    operations, numbers = _cost(joint)
    if operations > _LONG_PROGRAM:
        endless = operations > _ENDLESS_PROGRAM
        return Effort(
            path_steps=80,
            gaussian_steps=250,
            gaussian_draws=64,
            flow_steps=1_200 if endless else 500,
            flow_draws=256,
            unexplained=0,
            by_draws=endless,
        )
    return Effort(unexplained=min(Effort.unexplained, _UNEXPLAINED_NUMBERS // max(1, numbers)))


def _cost(joint: LogJoint) -> tuple[int, int]:
    """Operations that one log joint and its gradient take, and numbers that these produce."""
    u = joint.initial().requires_grad_(True)
    with torch.random.fork_rng(), Counter() as counter:
        value = joint(u)
        if value.requires_grad:
            value.backward()
    return int(counter.operations), int(counter.numbers)
