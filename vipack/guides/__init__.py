"""Variational families as Pyro AutoGuides, usable in plain Pyro: whitened coordinates, flows, mixtures and more."""

from vipack.guides.flow import Flow
from vipack.guides.laplace import from_laplace
from vipack.guides.mixture import Mixture
from vipack.guides.whitened import Whitened

__all__ = ["Flow", "Mixture", "Whitened", "from_laplace"]
