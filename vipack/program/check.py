"""The preflight: what is wrong with a model, a guide and their data, found before training and said with a cure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor, site_is_subsample
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions import TransformedDistribution, constraints, transform_to

from vipack.errors import (
    DataError,
    NonFiniteError,
    PlateError,
    ProgramWarning,
    ShapeError,
    SiteError,
    SupportError,
    VipackError,
    VipackWarning,
)
from vipack.program.program import Program
from vipack.program.randomness import seeded
from vipack.program.runs import Arguments, explained
from vipack.program.sites import SiteTable, read_sites

__all__ = ["Check", "check_program"]


@dataclass(frozen=True)
class Check:
    """What was read of a program and what is wrong with it; ``str(check)`` is the shape table.

    Attributes:
        table: the sites, or None when the program could not be run.
        parameters: name -> shape of each unconstrained parameter.
        errors: what would stop or spoil training, worst first.
        warnings: what may be a mistake.
    """

    table: SiteTable | None
    parameters: dict[str, tuple[int, ...]]
    errors: tuple[VipackError, ...]
    warnings: tuple[VipackWarning, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing would stop or spoil training."""
        return not self.errors

    def raise_if_bad(self) -> None:
        """Raise the first error found; the others are added to its notes."""
        if self.errors:
            first, *rest = self.errors
            for other in rest:
                first.add_note(f"also: {other}")
            raise first

    def __str__(self) -> str:
        lines = [str(self.table)] if self.table is not None else []
        if self.parameters:
            shapes = ", ".join(f"{name} {shape}" for name, shape in self.parameters.items())
            lines.append(f"parameters: {shapes}")
        lines += [f"error: {error}" for error in self.errors]
        lines += [f"warning: {warning}" for warning in self.warnings]
        lines.append("ok" if self.ok else f"{len(self.errors)} error(s)")
        return "\n".join(lines)


def check_program(
    program: Program, arguments: Arguments, leaves: Mapping[str, Any], *, enumerates: bool = False, seed: int = 0
) -> Check:
    """Run model and guide once on `arguments` and look at every site.

    Args:
        program: initialised, and with its batch plate if `arguments` are a minibatch.
        leaves: name -> value of each part of the data, for messages.
        enumerates: whether the loss sums out discrete latents (TraceEnum_ELBO).
    """
    errors: list[VipackError] = []
    warnings: list[VipackWarning] = []
    table = None
    try:
        with seeded(seed), program.bound(arguments), pyro.validation_enabled(False):
            with explained("model or guide", arguments):
                guide_trace, model_trace = program.traces(arguments)
            table = read_sites(model_trace, guide_trace)
            errors += _guide_sites(table, guide_trace, enumerates)
            errors += _observations(table, leaves)
            errors += _latent_shapes(table, model_trace, guide_trace)
            errors += _plates(table, program, guide_trace)
            errors += _supports(table, model_trace, guide_trace)
            errors += _parameters(program)
            if not errors:
                errors += _densities(model_trace, guide_trace, leaves, arguments)
            if not errors:
                warnings += _unregistered(program, model_trace, guide_trace)
                warnings += _precision(program, model_trace)
    except VipackError as error:
        errors.append(error)
    shapes = {name: tuple(value.shape) for name, value in program.parameters.unconstrained.items()}
    return Check(table, shapes, tuple(errors), tuple(warnings))


def _guide_sites(table: SiteTable, guide_trace: Trace, enumerates: bool) -> Iterator[VipackError]:
    names = {site.name: site for site in table}
    for name, node in guide_trace.nodes.items():
        if node["type"] != "sample" or site_is_subsample(node) or node["infer"].get("is_auxiliary"):
            continue
        site = names.get(name)
        if site is None and not node["is_observed"]:
            yield SiteError(
                f"guide site {name!r} is not in the model, whose latents are {_names(table, 'latent')}; rename it, "
                "remove it, or mark it infer={'is_auxiliary': True} if it is only an auxiliary variable of the guide."
            )
        elif site is not None and site.kind == "observed":
            yield SiteError(
                f"guide site {name!r} is observed in the model; the guide must draw latents only, so remove it there."
            )
    for site in table.of_kind("latent"):
        if site.in_guide:
            continue
        cure = "add a pyro.sample statement of that name to the guide"
        if site.support is not None and site.support.is_discrete:
            cure += (
                ", or sum it out: mark the model with pyro.infer.config_enumerate and pass loss=TraceEnum_ELBO() "
                "(and hide it from an automatic guide)"
            )
        yield SiteError(
            f"latent site {site.name!r} ({site.distribution}) of the model is missing in the guide; {cure}."
        )
    for site in table.of_kind("enumerated"):
        if not enumerates:
            yield SiteError(
                f"discrete latent site {site.name!r} is marked for enumeration, which the loss does not do; "
                "pass loss=pyro.infer.TraceEnum_ELBO()."
            )


