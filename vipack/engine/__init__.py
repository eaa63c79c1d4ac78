"""Running steps: one pure step from parameters, batch and noise to loss and new parameters, in tiers of speed.

From the ground up: `guards`, `optimizers`, `native`; `graph`; `capture`, `interpreter`, `inductor`; `compiled`; `steps`; and
beside this file what is used from outside: the engine of a run (`tiers`), fits side by side (`vectorized_restarts`),
`vipack.SVI` and `vipack.CapturedELBO`. Import from the modules: the process that compiles must not import Pyro for it.
"""
