"""What data and densities say against a program: a forgotten ``obs=``, data outside a support, NaN and infinity."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor
from torch import Tensor
from torch.distributions import Distribution, constraints

from vipack.compat.pytorch import validation_refused
from vipack.compat.supports import support_of
from vipack.errors import DataError, DtypeError, NonFiniteError, SiteError, SupportError, VipackError
from vipack.program.densities.masking import counting, unmasked
from vipack.program.densities.observed_cures import cure_of, elementwise
from vipack.program.running.runs import Arguments, explanation
from vipack.program.sites.agreement import expanded_as, support_name
from vipack.program.sites.sites import SiteTable, base_distribution, is_deterministic, sample_nodes

__all__ = [
    "EXPLAIN",
    "count_non_finite",
    "forgotten_obs",
    "nan_under_masks",
    "non_finite_densities",
    "outside_support",
    "same_values",
    "unvalidated",
]


EXPLAIN = (
    "explain"  # in a site's ``infer``: a function of observed values that says what is wrong with them, or nothing
)


@contextlib.contextmanager
def unvalidated() -> Iterator[None]:
    """Distributions raise nothing inside the block, so that what is wrong can be looked at and named."""
    with pyro.validation_enabled(False):
        # 0 rather than False: it differs from a user's validate_args=False, as for a Bernoulli of grey levels.
        Distribution.set_default_validate_args(0)  # type: ignore[arg-type]
        yield


def forgotten_obs(
    table: SiteTable, model_trace: Trace, arrays: Mapping[str, Any], left_out: set[str], *, automatic: bool
) -> Iterator[VipackError]:
    """A forgotten ``obs=``: nothing observed at all, or a latent that bears an argument's name.

    A guide that its user wrote says by a statement that a site is a latent, as of labels that only some batches have.

    Args:
        arrays: the arrays of the data by the model's names for them.
        left_out: the model's arguments that were not passed.
        automatic: whether the guide has whatever latents the model has.
    """
    latent = {site.name: site for site in table.of_kind("latent", "enumerated")}
    used = [model_trace.nodes[site.name]["value"] for site in table.of_kind("observed")]
    meant = set() if automatic else {site.name for site in latent.values() if site.in_guide}
    for name, array in arrays.items():
        if (
            name in latent
            and name not in meant
            and isinstance(array, Tensor)
            and not any(_is_or_equals(array, value) for value in used)
        ):
            yield SiteError(
                f"site {name!r} is a latent, though data has an argument of that name; "
                f"did you forget obs={name} in pyro.sample({name!r}, ...)?"
            )
            return
    if table.of_kind("observed", "factor"):
        return
    nothing = "no site of the model is observed"
    for name in latent:
        if name in left_out:
            yield SiteError(
                f"{nothing}: site {name!r} has the name of the model's argument {name!r}, which was not given; "
                f"pass {name} in data."
            )
            return
    shapes = {tuple(value.shape): key for key, value in arrays.items() if isinstance(value, Tensor)}
    for site in latent.values():
        key = shapes.get(site.batch_shape + site.event_shape)
        if key is not None:
            yield SiteError(
                f"{nothing}, and latent site {site.name!r} has the shape of argument {key!r}; did you forget "
                f"obs={key} in pyro.sample({site.name!r}, ...)?"
            )
            return
    yield SiteError(
        f"{nothing} (its sites: {', '.join(s.name for s in table) or 'none'}), so the data "
        "cannot change the posterior; pass obs= to the pyro.sample statement of the data."
    )


def outside_support(model_trace: Trace, arrays: Mapping[str, Any]) -> Iterator[VipackError]:
    """Observed values that their distribution cannot give; to be traced inside :func:`unvalidated`."""
    for name, node in sample_nodes(model_trace).items():
        if not node["is_observed"] or site_is_factor(node):
            continue
        value = node["value"]
        explain = node["infer"].get(EXPLAIN)
        if explain is not None and (problem := explain(value)):
            yield SupportError(f"site {name!r}: {problem}")
            return
        support = support_of(node["fn"])
        if support is None or is_deterministic(node) or _validation_refused(node["fn"]):
            continue
        inside, counted = support.check(value), counting(node)
        if counted is not None:
            inside = inside | ~counted
        if bool(inside.all()):
            continue
        each, index = elementwise(support), None
        if value.layout != torch.strided:
            matrix, value, counted = value.to_sparse_csr(), value.values(), None
            inside = each.check(value)
            index = _index_in(matrix, int((~inside).nonzero()[0]))
        if inside.dim() + support.event_dim == value.dim():
            value = value.expand(inside.shape + value.shape[value.dim() - support.event_dim :])
        outside = ~expanded_as(inside, value)
        if each.event_dim == 0:  # of a row that is outside, the elements that are
            outside = outside & ~each.check(value)
        all_counted = value if counted is None else value[expanded_as(counted.expand(inside.shape), value)]
        what = f"observed site {name!r}"
        if not bool(torch.isfinite(value[outside]).all()):
            if counted is not None:
                what += f" ({int((~inside).sum())} of its {inside.numel()} element(s) under no mask)"
            yield _non_finite_data(arrays, what, _MASK)
            return
        yield SupportError(
            f"site {name!r}: {_which(value, outside, index)} outside the support {support_name(each)} of "
            f"{type(base_distribution(node['fn'])).__name__}; {cure_of(each, all_counted)}."
        )
        return


def _which(value: Tensor, outside: Tensor, index: list[int] | None) -> str:
    """The first few elements that are outside, how many there are, and where the first one stands.

    Args:
        index: where that is, if not its position in `value`.
    """
    values = value[outside]
    shown = ", ".join(f"{number:g}" for number in list(dict.fromkeys(values[:1_000].tolist()))[:3])
    where = f", the first at index {index or outside.nonzero()[0].tolist()}" if value.dim() else ""
    return f"observed value(s) [{shown}] ({len(values)} of {value.numel()}{where}) are"


def _index_in(matrix: Tensor, entry: int) -> list[int]:
    """The row and the column of a stored value of a CSR tensor."""
    row = int(torch.searchsorted(matrix.crow_indices(), entry, right=True)) - 1
    return [row, int(matrix.col_indices()[entry])]


def nan_under_masks(model_trace: Trace, arrays: Mapping[str, Any]) -> Iterator[VipackError]:
    """Observed sites with a density that a mask leaves out, and that is NaN all the same: so is its gradient."""
    for name, node in model_trace.nodes.items():
        counted = counting(node) if node["type"] == "sample" and node["is_observed"] else None
        if counted is None or is_deterministic(node) or site_is_factor(node):
            continue
        bad = unmasked(node["fn"]).log_prob(node["value"]).isnan() & ~counted
        if bool(bad.any()):
            what = (
                f"observed site {name!r} through its distribution: log_prob is NaN at {int(bad.sum())} element(s) that a "
                "mask leaves out, and so is the gradient, since 0 * NaN is NaN"
            )
            if any(count_non_finite(array) for array in arrays.values()):
                yield _non_finite_data(arrays, what, "fill them with any finite value; the mask leaves it out")
            else:
                yield NonFiniteError(f"{what}; compute the distribution of these elements from finite numbers.")
            return


def non_finite_densities(
    model_trace: Trace,
    guide_trace: Trace,
    arrays: Mapping[str, Any],
    arguments: Arguments,
    cure: str = "start elsewhere (init_loc_fn of an automatic guide) or look at its parameters",
) -> Iterator[VipackError]:
    """The first site whose draw or density is NaN or infinite, with its likely cause; or `cure` where none is seen."""
    for where, trace in (("guide", guide_trace), ("model", model_trace)):
        for name, node in sample_nodes(trace).items():
            try:
                log_prob = node["fn"].log_prob(node["value"], *node["args"], **node["kwargs"])
            except Exception as error:
                yield _integer_data(name, node, error) or explanation(
                    where, error, arguments, f"in the log_prob of site {name!r}"
                )
                return
            if node["mask"] is not None:
                log_prob = torch.where(torch.as_tensor(node["mask"]), log_prob, torch.zeros_like(log_prob))
            drawn = not node["is_observed"] and isinstance(node["value"], Tensor)
            if drawn and not bool(torch.isfinite(node["value"].float()).all()):
                what = f"{where} site {name!r}: the first draw has a non-finite value"
            elif not bool(torch.isfinite(log_prob).all()):
                bad = ~torch.isfinite(log_prob)
                what = (
                    f"{where} site {name!r}: log_prob is {log_prob[bad].flatten()[0].item()} at {int(bad.sum())} of "
                    f"{log_prob.numel()} element(s)"
                )
            else:
                continue
            yield _cause(node["fn"], what, arrays) or NonFiniteError(f"{what}; {cure}.")
            return


def count_non_finite(array: Any) -> int:
    """How many NaN and infinite values an argument has; 0 for what is no floating-point tensor."""
    if not isinstance(array, Tensor) or not array.is_floating_point():
        return 0
    values = array if array.layout == torch.strided else array.values()
    return int((~torch.isfinite(values)).sum())


def _integer_data(name: str, node: Mapping[str, Any], error: Exception) -> DtypeError | None:
    value = node["value"]
    if not node["is_observed"] or value.is_floating_point():
        return None
    return DtypeError(
        f"site {name!r}: {type(base_distribution(node['fn'])).__name__}.log_prob does not take the observed values as "
        f"{value.dtype} ({error}); pass them as floats, as with .float() or .astype(float)."
    )


def _cause(fn: Any, what: str, arrays: Mapping[str, Any]) -> VipackError | None:
    if any(count_non_finite(array) for array in arrays.values()):
        return _non_finite_data(arrays, what)
    base = base_distribution(fn)
    for parameter, constraint in getattr(base, "arg_constraints", {}).items():
        value = getattr(base, parameter, None)
        if not isinstance(value, Tensor) or constraints.is_dependent(constraint):
            continue
        inside = constraint.check(value)
        if not bool(inside.all()):
            bad = value.detach()[~expanded_as(inside, value)].flatten()[:3].tolist()
            return NonFiniteError(
                f"{what}: its {parameter} is {bad}, which is not {support_name(constraint)}; constrain it, as with "
                "constraint= in pyro.param or softplus of a network's output."
            )
    return None


_MASK = "remove or impute them, or leave them out with a mask, as in obs_mask=y.isfinite()"


def _non_finite_data(
    arrays: Mapping[str, Any],
    what: str,
    cure: str = "remove or impute them, or fill them with a finite value and leave their observations out with obs_mask=",
) -> VipackError:
    for key, array in arrays.items():
        count = count_non_finite(array)
        if count:
            return DataError(f"argument {key!r} has {count} NaN or infinite value(s), which reach {what}; {cure}.")
    return DataError(f"{what} has NaN or infinite values; {cure}.")


def same_values(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors, dense or CSR, hold the same numbers; NaN, as for what is missing, is the same as NaN."""
    if one.shape != two.shape:
        return False
    if one.layout == two.layout == torch.sparse_csr:
        arrays = [(each.crow_indices(), each.col_indices(), each.values()) for each in (one, two)]
        return all(same_values(a, b) for a, b in zip(*arrays, strict=True))
    one, two = one.to_dense(), two.to_dense()
    return bool(((one == two) | (one != one) & (two != two)).all())


def _is_or_equals(array: Tensor, value: Any) -> bool:
    if not isinstance(value, Tensor) or array.layout != value.layout:
        return False
    return array is value or (array.layout == torch.strided and same_values(array, value))


def _validation_refused(fn: Any) -> bool:
    """Whether the user wrote ``validate_args=False``."""
    while fn is not None:
        if validation_refused(fn):
            return True
        fn = fn.__dict__.get("base_dist")
    return False
