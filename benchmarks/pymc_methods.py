"""PyMC's ADVI, mean-field and full-rank, as methods of the posteriordb benchmark; they come without a verdict."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm

from benchmarks.estimates import Reference, Result, cpu_clock, unjudged
from benchmarks.posteriordb_models import Posterior
from benchmarks.posteriordb_models.for_pymc import MODELS
from vipack.errors import UsageError

__all__ = ["METHODS"]

STEPS, PARTICLES, NUM_DRAWS = 10_000, 4, 20_000


def advi(name: str, method_name: str) -> Any:
    """As NumPyro's are run: Adam at 0.01, 10,000 steps. PyMC's own default, Adagrad at 0.001, hardly leaves the start."""

    def method(posterior: Posterior, root: Path, seed: int, reference: Reference) -> Result:
        if posterior.name not in MODELS:
            raise UsageError(f"{posterior.name}: no PyMC model is known; leave PyMC's methods out.")
        arrays = {key: value.numpy() for key, value in posterior.data(root).items()}
        start, cpu_start = time.perf_counter(), cpu_clock()
        with pm.Model():
            MODELS[posterior.name](**arrays)
            try:
                found = pm.fit(
                    STEPS,
                    method=method_name,
                    random_seed=seed,
                    obj_optimizer=pm.adam(learning_rate=0.01),
                    obj_n_mc=PARTICLES,
                    progressbar=False,
                )
            except FloatingPointError as error:
                raise UsageError(f"{posterior.name}: {' '.join(str(error).split())[:100]}") from error
            seconds = time.perf_counter() - start, cpu_clock() - cpu_start
            drawn = found.sample(NUM_DRAWS, random_seed=seed + 1).posterior
        draws = {str(site): np.asarray(values)[0] for site, values in drawn.data_vars.items()}
        elbo = -float(np.mean(found.hist[-500:]))
        return unjudged((posterior.name, name, seed), draws, reference, seconds, elbo)

    return method


METHODS = {"PyMC ADVI": advi("PyMC ADVI", "advi"), "PyMC full-rank ADVI": advi("PyMC full-rank ADVI", "fullrank_advi")}

logging.getLogger("pymc").setLevel(logging.WARNING)  # its last loss, after every fit