def _observations(table: SiteTable, leaves: Mapping[str, Any]) -> Iterator[VipackError]:
    """A forgotten ``obs=``: nothing observed at all, or a latent that bears an argument's name."""
    latent = {site.name: site for site in table.of_kind("latent", "enumerated")}
    for name in leaves:
        if name in latent and isinstance(leaves[name], Tensor):
            yield SiteError(
                f"site {name!r} is a latent, though data has an argument of that name; "
                f"did you forget obs={name} in pyro.sample({name!r}, ...)?"
            )
            return
    if not table.of_kind("observed", "factor"):
        shapes = {tuple(value.shape): key for key, value in leaves.items() if isinstance(value, Tensor)}
        for site in latent.values():
            key = shapes.get(site.batch_shape + site.event_shape)
            if key is not None:
                yield SiteError(
                    f"no site of the model is observed, and latent site {site.name!r} has the shape of argument "
                    f"{key!r}; did you forget obs={key} in pyro.sample({site.name!r}, ...)?"
                )
                return
        yield SiteError(
            f"no site of the model is observed (its sites: {', '.join(s.name for s in table) or 'none'}), so the data "
            "cannot change the posterior; pass obs= to the pyro.sample statement of the data."
        )


def _latent_shapes(table: SiteTable, model_trace: Trace, guide_trace: Trace) -> Iterator[VipackError]:
    for site in table.of_kind("latent"):
        if not site.in_guide:
            continue
        model_fn, guide_fn = model_trace.nodes[site.name]["fn"], guide_trace.nodes[site.name]["fn"]
        if not (hasattr(model_fn, "event_dim") and hasattr(guide_fn, "event_dim")):
            continue
        if model_fn.event_dim != guide_fn.event_dim:
            extra = abs(model_fn.event_dim - guide_fn.event_dim)
            where = "guide" if model_fn.event_dim > guide_fn.event_dim else "model"
            yield ShapeError(
                f"site {site.name!r}: event_dim is {model_fn.event_dim} in the model and {guide_fn.event_dim} in the "
                f"guide; add .to_event({extra}) in the {where}, or stand it in the same plates."
            )
        elif not _same_shape(tuple(model_fn.shape()), tuple(guide_fn.shape())):
            yield ShapeError(
                f"site {site.name!r}: shape is {tuple(model_fn.shape())} in the model and {tuple(guide_fn.shape())} in "
                "the guide; give the guide's distribution parameters of the model's shape."
            )
    for where, trace in (("model", model_trace), ("guide", guide_trace)):
        for name, node in trace.nodes.items():
            if node["type"] == "sample" and not site_is_subsample(node):
                yield from _declared(where, name, node)


def _declared(where: str, name: str, node: dict[str, Any]) -> Iterator[VipackError]:
    """Every batch dimension must be a plate's."""
    fn = node["fn"]
    if node["infer"].get("_deterministic") or not hasattr(fn, "batch_shape"):
        return
    shape = tuple(fn.batch_shape)
    if not site_is_factor(node):
        try:
            value_shape = tuple(node["value"].shape)
            shape = tuple(torch.broadcast_shapes(shape, value_shape[: len(value_shape) - fn.event_dim]))
        except RuntimeError:
            yield ShapeError(
                f"{where} site {name!r}: the value has shape {tuple(node['value'].shape)}, its distribution "
                f"{tuple(fn.shape())}; make them broadcast."
            )
            return
    try:
        check_site_shape({**node, "log_prob": torch.empty(shape)}, max_plate_nesting=float("inf"))
    except ValueError:
        sizes = {frame.name: (frame.dim, frame.size) for frame in node["cond_indep_stack"] if frame.vectorized}
        expected = [1] * max([0, *(-dim for dim, _ in sizes.values())])
        for dim, size in sizes.values():
            expected[dim] = size
        plates = ", ".join(f"{plate}: size {size} at dim {dim}" for plate, (dim, size) in sizes.items()) or "none"
        yield ShapeError(
            f"{where} site {name!r}: its batch shape is {shape}, but its plates ({plates}) declare {tuple(expected)}; "
            f"declare the extra dimension with .to_event({max(1, len(shape) - len(expected))}) or a plate, and check "
            "that nothing broadcasts by accident, as (N,) against (N, 1)."
        )


