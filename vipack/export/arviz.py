"""A posterior as ArviZ's InferenceData (0.x) or xarray's DataTree (ArviZ 1.x): NumPy in, torch never imported."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vipack.entry import entry
from vipack.errors import DataWarning, UsageError, warn
from vipack.export.variables import SAMPLE_DIMS, Variable, axis_names, without_clashes
from vipack.version import __version__

if TYPE_CHECKING:
    from vipack.posterior import Posterior
    from vipack.program import Site
    from vipack.program.sites import Kind

__all__ = ["inference_data", "to_arviz"]

_MOST_NUMBERS = 1_000_000_000  # in one group; 4 GB in float32
_MOST_DENSE = 10_000_000  # a sparse array larger than this when dense is left out


@entry
def to_arviz(posterior: Posterior, num_draws: int, *, seed: int = 0, resample: bool | None = None) -> Any:
    """All groups that ArviZ knows of a fit: one chain of `num_draws` draws.

    The attributes ``draws``, ``resampled`` and ``verdict`` say which draws: the guide's own, or resampled ones with equal
    weights, in all groups the same.

    - ``posterior``: latent and deterministic sites; discrete latents that are summed out too, as integers, drawn from
      their posterior.
    - ``sample_stats``: ``lp`` = log p(x, z), ``log_q`` and ``log_weight`` = lp - log_q, in nats. Resampled draws have been
      weighted by these already.
    - ``observed_data``, ``posterior_predictive`` and ``log_likelihood`` (nats, one value an observation, never scaled by
      a minibatch): the observed sites. Whole-numbered ones are integers, so that ArviZ draws bars rather than curves.
      Masked observations are in none of the three: their values are placeholders. What is left of such a site lies along
      one dimension ``site_dim_0``, labelled by position in the site's flattened batch shape. There is no
      ``log_likelihood`` where discrete latents are summed out.
    - ``constant_data``: the model's other arguments, arrays and numbers (flags, strings and the like are not data). Their
      first dimension bears a plate's name if that plate alone has its size.

    Dimensions are named by the model's plates, others ``site_dim_0``, ``site_dim_1``, ...; batch dimensions of size one
    that no plate owns are dropped, so that scalars are scalars. Names that would clash are changed as
    :func:`~vipack.export.variables.without_clashes` says. Sparse arrays are made dense where that is small (10 million
    numbers) and are otherwise named in the attribute ``left_out``; where an observed one is, nothing is predicted.

    Args:
        resample: which draws; None follows the verdict of the last diagnosis.

    Raises:
        UsageError: so many draws of so large a model would not fit in memory.

    Warns:
        DataWarning: a variable or dimension has another name than in the model, since the two would clash.
    """
    from vipack.posterior.answers import POOL, answer, predictions, used

    predict = not any(_is_large_and_sparse(value) for value in posterior.observed.values())
    kinds: tuple[Kind, ...] = ("latent", "enumerated", "deterministic")
    if used(posterior, resample).resampled:
        _check_size(posterior, num_draws, kinds, POOL)
    _check_size(posterior, num_draws, (*kinds, "observed") if predict else kinds)
    draws, which = answer(posterior, num_draws, seed=seed, resample=resample)
    predictive: Mapping[str, Any] = {}
    if predict:
        predictive, _, _ = predictions(posterior, num_draws, seed=seed, resample=which.resampled, drawn=draws)
    likelihood = posterior.log_likelihood(draws.latents)
    masks = {name: np.asarray(mask.cpu()) for name, mask in posterior.observed_masks.items()}
    plates, sites = posterior.table.plates, {site.name: site for site in posterior.table}
    left_out: list[str] = []
    groups: dict[str, dict[str, Variable]] = {
        name: {} for name in ("posterior", "posterior_predictive", "log_likelihood", "sample_stats", "observed_data")
    }
    for name, values in draws.sites.items():
        array = _dense(values)
        if sites[name].kind == "enumerated":
            array = _as_counts(array, sites[name])
        groups["posterior"][name] = _of_site(array, sites[name], plates, sampled=True)
    for name, values in posterior.observed.items():
        if _is_large_and_sparse(values):
            left_out.append(f"{name} {tuple(values.shape)}")
        else:
            groups["observed_data"] |= _observed(_dense(values), sites[name], plates, masks)
        if name in predictive:
            groups["posterior_predictive"] |= _observed(
                _dense(predictive[name]), sites[name], plates, masks, sampled=True
            )
        if name in likelihood:
            array = _dense(likelihood[name])
            groups["log_likelihood"] |= _observed(array, sites[name], plates, masks, sampled=True, event_dim=0)
    stats = {"lp": draws.log_joint, "log_q": draws.log_q, "log_weight": draws.log_weights}
    groups["sample_stats"] = {name: Variable(_dense(values)[None], sampled=True) for name, values in stats.items()}
    groups["constant_data"] = _constants(posterior, left_out)
    attributes = {
        "inference_library": "vipack",
        "inference_library_version": __version__,
        "guide": posterior.guide_name,
        "draws": str(which),
        "resampled": int(which.resampled),  # netCDF has no booleans
        "verdict": "not judged" if which.verdict is None else which.verdict.value,
    }
    if left_out:
        attributes["left_out"] = "sparse and too large to make dense: " + ", ".join(left_out)
    return inference_data(groups, attributes)


def inference_data(groups: Mapping[str, Mapping[str, Variable]], attributes: Mapping[str, Any]) -> Any:
    """The container of whichever ArviZ is installed, for named groups of named arrays; empty groups are left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # ArviZ 0.23 announces 1.x at import
        import arviz
    datasets = _datasets(groups, attributes)
    if arviz.__version__.startswith("0."):
        return arviz.InferenceData(attrs=dict(attributes), **datasets)
    return data_tree(datasets, attributes)


