"""Discrete latents that are summed out: their sum as Pyro's TraceEnum_ELBO takes it, and draws from their posterior.

Everything here runs under ``torch.vmap`` too, which Pyro's own enumeration refuses in two functions.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import torch
from opt_einsum import shared_intermediates
from pyro.distributions.util import scale_and_mask
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.einsum import torch_log, torch_sample
from pyro.ops.einsum.adjoint import require_backward
from pyro.ops.rings import SampleRing
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.compat.enumerated import (
    Enumerate,
    adjoint_dims,
    adjoint_result,
    dims_to_symbols,
    enumerated_dim,
    enumerated_symbol,
    lacking_for_sums,
    packed_dims,
    run_adjoint,
    set_packed_dims,
)
from vipack.compat.patching import patched
from vipack.errors import ModelError
from vipack.program.densities.masking import unmasked
from vipack.program.sites.sites import has_density, sample_nodes

__all__ = ["Enumerate", "depends_on_enumeration", "draw_enumerated", "safe_log", "sum_enumerated", "vmappable_sums"]


def sum_enumerated(trace: Trace, nesting: int, dtype: torch.dtype | None = None) -> Tensor:
    """log density ``()`` in nats of a trace inside :class:`Enumerate`, its enumerated latents summed out.

    As in ``TraceEnum_ELBO``, masks act inside the sum and ``poutine.scale`` outside of it, and a mask leaves an enumerated
    latent its prior, which sums to one: a masked row adds nothing.

    Args:
        nesting: the number of dimensions that plates take; enumeration has those to their left.
        dtype: of the result; sites are added up in it.

    Raises:
        ModelError: sites that share an enumerated latent have different scales.
    """
    factors = _factors(trace, nesting, dtype)
    with vmappable_sums(), shared_intermediates() as cache:
        tree = contract_tensor_tree(factors.tree, set(factors.symbols), cache=cache)
    sums = [term.sum(dtype=dtype) for terms in tree.values() for term in terms]
    total: Tensor = sum(sums[1:], sums[0]) * factors.scale
    for log_prob in factors.others:
        total = total + log_prob.sum(dtype=dtype)
    return total


def draw_enumerated(trace: Trace, nesting: int) -> dict[str, Tensor]:
    """One draw of every enumerated latent of such a trace from its posterior given all that the trace holds.

    This is forward filtering and backward sampling over the factors of :func:`sum_enumerated`, as in Pyro's
    ``infer_discrete`` at temperature 1, which takes a masked latent for uniform; here it has its prior. Values have one
    batch dimension for each of the trace's plates that the latent stands in. Where the trace has no density they mean
    nothing.
    """
    factors = _factors(trace, nesting, torch.float64)
    for term in factors.enumerated.values():
        require_backward(term)
    cache: dict[Any, Any] = {}
    with vmappable_sums(), _any_logits_sampled(), shared_intermediates(cache):
        ring = SampleRing(cache=cache, dim_to_size=factors.sizes)
        tree = contract_tensor_tree(factors.tree, set(factors.symbols), ring=ring)
        for terms in tree.values():
            for term in terms:
                run_adjoint(term)
    return {name: _value(trace, name, term) for name, term in factors.enumerated.items()}


def depends_on_enumeration(value: Tensor, plain: tuple[int, ...]) -> bool:
    """Whether the value of a site in a trace inside :class:`Enumerate` is another for each value of a discrete latent.

    Args:
        plain: the shape of the site's value without enumeration, which adds dimensions on the left.
    """
    return tuple(value.shape) != tuple(plain)


@dataclass(frozen=True)
class _Factors:
    """The terms of a log density.

    Attributes:
        tree: plates -> those that have a value for each value of some enumerated latent, packed, unscaled.
        enumerated: those of `tree` that are the densities of the latents themselves.
        symbols: of the enumerated dimensions.
        sizes: of all dimensions, by symbol.
        scale: of the sum.
        others: all other terms, scaled and masked, over their batch shapes.
    """

    tree: OrderedDict[frozenset[str], list[Tensor]]
    enumerated: dict[str, Tensor]
    symbols: set[str]
    sizes: dict[str, int]
    scale: Any
    others: list[Tensor]


def _factors(trace: Trace, nesting: int, dtype: torch.dtype | None) -> _Factors:
    """
    Args:
        dtype: of the tree's terms: products of what rows have to say, which float32 cannot hold 100 nats apart.
    """
    missing = lacking_for_sums()
    if missing:
        raise ModelError(f"{missing}; install a release of Pyro that vipack has been tested with.")
    trace.symbolize_dims()
    plates: dict[str, int] = {}
    sizes: dict[str, int] = {}
    tree: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    enumerated: dict[str, Tensor] = {}
    scales: dict[str, Any] = {}
    others: list[Tensor] = []
    for name, node in sample_nodes(trace).items():
        if not has_density(node):
            continue
        own = enumerated_dim(node["infer"]) is not None
        fn = unmasked(node["fn"]) if own else node["fn"]
        log_prob = fn.log_prob(node["value"], *node["args"], **node["kwargs"])
        if not own and not _enumerates(log_prob, nesting):
            others.append(scale_and_mask(log_prob, node["scale"], node["mask"]))
            continue
        masked = log_prob if own else scale_and_mask(log_prob, mask=node["mask"])
        masked = masked if dtype is None else masked.to(dtype)
        term = packed.pack(masked, dims_to_symbols(node["infer"]))
        # A plate of one row has no dimension in packed terms.
        frames = [frame for frame in node["cond_indep_stack"] if frame.vectorized and frame.size > 1]
        own_plates = {trace.plate_to_symbol[frame.name]: frame.size for frame in frames}
        tree.setdefault(frozenset(own_plates), []).append(term)
        plates |= own_plates
        sizes |= zip(packed_dims(term), term.shape, strict=True)
        scales[name] = node["scale"]
        if own:
            enumerated[name] = term
    return _Factors(tree, enumerated, set(sizes) - set(plates), sizes | plates, _common(scales), others)


def _enumerates(log_prob: Tensor, nesting: int) -> bool:
    return any(size > 1 for size in log_prob.shape[: max(0, log_prob.dim() - nesting)])


def _common(scales: dict[str, Any]) -> Any:
    """
    Raises:
        ModelError: the scales differ.
    """
    for name, other in scales.items():
        if isinstance(other, Tensor) and other.dim():
            raise ModelError(
                f"site {name!r} has a poutine.scale of shape {tuple(other.shape)}, but depends on latents that are summed "
                "out, whose sum can be scaled by one number only; pass a number."
            )
    (first, scale), *others = scales.items()
    for name, other in others:
        if other is not scale and float(other) != float(scale):
            raise ModelError(
                f"site {first!r} is scaled by {float(scale):g} and site {name!r} by {float(other):g}, but both depend on "
                "latents that are summed out, whose sum is scaled as one; put poutine.scale around both of them, or neither. (A "
                "minibatch scales the sites in its plate: for a discrete latent outside of it leave batch_size out.)"
            )
    return scale


def _value(trace: Trace, name: str, term: Tensor) -> Tensor:
    """The value at the index that backward sampling found for a latent."""
    node = trace.nodes[name]
    event_dim = node["fn"].event_dim
    support = node["value"].movedim(cast(int, enumerated_dim(node["infer"])) - event_dim, 0)
    for _ in range(support.dim() - 1 - event_dim):  # a support is the same everywhere in the plates
        support = support.select(1, 0)
    sample: Any = adjoint_result(term)
    symbol = enumerated_symbol(node["infer"])
    if sample is None or symbol not in adjoint_dims(sample):  # a single value
        return torch.as_tensor(support[0])
    index = sample[adjoint_dims(sample).index(symbol)]
    set_packed_dims(index, packed_dims(sample)[1:])
    indices: Tensor = packed.unpack(index, trace.symbol_to_dim)
    # Not support[indices]: under vmap, torch 2.8 asks for the number where there is only one.
    value: Tensor = support.index_select(0, indices.reshape(-1)).reshape((*indices.shape, *support.shape[1:]))
    return value


class _Categorical:
    """Draws by the largest of logits plus Gumbel noise, which takes logits that are all minus infinity or NaN."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    def sample(self) -> Tensor:
        gumbel = -(-torch.rand_like(self._logits).log()).log()
        return (self._logits + gumbel).argmax(-1)


@contextlib.contextmanager
def _any_logits_sampled() -> Iterator[None]:
    """Let backward sampling go on where a trace has no density: one such draw of many must not stop the others."""
    with patched(torch_sample, dist=SimpleNamespace(Categorical=_Categorical)):
        yield


@contextlib.contextmanager
def vmappable_sums() -> Iterator[None]:
    """Let Pyro's sum-product contractions run under vmap inside the block."""
    with patched(torch_log, safe_log=safe_log):
        yield


def safe_log(x: Tensor) -> Tensor:
    """``pyro.ops.special.safe_log``: a logarithm whose gradient is finite at zero, in the form that vmap takes."""
    value: Tensor = _SafeLog.apply(x)  # type: ignore[no-untyped-call]
    return value


class _SafeLog(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.log()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient: Tensor = grad / x.clamp(min=torch.finfo(x.dtype).eps)
        return gradient
