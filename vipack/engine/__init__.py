"""Running steps: one pure step from parameters, batch and noise to loss and new parameters, in tiers of speed.

Import from the modules: the process that compiles must not import Pyro for it.
"""
