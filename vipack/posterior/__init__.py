"""Draws from a fitted guide with log p(x, z) and log q(z), and predictive draws from the model."""

from vipack.posterior.draws import Draws
from vipack.posterior.posterior import Posterior

__all__ = ["Draws", "Posterior"]
