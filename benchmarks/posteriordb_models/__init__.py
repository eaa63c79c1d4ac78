"""38 posteriors of posteriordb as Pyro programs, to be read as examples of models and fitted as a benchmark.

Each is the Stan program of the same name: the same priors, flat ones flat on the parameter's own scale, and the same
names of parameters. posteriordb: https://github.com/stan-dev/posteriordb (BSD-3).
"""

from benchmarks.posteriordb_models import (
    eight_schools,
    gaussian_process,
    mixture,
    predator_prey,
    regressions,
    time_series,
)
from benchmarks.posteriordb_models.posterior import Posterior, column, flat_names, shaped

__all__ = ["POSTERIORS", "Posterior", "column", "flat_names", "shaped"]

_FILES = (eight_schools, regressions, time_series, mixture, gaussian_process, predator_prey)

POSTERIORS = {posterior.name: posterior for file in _FILES for posterior in file.POSTERIORS}
