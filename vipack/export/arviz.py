"""A posterior as ArviZ's InferenceData (0.x) or xarray's DataTree (ArviZ 1.x): NumPy in, torch never imported."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vipack.entry import entry
from vipack.errors import DataWarning, UsageError, warn
from vipack.export.groups import (
    add_observed,
    as_counts,
    constants,
    dense,
    is_large_and_sparse,
    of_site,
    plates_of,
    same,
)
from vipack.export.labels import Axis, Groups, Labels, agreed, label, rename
from vipack.export.variables import SAMPLE_DIMS, Variable, renamed, without_clashes
from vipack.version import __version__

if TYPE_CHECKING:
    from vipack.posterior import Draws, Posterior
    from vipack.posterior.answers import Used
    from vipack.program import Site
    from vipack.program.sites.sites import Kind

__all__ = ["NewData", "inference_data", "to_arviz"]

_MOST_NUMBERS = 1_000_000_000  # in one group; 4 GB in float32
_FROM_PRIOR = {"draws": "draws of the prior", "resampled": 0}


@dataclass(frozen=True)
class NewData:
    """Predictions for new data.

    Attributes:
        arguments: of the call, by name.
        draws: of every site that the call has: ``site -> (S, *site shape)``.
        used: which draws of the latents they are from.
        axes: of the arguments that came from pandas.
    """

    arguments: Mapping[str, Any]
    draws: Mapping[str, Any]
    used: Used
    axes: Mapping[str, tuple[Axis, ...]]


@entry
def to_arviz(
    posterior: Posterior,
    num_draws: int,
    *,
    seed: int = 0,
    resample: bool | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Sequence[str | None]] | None = None,
    axes: Mapping[str, tuple[Axis, ...]] | None = None,
    new: NewData | None = None,
    prior: int = 0,
) -> Any:
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
    - ``predictions`` and ``predictions_constant_data``, with `new`: every site that the call on new data has, and that
      call's arguments.
    - ``prior`` and ``prior_predictive``, with `prior`: latent and deterministic sites, and the observed ones, drawn from
      the model alone.

    Dimensions are named by the model's plates, others ``site_dim_0``, ``site_dim_1``, ...; batch dimensions of size one
    that no plate owns are dropped, so that scalars are scalars. Names that would clash are changed as
    :func:`~vipack.export.variables.without_clashes` says. Sparse arrays are made dense where that is small (10 million
    numbers) and are otherwise named in the attribute ``left_out``; where an observed one is, nothing is predicted.

    Args:
        resample: which draws; None follows the verdict of the last diagnosis.
        coords: dimension -> labels, as of ArviZ.
        dims: variable -> names of its dimensions, without chain and draw, or of those that no plate names; None leaves
            one as it is.
        axes: argument -> its axes, where it came from pandas. Their labels go to the dimension that is the argument's,
            and so to every variable that has it; their names to dimensions that no plate names.
        prior: how many draws of the prior; 0 for none.

    Raises:
        UsageError: so many draws of so large a model would not fit in memory; or `coords` or `dims` name what is not
            there, or are of another length.
        ModelError: `prior` is asked for, and cannot be drawn from.

    Warns:
        DataWarning: a variable or dimension has another name than in the model, since the two would clash.
    """
    from vipack.posterior.answers import POOL, answer, predictions, used

    predict = not any(is_large_and_sparse(value) for value in posterior.observed.values())
    kinds: tuple[Kind, ...] = ("latent", "enumerated", "deterministic")
    if used(posterior, resample).resampled:
        _check_size(posterior, num_draws, kinds, POOL)
    _check_size(posterior, num_draws, (*kinds, "observed") if predict else kinds)
    _check_size(posterior, prior, (*kinds, "observed"))
    draws, which = answer(posterior, num_draws, seed=seed, resample=resample)
    predictive: Mapping[str, Any] = {}
    if predict:
        predictive, _, _ = predictions(posterior, num_draws, seed=seed, resample=which.resampled, drawn=draws)
    masks = {name: np.asarray(mask.cpu()) for name, mask in posterior.observed_masks.items()}
    left_out: list[str] = []
    groups = _groups_of(posterior, draws, predictive, masks, axes or {}, left_out)
    if prior:
        _add_prior(groups, posterior, prior, seed, masks)
    if new is not None:
        _add_predictions(groups, posterior, new, left_out)
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
    own = {} if new is None else {"draws": str(new.used), "resampled": int(new.used.resampled)}
    groups = rename(groups, _names_of_observed(groups, posterior, axes or {}))
    groups = rename(groups, dims)
    groups = label(groups, coords, _labels(groups, posterior, axes or {}, new))
    apart = {"prior": _FROM_PRIOR, "prior_predictive": _FROM_PRIOR, "predictions": own}
    return inference_data(groups, attributes, apart)