def _plates(table: SiteTable, program: Program, guide_trace: Trace) -> Iterator[VipackError]:
    """A latent in a plate of the model must stand in it in the guide too, else log q is not scaled with log p."""
    if not program.batch_plate:
        return
    for site in table.of_kind("latent"):
        if site.in_guide and program.batch_plate.name in site.plates:
            frames = {frame.name for frame in guide_trace.nodes[site.name]["cond_indep_stack"]}
            if program.batch_plate.name not in frames:
                yield PlateError(
                    f"site {site.name!r} stands in plate {program.batch_plate.name!r} in the model but not in the "
                    f"guide, so a minibatch would scale log p and not log q; open the same plate in the guide."
                )


def _supports(table: SiteTable, model_trace: Trace, guide_trace: Trace) -> Iterator[VipackError]:
    for site in table.of_kind("latent"):
        if not site.in_guide or site.support is None:
            continue
        fn = guide_trace.nodes[site.name]["fn"]
        support = model_trace.nodes[site.name]["fn"].support
        points = [guide_trace.nodes[site.name]["value"], *_points_of(fn, model_trace.nodes[site.name]["value"])]
        for point in points:
            inside = support.check(point)
            if not bool(inside.all()):
                yield SupportError(
                    f"site {site.name!r}: the guide's {type(_base(fn)).__name__} reaches outside the model's support "
                    f"{_support_name(support)} (as at {point[~_expanded(inside, point)].flatten()[:1].tolist()}); use a "
                    "distribution on that support, such as a TransformedDistribution through biject_to(support)."
                )
                break


def _points_of(fn: Any, value: Tensor) -> Iterator[Tensor]:
    """Points all over the support of a guide's distribution."""
    base = _base(fn)
    # The support that a TransformedDistribution states may be too wide: torch takes an affine map's range to be R.
    transforms = base.transforms if isinstance(base, TransformedDistribution) else []
    start = base.base_dist if transforms else fn
    if getattr(start, "support", None) is None or type(base).__name__ == "Delta" or start.support.is_discrete:
        return
    try:
        transform = transform_to(start.support)
        shape = transform.inverse_shape(start.shape() if transforms else value.shape)
    except NotImplementedError:
        return
    for size in (-3.0, 3.0):
        point = transform(torch.full(shape, size, dtype=value.dtype, device=value.device))
        for step in transforms:
            point = step(point)
        yield point


def _parameters(program: Program) -> Iterator[VipackError]:
    for name, value in program.parameters.unconstrained.items():
        if not bool(torch.isfinite(value).all()):
            yield NonFiniteError(
                f"parameter {name!r} starts as NaN or infinite; give it a finite initial value (for an automatic guide: "
                "init_loc_fn=pyro.infer.autoguide.init_to_median, where a prior has no mean)."
            )
            return


def _densities(
    model_trace: Trace, guide_trace: Trace, leaves: Mapping[str, Any], arguments: Arguments
) -> Iterator[VipackError]:
    for where, trace in (("guide", guide_trace), ("model", model_trace)):
        for name, node in trace.nodes.items():
            if node["type"] != "sample" or site_is_subsample(node):
                continue
            if not bool(torch.isfinite(torch.as_tensor(node["value"]).float()).all()) and not node["is_observed"]:
                yield NonFiniteError(
                    f"{where} site {name!r}: the first draw has a non-finite value; look at its distribution's parameters."
                )
                return
            try:
                with explained(where, arguments):
                    log_prob = node["fn"].log_prob(node["value"], *node["args"], **node["kwargs"])
            except VipackError as error:
                yield error
                return
            if node["mask"] is not None:
                log_prob = torch.where(torch.as_tensor(node["mask"]), log_prob, torch.zeros_like(log_prob))
            if bool(torch.isfinite(log_prob).all()):
                continue
            yield _explain_density(where, name, node, log_prob, leaves)
            return


