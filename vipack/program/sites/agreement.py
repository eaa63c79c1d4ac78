"""Whether a model and its guide agree: the same sites, of the same shapes, on the same supports, in the same plates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions import ImproperUniform, RelaxedBernoulli, RelaxedOneHotCategorical
from pyro.infer.autoguide import AutoGuide
from pyro.infer.autoguide.effect import AutoHierarchicalNormalMessenger, AutoRegressiveMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions import TransformedDistribution, constraints, transform_to
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from vipack.compat.autoguides import hierarchical_sites, is_marked_deterministic
from vipack.compat.supports import is_discrete, support_of
from vipack.errors import GuideError, PlateError, ProgramWarning, ShapeError, SiteError, SupportError, VipackError
from vipack.program.sites.plates import BatchPlate
from vipack.program.sites.sites import SiteTable, base_distribution, is_latent, rounds_draws, sample_nodes

__all__ = [
    "check_discreteness",
    "check_prototype",
    "compare_plates",
    "compare_shapes",
    "compare_sites",
    "compare_supports",
    "rounded_draws",
]


def check_discreteness(prior: Trace, guide_trace: Trace) -> None:
    """To be called before the model is replayed: it may index with the draws of a discrete site.

    Raises:
        SupportError: a site is discrete in one of the two and continuous in the other.
    """
    for name, node in guide_trace.nodes.items():
        other = prior.nodes.get(name)
        if node["type"] != "sample" or other is None or other["type"] != "sample" or other["is_observed"]:
            continue
        discrete = [is_discrete(n["fn"]) for n in (other, node)]
        if None in discrete or discrete[0] == discrete[1] or rounds_draws(node["fn"]):
            continue
        kinds = ["discrete" if is_discrete else "continuous" for is_discrete in discrete]
        raise SupportError(
            f"site {name!r}: the model's {_kind_of(other)} has a {kinds[0]} support, the guide's {_kind_of(node)} a "
            f"{kinds[1]} one; {_cure_of_kinds(node)}use a distribution on the model's support, or sum a discrete site out with "
            "pyro.infer.config_enumerate and loss=TraceEnum_ELBO()."
        )


def check_prototype(guide: Any, prior: Trace) -> None:
    """
    Raises:
        GuideError: an automatic guide was set up on data of another size, for which it keeps parameters; or it needs the
            mean, or draws, of a prior that has none.
    """
    if isinstance(guide, AutoHierarchicalNormalMessenger):
        _check_means(guide, prior)
    if isinstance(guide, AutoRegressiveMessenger):
        _check_proper(guide, prior)
    prototype = getattr(guide, "prototype_trace", None)
    if prototype is None or getattr(guide, "amortized", False):
        return
    for name, node in _latents(prior):
        if name not in prototype.nodes:
            continue
        before = {f.name: f.full_size or f.size for f in prototype.nodes[name]["cond_indep_stack"]}
        for frame in node["cond_indep_stack"]:
            size = frame.full_size or frame.size
            if before.get(frame.name, size) != size:
                kind = type(guide).__name__
                raise GuideError(
                    f"guide: this {kind} was set up on other data, with {before[frame.name]} rows in plate {frame.name!r} "
                    f"of site {name!r}, and has parameters for these; the data have {size}. Pass the class {kind}, or a new "
                    f"{kind}(model)."
                )


def _check_means(guide: AutoHierarchicalNormalMessenger, prior: Trace) -> None:
    """This guide moves every draw by the mean of the prior, which a Cauchy or a flat one does not have."""
    latents = _latents(prior)
    without = [name for name, node in latents if not _has_mean(node["fn"])]
    chosen = hierarchical_sites(guide)
    for name in without:
        if chosen is None or name in chosen:
            raise GuideError(
                f"site {name!r}: {type(guide).__name__} moves draws by the mean of the prior, and the prior "
                f"{type(base_distribution(dict(latents)[name]['fn'])).__name__} has none; leave the site out of the "
                f"hierarchical ones, as in hierarchical_sites={[n for n, _ in latents if n not in without]}."
            )


def _check_proper(guide: AutoRegressiveMessenger, prior: Trace) -> None:
    """This guide is a transformed prior, which must be one that can be drawn from."""
    for name, node in _latents(prior):
        if isinstance(base_distribution(node["fn"]), ImproperUniform):
            raise GuideError(
                f"site {name!r}: {type(guide).__name__} draws from the prior and transforms what it drew, and a flat prior "
                "cannot be drawn from; give the site a proper prior, or use another guide, such as AutoMultivariateNormal."
            )


def _latents(prior: Trace) -> list[tuple[str, Any]]:
    return [(name, node) for name, node in prior.nodes.items() if is_latent(node)]


def _has_mean(fn: Any) -> bool:
    try:
        return bool(torch.isfinite(fn.mean).all())
    except NotImplementedError:
        return False


def compare_sites(table: SiteTable, guide: Any, guide_trace: Trace, *, enumerates: bool) -> Iterator[VipackError]:
    """Sites that only one of the two has, or that the guide should leave alone."""
    names = {site.name: site for site in table}
    for name, node in sample_nodes(guide_trace).items():
        if node["infer"].get("is_auxiliary"):
            continue
        site = names.get(name)
        if site is None and not node["is_observed"]:
            cure = "rename it, remove it, or mark it infer={'is_auxiliary': True} if it is only the guide's own"
            if isinstance(guide, AutoGuide):
                kind = type(guide).__name__
                cure = f"this {kind} was made for another model: pass the class {kind}, or {kind}(model)"
            yield SiteError(f"guide site {name!r} is not in the model, whose latents are {_names(table)}; {cure}.")
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


def compare_shapes(table: SiteTable, model_trace: Trace, guide_trace: Trace) -> Iterator[VipackError]:
    """Sites whose shape differs between the two, and batch dimensions that no plate declares."""
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
        elif not _same_shape(_shape(model_fn), _shape(guide_fn)):
            yield ShapeError(
                f"site {site.name!r}: shape is {_shape(model_fn)} in the model and {_shape(guide_fn)} in "
                "the guide; give the guide's distribution parameters of the model's shape."
            )
    for where, trace in (("model", model_trace), ("guide", guide_trace)):
        for name, node in sample_nodes(trace).items():
            yield from _declared(where, name, node)


def compare_plates(table: SiteTable, batch_plate: BatchPlate | None, guide_trace: Trace) -> Iterator[VipackError]:
    """A latent in a plate of the model must stand in it in the guide too, else log q is not scaled with log p."""
    if batch_plate is None or batch_plate.name is None:
        return
    for site in table.of_kind("latent"):
        if site.in_guide and batch_plate.name in site.plates:
            frames = {frame.name for frame in guide_trace.nodes[site.name]["cond_indep_stack"]}
            if batch_plate.name not in frames:
                yield PlateError(
                    f"site {site.name!r} stands in plate {batch_plate.name!r} in the model but not in the "
                    f"guide, so a minibatch would scale log p and not log q; open the same plate in the guide."
                )


def compare_supports(table: SiteTable, model_trace: Trace, guide_trace: Trace) -> Iterator[VipackError]:
    """Guide distributions that reach outside the support of the model's site."""
    for site in table.of_kind("latent"):
        if not site.in_guide or site.support is None:
            continue
        fn = guide_trace.nodes[site.name]["fn"]
        support = site.support
        points = [guide_trace.nodes[site.name]["value"], *_points_of(fn, model_trace.nodes[site.name]["value"])]
        for point in points:
            inside = support.check(point)
            if not bool(inside.all()) and bool(torch.isfinite(point).all()):
                outside = point[~expanded_as(inside, point)].flatten()[:1].tolist()
                yield SupportError(
                    f"site {site.name!r}: the guide's {type(base_distribution(fn)).__name__} reaches outside the "
                    f"model's support {support_name(support)} (as at {outside}); use a "
                    "distribution on that support, such as a TransformedDistribution through biject_to(support)."
                )
                break