def _groups_of(
    posterior: Posterior,
    draws: Draws,
    predictive: Mapping[str, Any],
    masks: Mapping[str, Any],
    axes: Mapping[str, tuple[Axis, ...]],
    left_out: list[str],
) -> Groups:
    """The groups of the fit's own data; `left_out` gets what is sparse and too large."""
    plates, sites = posterior.table.plates, {site.name: site for site in posterior.table}
    likelihood = posterior.log_likelihood(draws.latents)
    names = ("posterior", "posterior_predictive", "log_likelihood", "sample_stats", "observed_data")
    groups: Groups = {name: {} for name in names}
    for name, values in draws.sites.items():
        groups["posterior"][name] = of_site(_counted(values, sites[name]), sites[name], plates, sampled=True)
    for name, values in posterior.observed.items():
        if is_large_and_sparse(values):
            left_out.append(f"{name} {tuple(values.shape)}")
        else:
            add_observed(groups["observed_data"], dense(values), sites[name], plates, masks)
        if name in predictive:
            array = dense(predictive[name])
            add_observed(groups["posterior_predictive"], array, sites[name], plates, masks, sampled=True)
        if name in likelihood:
            array = dense(likelihood[name])
            add_observed(groups["log_likelihood"], array, sites[name], plates, masks, sampled=True, event_dim=0)
    stats = {"lp": draws.log_joint, "log_q": draws.log_q, "log_weight": draws.log_weights}
    groups["sample_stats"] = {name: Variable(dense(values)[None], sampled=True) for name, values in stats.items()}
    groups["constant_data"] = constants(posterior.named_arguments(), posterior.observed, plates, axes, left_out)
    return groups


def _add_prior(groups: Groups, posterior: Posterior, num_draws: int, seed: int, masks: Mapping[str, Any]) -> None:
    from vipack.posterior.prior import prior_draws

    latents, observed = prior_draws(posterior, num_draws, seed=seed)
    plates, sites = posterior.table.plates, {site.name: site for site in posterior.table}
    groups["prior"] = {
        name: of_site(_counted(values, sites[name]), sites[name], plates, sampled=True)
        for name, values in latents.items()
        if name in sites
    }
    groups["prior_predictive"] = {}
    for name, values in observed.items():
        if name in sites:
            array = dense(values)
            add_observed(groups["prior_predictive"], array, sites[name], plates, masks, sampled=True)


def _add_predictions(groups: Groups, posterior: Posterior, new: NewData, left_out: list[str]) -> None:
    sites = {site.name: site for site in posterior.table}
    arrays = {name: dense(values) for name, values in new.draws.items()}
    plates = plates_of(posterior.table.plates, sites, arrays)
    groups["predictions"] = {}
    for name, array in arrays.items():
        if name in sites:
            groups["predictions"][name] = of_site(as_counts(array, sites[name]), sites[name], plates, sampled=True)
        else:  # a site that only this call has
            dims = tuple(f"{name}_dim_{i}" for i in range(array.ndim - 1))
            groups["predictions"][name] = Variable(array[None], dims, sampled=True)
    known = {name for name, value in posterior.named_arguments().items() if _observed_as(posterior, value)}
    arguments = {name: value for name, value in new.arguments.items() if name not in known}
    groups["predictions_constant_data"] = constants(arguments, {}, plates, new.axes, left_out)


def _counted(values: Any, site: Site) -> np.ndarray:
    return as_counts(dense(values), site) if site.kind == "enumerated" else dense(values)


def _observed_as(posterior: Posterior, value: Any) -> str | None:
    """The observed site whose values are an argument."""
    for name, other in posterior.observed.items():
        small = hasattr(value, "detach") and not is_large_and_sparse(value) and not is_large_and_sparse(other)
        if value is other or (small and same(dense(value), dense(other))):
            return name
    return None


