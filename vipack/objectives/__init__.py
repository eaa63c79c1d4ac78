"""Objectives as pyro.infer ELBOs, usable in plain Pyro: gradients of low variance from many particles at once."""

from vipack.objectives.beta import BetaELBO
from vipack.objectives.importance_weighted import ImportanceWeighted
from vipack.objectives.sticking_the_landing import StickingTheLanding

__all__ = ["BetaELBO", "ImportanceWeighted", "StickingTheLanding"]
