"""NumPyro's guides by SVI and its NUTS, as methods of the posteriordb benchmark; they come without a verdict."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

from benchmarks.estimates import Reference, Result, cpu_clock, unjudged
from benchmarks.posteriordb_models import Posterior
from benchmarks.posteriordb_models.for_numpyro import MODELS
from vipack.errors import UsageError

__all__ = ["METHODS"]

STEPS, PARTICLES, NUM_DRAWS = 10_000, 4, 20_000


def advi(name: str, guide_class: Any) -> Any:
    """Automatic differentiation variational inference as one would run it by hand: Adam at 0.01, 10,000 steps."""

    def method(posterior: Posterior, root: Path, seed: int, reference: Reference) -> Result:
        model, data = _model(posterior), _arrays(posterior, root)
        start, cpu_start = time.perf_counter(), cpu_clock()
        guide = guide_class(model, init_loc_fn=numpyro.infer.init_to_uniform)
        svi = SVI(model, guide, numpyro.optim.Adam(0.01), Trace_ELBO(num_particles=PARTICLES))
        found = svi.run(jax.random.key(seed), STEPS, progress_bar=False, **data)
        jax.block_until_ready(found.params)
        seconds = time.perf_counter() - start, cpu_clock() - cpu_start
        key = jax.random.key(seed + 1)
        latents = guide.sample_posterior(key, found.params, sample_shape=(NUM_DRAWS,), **data)
        drawn = {**latents, **_deterministic(model, latents, data)}
        draws = {site: np.asarray(values) for site, values in drawn.items()}
        elbo = -float(np.mean(found.losses[-500:]))
        return unjudged((posterior.name, name, seed), draws, reference, seconds, elbo)

    return method


def nuts(posterior: Posterior, root: Path, seed: int, reference: Reference) -> Result:
    """Four chains of 1,000 draws after 1,000 of warm-up, one after the other."""
    data = _arrays(posterior, root)
    start, cpu_start = time.perf_counter(), cpu_clock()
    mcmc = MCMC(
        NUTS(_model(posterior)),
        num_warmup=1_000,
        num_samples=1_000,
        num_chains=4,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), extra_fields=("diverging",), **data)
    draws = {site: np.asarray(values) for site, values in mcmc.get_samples().items()}
    seconds = time.perf_counter() - start, cpu_clock() - cpu_start
    divergent = int(np.sum(mcmc.get_extra_fields()["diverging"]))
    note = f"{divergent} divergences" if divergent else ""
    return unjudged((posterior.name, "NumPyro NUTS", seed), draws, reference, seconds, math.nan, note)


METHODS = {
    "NumPyro AutoNormal": advi("NumPyro AutoNormal", AutoNormal),
    "NumPyro AutoMultivariateNormal": advi("NumPyro AutoMultivariateNormal", AutoMultivariateNormal),
    "NumPyro NUTS": nuts,
}


def _model(posterior: Posterior) -> Any:
    if posterior.name not in MODELS:
        raise UsageError(f"{posterior.name}: no NumPyro model is known; leave NumPyro's methods out.")
    return MODELS[posterior.name]


def _arrays(posterior: Posterior, root: Path) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in posterior.data(root).items()}


def _deterministic(model: Any, latents: dict[str, Any], data: dict[str, np.ndarray]) -> dict[str, Any]:
    def one(values: dict[str, Any]) -> dict[str, Any]:
        trace = numpyro.handlers.trace(numpyro.handlers.substitute(model, data=values)).get_trace(**data)
        return {name: site["value"] for name, site in trace.items() if site["type"] == "deterministic"}

    return jax.vmap(one)(latents)
