"""Pyro's and torch's optimizers, and their update rules as tensor arithmetic. Imports nothing of the engine's other rooms."""
