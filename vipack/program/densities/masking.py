"""Latents that a mask leaves out, some elements or all of them: taken out of log q too, or given a density of their own.

Under ``poutine.mask`` an element of a latent has no prior, and ``obs_mask=`` makes a latent of which only the unobserved
elements count. Where nothing else depends on such an element, the joint density is improper in it, while the guide's
log q counts it all the same: an ELBO that rises for as long as the guide widens. Such an element is *idle*. It is taken
out of log q where the guide has a density for each element, and has a standard normal density on R^D where the guide
draws all latents as one vector. Either way evidence and posterior are those of the model without it. A latent that is
masked in order to have a flat prior, and on which the likelihood depends, is not idle and keeps Pyro's meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Literal

import torch
from pyro.distributions import Delta, Normal, TorchDistribution
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from vipack.compat.autoguides import mask_of
from vipack.compat.messengers import handlers
from vipack.compat.supports import is_discrete, support_or_reals
from vipack.errors import VipackError
from vipack.program.densities.densities import counted_densities, same_densities
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.sites.sites import base_distribution, is_latent, sample_nodes

__all__ = [
    "CountedLatent",
    "MaskedLatents",
    "Treatment",
    "counting",
    "elsewhere",
    "idle_latents",
    "leave_out",
    "over_events",
    "standard_density",
    "standard_terms",
    "to_batch",
    "treatments",
    "unmasked",
]

Treatment = Literal["left out", "standard normal", "summed out", "kept"]


def counting(node: Mapping[str, Any]) -> Tensor | None:
    """Which elements of a site's batch shape count, by ``poutine.mask``, ``obs_mask=`` and ``.mask()``; None: all do."""
    masks = [] if node["mask"] is None else [node["mask"]]
    fn = node["fn"]
    while isinstance(fn, MaskedDistribution | CountedLatent):
        masks.append(mask_of(fn))
        fn = fn.base_dist
    together: Tensor | None = None
    for mask in masks:
        if mask is not True:
            mask = torch.as_tensor(mask).bool()
            together = mask if together is None else together & mask
    return together


def unmasked(fn: Any) -> Any:
    """A distribution without ``.mask()`` around it."""
    while isinstance(fn, MaskedDistribution):
        fn = fn.base_dist
    return fn


def over_events(mask: Tensor, event_dim: int) -> Tensor:
    """A mask over a batch shape in the dimensions of a value with `event_dim` more."""
    return mask.reshape(mask.shape + (1,) * event_dim)


def treatments(
    guide_trace: Trace, model_trace: Trace, run: Callable[[Mapping[str, Tensor]], Trace]
) -> dict[str, Treatment]:
    """What is done about each latent of which a mask leaves out elements.

    - ``left out``: of log q, as of log p; the guide has a density for each element.
    - ``standard normal``: has that density on R^D; the guide draws it with others as one vector.
    - ``summed out``: ``.mask()`` stands on a discrete latent, whose prior must sum to one as under ``poutine.mask``.
    - ``kept``: nothing, since the elements are not idle.

    Args:
        run: the model's trace at given latents.
    """
    known = _active_treatments()
    if known is not None:
        return dict(known)
    nodes = sample_nodes(model_trace)
    treated: dict[str, Treatment] = dict.fromkeys(_masked(nodes), "kept")
    for name in idle_latents(model_trace, run):
        node = guide_trace.nodes.get(name)
        if node is None:
            if isinstance(nodes[name]["fn"], MaskedDistribution) and _is_summed_out(nodes[name]):
                treated[name] = "summed out"
        elif not _is_point(node) or _unconstrained(name) in guide_trace.nodes or not _has_auxiliaries(guide_trace):
            treated[name] = "left out"
        else:
            treated[name] = "standard normal"
    return treated


def idle_latents(model_trace: Trace, run: Callable[[Mapping[str, Tensor]], Trace]) -> list[str]:
    """The latents of which a mask leaves out elements whose values change no density of the model."""
    known = _active_treatments()
    if known is not None:
        return [name for name, how in known.items() if how != "kept"]
    nodes = sample_nodes(model_trace)
    masked = _masked(nodes)
    if not masked:
        return []
    # With the same rows, if a plate of the model draws them.
    rows = {
        n: node["value"]
        for n, node in model_trace.nodes.items()
        if node["type"] == "sample" and site_is_subsample(node)
    }
    values = rows | {name: node["value"] for name, node in nodes.items() if is_latent(node)}
    others = {name: _moved(nodes[name], mask) for name, mask in masked.items()}
    before = counted_densities(run(values))

    def unmoved(moved: Mapping[str, Tensor]) -> bool:
        try:
            return same_densities(before, counted_densities(run({**values, **moved})))
        except VipackError:  # the model refuses the values, so it reads them
            return False

    return list(masked) if unmoved(others) else [name for name, other in others.items() if unmoved({name: other})]