def data_tree(datasets: Mapping[str, Any], attributes: Mapping[str, Any]) -> Any:
    """The container of ArviZ 1.x."""
    import xarray

    tree = xarray.DataTree.from_dict(dict(datasets))
    tree.attrs = dict(attributes)
    return tree


def _datasets(groups: Mapping[str, Mapping[str, Variable]], attributes: Mapping[str, Any]) -> dict[str, Any]:
    import xarray

    datasets = {}
    kept = {name: group for name, group in groups.items() if group}
    apart = without_clashes(kept)
    for warning in _renamed(kept, apart):
        warn(warning)
    for group, variables in apart.items():
        arrays, labels = {}, {}
        for name, variable in variables.items():
            lead = SAMPLE_DIMS if variable.sampled else ()
            arrays[name] = (lead + variable.dims, variable.values)
            labels.update({dim: np.arange(size) for dim, size in variable.sizes.items()} | dict(variable.labels))
            labels.update(zip(lead, map(np.arange, variable.values.shape), strict=False))
        datasets[group] = xarray.Dataset(arrays, coords=labels, attrs=dict(attributes))
    return datasets


def _renamed(
    groups: Mapping[str, Mapping[str, Variable]], apart: Mapping[str, Mapping[str, Variable]]
) -> Iterator[DataWarning]:
    """What had to take another name: whoever asks for the old one finds it missing. Slashes are dots everywhere."""
    changes: dict[str, str] = {}
    for group, variables in groups.items():
        for (name, variable), (new_name, new) in zip(variables.items(), apart[group].items(), strict=True):
            if new_name != name.replace("/", "."):
                changes.setdefault(f"variable {name!r}", new_name)
            for dim, new_dim in zip(variable.dims, new.dims, strict=True):
                if new_dim != dim.replace("/", "."):
                    changes.setdefault(f"dimension {dim!r}", new_dim)
    if changes:
        listed = ", ".join(f"{what} is {new!r} here" for what, new in changes.items())
        yield DataWarning(
            f"to_arviz: {listed}, since one name can stand for one thing only; give the plate, or the site or argument "
            "of its name, another name in the model to choose for yourself."
        )


def _observed(
    array: np.ndarray,
    site: Site,
    plates: Mapping[str, int],
    masks: Mapping[str, np.ndarray],
    *,
    sampled: bool = False,
    event_dim: int | None = None,
) -> dict[str, Variable]:
    """An observed site's values or densities by its name, without the masked ones."""
    counts = event_dim is None  # values, not densities
    event_dim = len(site.event_shape) if event_dim is None else event_dim
    mask = masks.get(site.name)
    if mask is None or mask.all():
        array = _as_counts(array, site) if counts else array
        return {site.name: _of_site(array, site, plates, sampled=sampled, event_dim=event_dim)}
    lead = 1 if sampled else 0
    split = array.ndim - event_dim
    batch = np.broadcast_shapes(array.shape[lead:split], mask.shape)
    array = np.broadcast_to(array, (*array.shape[:lead], *batch, *array.shape[split:]))
    kept = np.flatnonzero(np.broadcast_to(mask, batch))
    if not len(kept):
        return {}
    array = array.reshape(*array.shape[:lead], -1, *array.shape[lead + len(batch) :]).take(kept, axis=lead)
    array = _as_counts(array, site) if counts else array  # only now: what is missing may be NaN
    dims = tuple(f"{site.name}_dim_{i}" for i in range(1 + event_dim))
    return {site.name: Variable(array[None] if sampled else array, dims, sampled, {dims[0]: kept})}