def _explain_density(
    where: str, name: str, node: dict[str, Any], log_prob: Tensor, leaves: Mapping[str, Any]
) -> VipackError:
    bad = int((~torch.isfinite(log_prob)).sum())
    found = f"{where} site {name!r}: log_prob is {_first_bad(log_prob)} at {bad} of {log_prob.numel()} element(s)"
    for key, leaf in leaves.items():
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.layout == torch.strided:
            count = int((~torch.isfinite(leaf)).sum())
            if count:
                return DataError(
                    f"data argument {key!r} has {count} NaN or infinite value(s), which reach {found}; "
                    "remove or impute them, or mask them with obs_mask= and a finite filler."
                )
    fn = node["fn"]
    support = getattr(fn, "support", None)
    if node["is_observed"] and support is not None and not site_is_factor(node):
        inside = _expanded(support.check(node["value"]), node["value"])
        if not bool(inside.all()):
            values = node["value"][~inside].flatten()[:3].tolist()
            return SupportError(
                f"site {name!r}: observed value(s) {values} are outside the support {_support_name(support)} of "
                f"{type(_base(fn)).__name__}; mend the data or choose a distribution that allows them."
            )
    for parameter in getattr(_base(fn), "arg_constraints", {}):
        value = getattr(_base(fn), parameter, None)
        constraint = _base(fn).arg_constraints[parameter]
        if (
            isinstance(value, Tensor)
            and not constraints.is_dependent(constraint)
            and not bool(constraint.check(value).all())
        ):
            return NonFiniteError(
                f"{found}: its {parameter} is {value.detach().flatten()[:3].tolist()}, which is not "
                f"{_support_name(constraint)}; constrain it, as with constraint= in pyro.param or softplus of a network's output."
            )
    return NonFiniteError(f"{found}; start elsewhere (init_loc_fn of an automatic guide) or look at its parameters.")


def _unregistered(program: Program, model_trace: Trace, guide_trace: Trace) -> Iterator[VipackWarning]:
    """Tensors that require grad and reach the loss, but that no pyro.param or pyro.module has declared."""
    known = {id(value) for value in program.parameters.unconstrained.values()}
    terms = [trace.log_prob_sum() for trace in (model_trace, guide_trace)]
    found: dict[int, Tensor] = {}
    stack = [term.grad_fn for term in terms if isinstance(term, Tensor) and term.grad_fn is not None]
    seen = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            found[id(variable)] = variable
        stack += [parent for parent, _ in node.next_functions if parent is not None]
    if found:
        shapes = ", ".join(str(tuple(value.shape)) for value in found.values())
        yield ProgramWarning(
            f"{len(found)} tensor(s) that require grad reach the loss but are no parameters of the program (shapes "
            f"{shapes}), so they are never trained; declare them with pyro.param or pyro.module, or call "
            ".requires_grad_(False) on them."
        )


def _precision(program: Program, model_trace: Trace) -> Iterator[VipackWarning]:
    for name, node in model_trace.nodes.items():
        if (
            node["type"] == "sample"
            and node["is_observed"]
            and isinstance(node["fn"], torch.distributions.Distribution)
        ):
            found = node["fn"].log_prob(node["value"]).dtype
            if found.is_floating_point and found != program.parameters.dtype:
                yield ProgramWarning(
                    f"site {name!r}: log_prob is {found}, the fit runs in {program.parameters.dtype}; a constant of the "
                    "model has another type. Make it with the default dtype, or pass dtype= to the fit."
                )
                return


def _names(table: SiteTable, kind: Any) -> str:
    return ", ".join(repr(site.name) for site in table.of_kind(kind)) or "none"


def _same_shape(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    size = max(len(a), len(b))
    return (1,) * (size - len(a)) + a == (1,) * (size - len(b)) + b


def _expanded(inside: Tensor, value: Tensor) -> Tensor:
    """`inside`, which lacks the event dimensions of `value`, in the shape of `value`."""
    return inside.reshape(inside.shape + (1,) * (value.dim() - inside.dim())).expand(value.shape)


def _base(fn: Any) -> Any:
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    return fn


def _support_name(support: Any) -> str:
    return repr(support).removesuffix("()")


def _first_bad(log_prob: Tensor) -> float:
    return float(log_prob[~torch.isfinite(log_prob)].flatten()[0])