def _names_of_observed(
    groups: Groups, posterior: Posterior, axes: Mapping[str, tuple[Axis, ...]]
) -> dict[str, list[str | None]]:
    """Names that pandas gives to dimensions of observed sites that no plate names."""
    renamings = {}
    for name, own in axes.items():
        site = _observed_as(posterior, posterior.named_arguments().get(name))
        variable = groups["observed_data"].get(site or "")
        if site is None or variable is None or variable.subset is not None or len(variable.dims) != len(own):
            continue
        used = {*SAMPLE_DIMS, *posterior.table.plates}
        names: list[str | None] = []
        for dim, axis in zip(variable.dims, own, strict=True):
            unnamed = dim.startswith(f"{site}_dim_") and axis.name not in {*used, *names}
            names.append(axis.name if unnamed else None)
        renamings[site] = names
    return renamings


def _labels(
    groups: Groups, posterior: Posterior, axes: Mapping[str, tuple[Axis, ...]], new: NewData | None
) -> dict[str, Labels]:
    """Group -> dimension -> the labels that pandas gives it."""
    arguments = posterior.named_arguments()
    own = []
    for name, indexes in axes.items():
        site = _observed_as(posterior, arguments.get(name))
        group = groups["constant_data"] if site is None else groups["observed_data"]
        variable = group.get(name if site is None else site)
        if variable is not None and len(variable.dims) == len(indexes):
            dims = variable.dims
            if variable.subset is not None:
                dims = (variable.subset.dim or dims[0], *dims[1:])
            own += [(dim, axis.labels) for dim, axis in zip(dims, indexes, strict=True) if axis.labels is not None]
    labels = agreed(own)
    by_group: dict[str, Labels] = dict.fromkeys(groups, labels)
    if new is not None:
        told = []
        given = groups["predictions_constant_data"]
        for name, indexes in new.axes.items():
            if name in given and len(given[name].dims) == len(indexes):
                dims = given[name].dims
                told += [(dim, axis.labels) for dim, axis in zip(dims, indexes, strict=True) if axis.labels is not None]
        theirs = {dim for variable in given.values() for dim in variable.dims}
        others = {dim: values for dim, values in labels.items() if dim not in theirs}
        for name in ("predictions", "predictions_constant_data"):
            by_group[name] = {**others, **agreed(told)}
    return by_group


def inference_data(
    groups: Mapping[str, Mapping[str, Variable]],
    attributes: Mapping[str, Any],
    apart: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """The container of whichever ArviZ is installed, for named groups of named arrays; empty groups are left out.

    Args:
        attributes: of the whole and of each group.
        apart: group -> attributes that are its own.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # ArviZ 0.23 announces 1.x at import
        import arviz
    datasets = _datasets(groups, attributes, apart or {})
    if arviz.__version__.startswith("0."):
        return arviz.InferenceData(attrs=dict(attributes), **datasets)
    return data_tree(datasets, attributes)


def data_tree(datasets: Mapping[str, Any], attributes: Mapping[str, Any]) -> Any:
    """The container of ArviZ 1.x."""
    import xarray

    tree = xarray.DataTree.from_dict(dict(datasets))
    tree.attrs = dict(attributes)
    return tree


def _datasets(
    groups: Mapping[str, Mapping[str, Variable]],
    attributes: Mapping[str, Any],
    apart: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    import xarray

    datasets = {}
    kept = {name: group for name, group in groups.items() if group}
    distinct = without_clashes(kept)
    changes = renamed(kept, distinct)
    if changes:
        listed = ", ".join(f"{what} is {new!r} here" for what, new in changes.items())
        warn(
            DataWarning(
                f"to_arviz: {listed}, since one name can stand for one thing only; give the plate, or the site or argument "
                "of its name, another name in the model to choose for yourself."
            )
        )
    for group, variables in distinct.items():
        arrays, labels = {}, {}
        for name, variable in variables.items():
            lead = SAMPLE_DIMS if variable.sampled else ()
            arrays[name] = (lead + variable.dims, variable.values)
            labels.update({dim: np.arange(size) for dim, size in variable.sizes.items()} | dict(variable.labels))
            labels.update(zip(lead, map(np.arange, variable.values.shape), strict=False))
        datasets[group] = xarray.Dataset(arrays, coords=labels, attrs={**attributes, **apart.get(group, {})})
    return datasets


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