def _of_site(
    array: np.ndarray, site: Site, plates: Mapping[str, int], *, sampled: bool = False, event_dim: int | None = None
) -> Variable:
    lead = 1 if sampled else 0
    shape = array.shape[lead:]
    plate_dims = dict(zip(site.plate_dims, site.plates, strict=True))
    if event_dim is None:
        event_dim = len(site.event_shape)
    if site.kind == "deterministic":
        event_dim = _event_dim(shape, plate_dims, plates, event_dim)
    names = axis_names(site.name, shape, plate_dims, plates, event_dim)
    kept = [size for size, name in zip(shape, names, strict=True) if name is not None]
    array = array.reshape((*array.shape[:lead], *kept))
    return Variable(array[None] if sampled else array, tuple(name for name in names if name is not None), sampled)


def _event_dim(shape: tuple[int, ...], plate_dims: Mapping[int, str], plates: Mapping[str, int], declared: int) -> int:
    """How many of a deterministic site's axes are not its plates'.

    ``pyro.deterministic`` calls all of them event axes unless told otherwise. Where the site stands in plates, the split
    is the first at which the axes have the plates' sizes.
    """
    for event_dim in range(declared + 1):
        batch = len(shape) - event_dim
        if all(batch + dim >= 0 and shape[batch + dim] == plates[plate] for dim, plate in plate_dims.items()):
            return event_dim if plate_dims else declared
    return declared


def _as_counts(array: np.ndarray, site: Site) -> np.ndarray:
    """Whole numbers as integers: Pyro draws them as floats, and ArviZ tells counts from measurements by their type."""
    discrete = bool(getattr(site.support, "is_discrete", False))
    if array.dtype.kind in "bui" or (discrete and np.array_equal(array, np.round(array))):
        return array.astype(np.int64)
    return array


def _constants(posterior: Posterior, left_out: list[str]) -> dict[str, Variable]:
    observed = [_dense(value) for value in posterior.observed.values() if not _is_large_and_sparse(value)]
    plates = posterior.table.plates
    found = {}
    for name, value in posterior.named_arguments().items():
        if isinstance(value, bool) or not (_is_array(value) or isinstance(value, int | float)):
            continue
        if _is_large_and_sparse(value):
            if not any(value is other for other in posterior.observed.values()):
                left_out.append(f"{name} {tuple(value.shape)}")
            continue
        array = _dense(value)
        if any(array.shape == other.shape and np.array_equal(array, other, equal_nan=True) for other in observed):
            continue
        owners = [plate for plate, size in plates.items() if array.ndim and array.shape[0] == size]
        dims = [f"{name}_dim_{axis}" for axis in range(array.ndim)]
        found[name] = Variable(array, (*owners, *dims[1:]) if len(owners) == 1 else tuple(dims))
    return found


def _check_size(posterior: Posterior, num_draws: int, kinds: tuple[Kind, ...], times: int = 1) -> None:
    """
    Args:
        times: how many draws each is chosen from.

    Raises:
        UsageError: the draws of the sites of these kinds would hold more than 4 GB.
    """
    sizes = {site.name: math.prod(site.batch_shape + site.event_shape) for site in posterior.table.of_kind(*kinds)}
    total = times * sum(sizes.values())
    if num_draws * total > _MOST_NUMBERS:
        largest = max(sizes, key=lambda name: sizes[name])
        raise UsageError(
            f"num_draws={num_draws}: each draw{f', chosen from {times},' if times > 1 else ''} holds {total:,} numbers, "
            f"{times * sizes[largest]:,} of them at site {largest!r}; "
            f"ArviZ keeps all draws in memory, so ask for at most {_MOST_NUMBERS // total:,}."
        )


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray | np.generic) or hasattr(value, "detach")


def _is_large_and_sparse(value: Any) -> bool:
    return str(getattr(value, "layout", "torch.strided")) != "torch.strided" and math.prod(value.shape) > _MOST_DENSE


def _dense(value: Any) -> np.ndarray:
    """A torch tensor, strided or sparse and on any device, or a number as a NumPy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().to_dense()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # NumPy has no such type
    return np.asarray(value)
