"""Running steps: one pure step from parameters, batch and noise to loss and new parameters, in tiers of speed."""

from vipack.engine.optimizers import FitOptimizer, default_optimizer, make_optimizer
from vipack.engine.tiers import EagerEngine, Engine, NonFiniteStep

__all__ = ["EagerEngine", "Engine", "FitOptimizer", "NonFiniteStep", "default_optimizer", "make_optimizer"]