def rounded_draws(model_trace: Trace, guide_trace: Trace) -> Iterator[ProgramWarning]:
    """Sites whose draws the guide rounds, and scores by what they were before."""
    for name, node in sample_nodes(guide_trace).items():
        other = model_trace.nodes.get(name)
        if other is None or not rounds_draws(node["fn"]):
            continue
        kind, soft = _kind_of(node), _kind_of(node).removesuffix("StraightThrough")
        if is_discrete(other["fn"]):
            yield ProgramWarning(
                f"site {name!r}: the guide's {kind} scores a draw by the density of its relaxed value, the model's "
                f"{_kind_of(other)} by a probability, so the loss is no bound on the evidence; give the site {kind} in the "
                "model too, or use OneHotCategoricalStraightThrough in the guide."
            )
        else:
            yield ProgramWarning(
                f"site {name!r}: {kind} rounds its draws and scores them by what they were before. It trains as in Pyro, but "
                "fit.elbo, diagnose and weighted draws keep the rounded draw alone, so their figures are of no use; judge the "
                f"trained networks with {soft} in the model and the guide."
            )


def expanded_as(inside: Tensor, value: Tensor) -> Tensor:
    """`inside`, which lacks the event dimensions of `value`, in the shape of `value`."""
    return inside.reshape(inside.shape + (1,) * (value.dim() - inside.dim())).expand(value.shape)


