"""Variational families as Pyro AutoGuides, usable in plain Pyro: whitened coordinates, flows, mixtures and more."""

from vipack.guides.amortized import Amortized
from vipack.guides.copies import Copies
from vipack.guides.flow import Flow
from vipack.guides.laplace import from_laplace
from vipack.guides.mixture import Mixture
from vipack.guides.structured import Structured
from vipack.guides.whitened import Whitened

__all__ = ["Amortized", "Copies", "Flow", "Mixture", "Structured", "Whitened", "from_laplace"]
