"""Variational families as Pyro AutoGuides, usable in plain Pyro: whitened coordinates, flows, mixtures and more."""

from vipack.guides.flow import Flow
from vipack.guides.whitened import Whitened

__all__ = ["Flow", "Whitened"]
