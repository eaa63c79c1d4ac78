"""Private names of Pyro's enumeration: what it writes on tensors and into messages."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from opt_einsum import shared_intermediates
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import util
from pyro.ops import packed
from pyro.ops.einsum.adjoint import require_backward
from pyro.ops.rings import SampleRing
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from vipack.compat.messengers import without_handlers
from vipack.compat.names import named
from vipack.compat.patching import patched

__all__ = [
    "ENUMERATION_KEYS",
    "Enumerate",
    "adjoint_dims",
    "adjoint_result",
    "dims_to_ids",
    "dims_to_symbols",
    "enumerated_dim",
    "enumerated_symbol",
    "lacking_for_sums",
    "packed_dims",
    "run_adjoint",
    "set_packed_dims",
    "summing_expectations_by",
]

_WITHOUT = "discrete latents are summed out by Pyro's own step only, and have no draws"

ENUMERATION_KEYS = ("_enumerate_dim", "_dim_to_id")  # in a message's infer


def _packed() -> Any:
    return packed.pack(torch.zeros(2), {-1: "a"})


def _adjoint() -> Any:
    term = packed.pack(torch.zeros(2), {-1: "a"})
    require_backward(term)
    return term


def _drawn() -> Any:
    term = _adjoint()
    with torch.random.fork_rng([]), shared_intermediates() as cache:
        ring = SampleRing(cache=cache, dim_to_size={"a": 2})
        run_adjoint(ring.sumproduct([term], {"a"}))
    return term


def _of_messenger(name: str) -> Any:
    with without_handlers(), EnumMessenger() as messenger:
        return getattr(messenger, name)


def _key(key: str) -> Any:
    return _enumerated()[key]


def _enumerated() -> dict[str, Any]:
    import pyro
    from pyro import poutine
    from pyro.distributions import Bernoulli

    def model() -> None:
        pyro.sample("x", Bernoulli(torch.tensor(0.5)), infer={"enumerate": "parallel"})

    with without_handlers():
        trace = poutine.trace(EnumMessenger(first_available_dim=-1)(model)).get_trace()
    trace.symbolize_dims()
    infer: dict[str, Any] = trace.nodes["x"]["infer"]
    return infer


_NAMES = [
    named("pyro", "Tensor._pyro_dims", lambda: _packed()._pyro_dims, without=_WITHOUT),
    named("pyro", "Tensor._pyro_backward", lambda: _adjoint()._pyro_backward, without=_WITHOUT),
    named("pyro", "Tensor._pyro_backward_result", lambda: _drawn()._pyro_backward_result, without=_WITHOUT),
    named(
        "pyro", "Tensor._pyro_sample_dims", lambda: _drawn()._pyro_backward_result._pyro_sample_dims, without=_WITHOUT
    ),
    *(
        named("pyro", f"infer[{key!r}]", functools.partial(_key, key), without=_WITHOUT)
        for key in ("_enumerate_dim", "_dim_to_id", "_enumerate_symbol", "_dim_to_symbol")
    ),
    named("pyro", "EnumMessenger._value_dims", functools.partial(_of_messenger, "_value_dims"), without=_WITHOUT),
    named("pyro", "EnumMessenger._param_dims", functools.partial(_of_messenger, "_param_dims"), without=_WITHOUT),
]
LOG_FACTORS = named(
    "pyro",
    "Dice._get_log_factors",
    "pyro.infer.util:Dice._get_log_factors",
    without="objectives that weight draws by Dice factors, such as TraceEnum_ELBO, are not captured",
)


class Enumerate(EnumMessenger):  # type: ignore[misc]
    """Pyro's own messenger, but for its use of ``value.data``."""

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if not isinstance(msg["fn"], TorchDistributionMixin):
            return
        shape = msg["value"].shape[: msg["value"].dim() - msg["fn"].event_dim]
        dims = dims_to_ids(msg["infer"])
        dims.update(self._param_dims.get(msg["name"], {}))
        self._value_dims[msg["name"]] = {d: i for d, i in dims.items() if len(shape) >= -d and shape[d] > 1}


def lacking_for_sums() -> str:
    """Why discrete latents cannot be summed out here; empty where they can."""
    return next((name.message for name in _NAMES if not name.there), "")


def packed_dims(tensor: Tensor) -> str:
    """The symbols of a packed tensor's dimensions."""
    symbols: str = tensor._pyro_dims  # type: ignore[attr-defined]
    return symbols


def set_packed_dims(tensor: Tensor, dims: str) -> None:
    """Let a tensor be a packed one."""
    tensor._pyro_dims = dims  # type: ignore[attr-defined]


def adjoint_dims(sample: Tensor) -> str:
    """The symbols that backward sampling has drawn, in the order of the sample's first dimension."""
    symbols: str = sample._pyro_sample_dims  # type: ignore[attr-defined]
    return symbols


def run_adjoint(term: Any) -> None:
    """Run the backward pass of a sum-product, if it has one."""
    if hasattr(term, "_pyro_backward"):
        term._pyro_backward()


def adjoint_result(tensor: Any) -> Any:
    """What the backward pass has left at one of the factors; None for nothing."""
    return getattr(tensor, "_pyro_backward_result", None)


def enumerated_dim(infer: Mapping[str, Any]) -> int | None:
    """The dimension that a latent is enumerated in."""
    return infer.get("_enumerate_dim")


def enumerated_symbol(infer: Mapping[str, Any]) -> str:
    """The symbol of that dimension."""
    symbol: str = infer["_enumerate_symbol"]
    return symbol


def dims_to_symbols(infer: Mapping[str, Any]) -> dict[int, str]:
    """The symbols of a site's dimensions."""
    symbols: dict[int, str] = infer["_dim_to_symbol"]
    return symbols


def dims_to_ids(infer: dict[str, Any]) -> dict[int, int]:
    """The numbers of a site's enumerated dimensions; to be written to."""
    ids: dict[int, int] = infer.setdefault("_dim_to_id", {})
    return ids


@contextlib.contextmanager
def summing_expectations_by(compute: Callable[..., Any]) -> Iterator[None]:
    """Inside the block, Dice takes expectations by ``compute(costs, factors of an ordinal)``."""
    if not LOG_FACTORS.there or lacking_for_sums():
        yield
        return
    with patched(util.Dice, compute_expectation=lambda self, costs: compute(costs, self._get_log_factors)):
        yield
