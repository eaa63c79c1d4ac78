"""A posterior as ArviZ's InferenceData (0.x) or DataTree (1.x): NumPy in, torch never imported."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from vipack.posterior import Posterior
    from vipack.program import Site

__all__ = ["inference_data", "to_arviz"]

Group = dict[str, np.ndarray]


def to_arviz(posterior: Posterior, num_draws: int, *, seed: int = 0) -> Any:
    """All groups that ArviZ knows of a fit: one chain of `num_draws` draws from the guide.

    ``posterior`` (latent and deterministic sites), ``posterior_predictive``, ``log_likelihood`` (nats, one value an
    observation, not scaled), ``observed_data``, ``constant_data`` (the model's other arguments) and ``sample_stats``
    (``lp`` = log p(x, z), ``log_q`` and ``log_weight``, nats). Dimensions bear the names of the model's plates.
    """
    draws = posterior.draws(num_draws, seed=seed)
    predictive = posterior.predictive(num_draws, seed=seed)
    likelihood = posterior.log_likelihood(draws.latents)
    observed = posterior.observed
    sites = {site.name: site for site in posterior.table}
    groups: dict[str, Group] = {
        "posterior": _sampled({**draws.latents, **draws.deterministic}, sites),
        "posterior_predictive": _sampled({n: v for n, v in predictive.items() if n in observed}, sites),
        "log_likelihood": _sampled(likelihood, sites, event=False),
        "sample_stats": {
            "lp": np.asarray(draws.log_joint)[None],
            "log_q": np.asarray(draws.log_q)[None],
            "log_weight": np.asarray(draws.log_weights)[None],
        },
        "observed_data": {name: _squeezed(_dense(value), sites[name], 0) for name, value in observed.items()},
        "constant_data": _constants(posterior, observed),
    }
    dims = {name: _dims(site) for name, site in sites.items()}
    dims.update(_constant_dims(groups["constant_data"], posterior.table.plates, dims))
    return inference_data({name: group for name, group in groups.items() if group}, dims, _attributes(posterior))


def inference_data(groups: Mapping[str, Group], dims: Mapping[str, list[str]], attrs: Mapping[str, Any]) -> Any:
    """ArviZ's container for named groups of arrays, with whichever ArviZ is installed.

    Args:
        groups: group -> variable -> array; leading axes (chain, draw) except in groups whose name ends in ``data``.
        dims: variable -> names of its dimensions after (chain, draw).
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # ArviZ 0.23 announces 1.x at import
        import arviz
    if "posterior" in inspect.signature(arviz.from_dict).parameters:  # 0.x takes a keyword for each group
        data = arviz.from_dict(**groups, dims={name: list(value) for name, value in dims.items()})
        for name in data.groups():
            data[name].attrs.update(attrs)
        return data
    from arviz_base import from_dict

    return from_dict(dict(groups), dims=dict(dims), attrs={"/": dict(attrs), **{name: dict(attrs) for name in groups}})


def _sampled(values: Mapping[str, Any], sites: Mapping[str, Site], *, event: bool = True) -> Group:
    return {name: _squeezed(_dense(value), sites[name], 1, event=event)[None] for name, value in values.items()}


def _squeezed(array: np.ndarray, site: Site, lead: int, *, event: bool = True) -> np.ndarray:
    """Without the dimensions of size one that no plate owns, so that scalars are scalars."""
    keep = [i for i, name in enumerate(site.dim_names) if name is not None]
    shape = array.shape[:lead] + tuple(array.shape[lead + i] for i in keep)
    if event:
        shape += array.shape[lead + len(site.dim_names) :]
    return array.reshape(shape)


def _dims(site: Site) -> list[str]:
    plates = [name for name in site.dim_names if name is not None]
    return plates + [f"{site.name}_dim_{i}" for i in range(len(site.event_shape))]


def _constants(posterior: Posterior, observed: Mapping[str, Any]) -> Group:
    """The model's arguments that are not themselves observed, under their names."""
    seen = [_dense(value) for value in observed.values()]
    constants = {}
    for name, value in posterior.named_arguments().items():
        if not (hasattr(value, "shape") or isinstance(value, int | float)) or isinstance(value, bool):
            continue
        array = _dense(value)
        if not any(array.shape == other.shape and np.array_equal(array, other) for other in seen):
            constants[name] = array
    return constants


def _constant_dims(constants: Group, plates: Mapping[str, int], taken: Mapping[str, Any]) -> dict[str, list[str]]:
    dims = {}
    for name, array in constants.items():
        owners = [plate for plate, size in plates.items() if array.ndim and array.shape[0] == size]
        first = owners[:1] if len(owners) == 1 else [f"{name}_dim_0"] * bool(array.ndim)
        dims[name] = first + [f"{name}_dim_{i}" for i in range(1, array.ndim)]
    return {name: value for name, value in dims.items() if name not in taken}


def _dense(value: Any) -> np.ndarray:
    if hasattr(value, "to_dense"):
        value = value.detach().to_dense().cpu()
    return np.asarray(value)


def _attributes(posterior: Posterior) -> dict[str, Any]:
    return {"inference_library": "vipack", "guide": posterior.guide_name}