def _masked(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    return {name: mask for name, node in nodes.items() if is_latent(node) and (mask := counting(node)) is not None}


def leave_out(guide_trace: Trace, masks: Mapping[str, Tensor]) -> None:
    """Take the elements of latents at which `masks` are False out of the guide's densities, not computed as yet."""
    for name, mask in masks.items():
        for site in (name, _unconstrained(name)):
            node = guide_trace.nodes.get(site)
            if node is not None:
                node["mask"] = mask if node["mask"] is None else node["mask"] & mask


def standard_density(fn: Any, value: Tensor) -> Tensor:
    """log density, over the batch shape, of a value that is standard normal on R^D; of a discrete one its own."""
    fn = unmasked(fn)
    if is_discrete(fn):
        density: Tensor = fn.log_prob(value)
        return density
    transform = biject_to(support_or_reals(fn))
    u = transform.inv(value)
    batch = value.dim() - fn.event_dim
    log_det = transform.log_abs_det_jacobian(u, value)
    normal = Normal(torch.zeros_like(u), 1.0, validate_args=False).log_prob(u)
    return to_batch(normal, batch) - to_batch(log_det, batch)


def standard_terms(model_trace: Trace, names: Collection[str]) -> Tensor:
    """The sum ``()`` of standard normal log densities at the elements of these latents that a mask leaves out, in nats."""
    total = torch.zeros(())
    for name in names:
        node = model_trace.nodes[name]
        counted = counting(node)
        if counted is not None:
            total = total + elsewhere(counted, standard_density(node["fn"], node["value"])).sum()
    return total


def elsewhere(counted: Tensor, density: Tensor) -> Tensor:
    """A density at the elements that do not count, and zero at those that do."""
    return torch.where(counted, torch.zeros_like(density), density)


class CountedLatent(TorchDistribution):  # type: ignore[misc]
    """`base_dist` at the elements that count, and another density at those that a mask leaves out.

    Args:
        mask: True where an element counts.
        other: value -> log density over the batch shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base_dist: Any, mask: Tensor, other: Callable[[Tensor], Tensor]) -> None:
        self.base_dist, self._mask, self._other = base_dist, mask, other
        batch_shape = torch.broadcast_shapes(base_dist.batch_shape, mask.shape)
        super().__init__(torch.Size(batch_shape), base_dist.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the base."""
        return self.base_dist.support

    @property
    def has_rsample(self) -> bool:
        """Whether the base has draws with gradients."""
        return bool(self.base_dist.has_rsample)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Of the base, wherever the mask stands."""
        value: Tensor = self.base_dist.sample(torch.Size(sample_shape))
        return value

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """As :meth:`sample`, with gradients."""
        value: Tensor = self.base_dist.rsample(torch.Size(sample_shape))
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """log density in nats."""
        return torch.where(self._mask, self.base_dist.log_prob(value), self._other(value))


class MaskedLatents(Messenger):  # type: ignore[misc]
    """Applies treatments within Pyro's own ELBOs, which run the guide and replay the model against its trace.

    The model's mask is put on the guide's trace before the densities of that are computed, so that the loss and its
    gradient are those of a guide that wears the mask.
    """

    def __init__(self, treated: Mapping[str, Treatment]) -> None:
        super().__init__()
        self.treated = treated

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        how = self.treated.get(msg["name"], "kept")
        if how == "kept" or msg["is_observed"] or site_is_subsample(msg):
            return
        if how == "summed out":
            if _is_summed_out(msg):
                msg["fn"] = unmasked(msg["fn"])
            return
        guide_trace, counted = _guide_trace_of(msg), counting(msg)
        if guide_trace is None or counted is None:
            return
        if how == "left out":
            leave_out(guide_trace, {msg["name"]: counted})
            return
        fn, scale = unmasked(msg["fn"]), msg["scale"]
        # The message is scaled as a whole, and this density is to count once.
        msg["fn"], msg["mask"] = CountedLatent(fn, counted, lambda value: standard_density(fn, value) / scale), None


def _active_treatments() -> Mapping[str, Treatment] | None:
    """The treatments of the running program: to work them out again reads values, which vmap and tracers refuse."""
    return next((handler.treated for handler in handlers() if isinstance(handler, MaskedLatents)), None)


def _guide_trace_of(msg: Mapping[str, Any]) -> Trace | None:
    """The trace that a loss replays the model against, if that is what gave the message its value."""
    for handler in handlers():
        node = handler.trace.nodes.get(msg["name"]) if isinstance(handler, ReplayMessenger) and handler.trace else None
        if node is not None and node["infer"] is msg["infer"]:  # replay passes the guide's own dict
            return handler.trace
    return None


def _moved(node: Mapping[str, Any], counted: Tensor) -> Tensor:
    """The value of a latent with other ones at the elements that do not count."""
    fn, value = unmasked(node["fn"]), node["value"]
    with flat_priors_sampled():
        other = fn.sample()
    return torch.where(over_events(counted, fn.event_dim), value, other.to(value))


def _unconstrained(name: str) -> str:
    """The auxiliary site of AutoNormal for a latent: with it the guide has a density for each element."""
    return f"{name}_unconstrained"


def _is_point(node: Mapping[str, Any]) -> bool:
    return isinstance(base_distribution(node["fn"]), Delta)


def _has_auxiliaries(guide_trace: Trace) -> bool:
    """Whether the guide draws something that is not a latent, from which latents may be computed."""
    return any(
        node["infer"].get("is_auxiliary") and is_latent(node) and not _is_point(node)
        for node in sample_nodes(guide_trace).values()
    )


def _is_summed_out(node: Mapping[str, Any]) -> bool:
    return node["infer"].get("enumerate") == "parallel" and getattr(node["fn"], "has_enumerate_support", False)


def to_batch(density: Tensor, batch: int) -> Tensor:
    """A density summed over the dimensions to the right of the first `batch`."""
    return density.flatten(batch).sum(-1) if density.dim() > batch else density