def support_name(support: Any) -> str:
    """A constraint's name as Pyro writes it."""
    return re.sub(r"tensor\(\[.*?\]+(, dtype=[\w.]+)?\)", "tensor(...)", repr(support), flags=re.S).removesuffix("()")


def _declared(where: str, name: str, node: dict[str, Any]) -> Iterator[VipackError]:
    """Every batch dimension must be a plate's, and an observed value's events those of its distribution."""
    fn, value = node["fn"], node["value"]
    if is_marked_deterministic(node["infer"]) or not hasattr(fn, "batch_shape"):
        return
    shape = tuple(fn.batch_shape)
    if not site_is_factor(node):
        split = value.dim() - fn.event_dim
        try:
            event = tuple(value.shape[split:])
            if split < 0 or tuple(torch.broadcast_shapes(event, fn.event_shape)) != event:
                raise RuntimeError
            shape = tuple(torch.broadcast_shapes(shape, value.shape[:split]))
        except RuntimeError:
            cure = "make the value's last dimensions the event shape, and the others broadcast with the batch shape"
            more = tuple(value.shape)[len(shape) :]
            if not fn.event_dim and shape and more and tuple(value.shape)[: len(shape)] == shape:
                cure = (
                    f"give the distribution parameters for all {more} values of a row, and declare them with "
                    f".to_event({len(more)})"
                )
            yield ShapeError(
                f"{where} site {name!r}: the value has shape {tuple(value.shape)}, its distribution batch shape "
                f"{shape} and event shape {tuple(fn.event_shape)}; {cure}."
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


def _cure_of_kinds(node: dict[str, Any]) -> str:
    """What to do first where the guide relaxes a discrete site, whose mass and the relaxed density make no bound."""
    base = base_distribution(node["fn"])
    if not isinstance(base, RelaxedOneHotCategorical | RelaxedBernoulli):
        return ""
    cure = f"give the site {type(base).__name__} as its prior in the model too, "
    if isinstance(base, RelaxedOneHotCategorical):
        cure += "or draw one-hot values by OneHotCategoricalStraightThrough in the guide, "
    return f"{cure}or "


def _points_of(fn: Any, value: Tensor) -> Iterator[Tensor]:
    """Points all over the support of a guide's distribution."""
    base = base_distribution(fn)
    # The support that a TransformedDistribution states may be too wide: torch takes an affine map's range to be R.
    transforms = base.transforms if isinstance(base, TransformedDistribution) else []
    start = base.base_dist if transforms else fn
    support = support_of(start)
    if support is None or type(base).__name__ == "Delta" or support.is_discrete or rounds_draws(fn):
        return
    # So may that of a relaxed categorical on the log scale, which is not all of R^K.
    on_log_scale = isinstance(base_distribution(start), ExpRelaxedCategorical)
    try:
        transform = transform_to(constraints.simplex if on_log_scale else _of_components(support))
        shape = transform.inverse_shape(_shape(start) if transforms else value.shape)
    except NotImplementedError:
        return
    for size in (-3.0, 3.0):
        point = transform(torch.full(shape, size, dtype=value.dtype, device=value.device))
        point = point.log() if on_log_scale else point
        for step in transforms:
            point = step(point)
        yield point


def _of_components(support: Any) -> Any:
    """The support of a mixture's components, which no transform is known for otherwise."""
    return support.base_constraint if isinstance(support, constraints.MixtureSameFamilyConstraint) else support


def _shape(fn: Any) -> tuple[int, ...]:
    """Shape of a draw; torch's own distributions lack Pyro's ``shape()``."""
    return (*fn.batch_shape, *fn.event_shape)


def _same_shape(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    size = max(len(a), len(b))
    return (1,) * (size - len(a)) + a == (1,) * (size - len(b)) + b


def _kind_of(node: dict[str, Any]) -> str:
    return type(base_distribution(node["fn"])).__name__


def _names(table: SiteTable) -> str:
    return ", ".join(repr(site.name) for site in table.of_kind("latent")) or "none"
