"""Where automatic guides start: each latent's initial value is looked at, so that what is wrong with it names the latent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from vipack.compat.messengers import starting_with
from vipack.compat.supports import is_discrete, support_of
from vipack.errors import GuideError, NonFiniteError, ShapeError, SupportError, VipackError
from vipack.program.sites.agreement import support_name

__all__ = ["checked_starts"]


@contextlib.contextmanager
def checked_starts() -> Iterator[None]:
    """What ``init_loc_fn`` gives is looked at inside the block.

    Raises:
        GuideError, ShapeError, SupportError, NonFiniteError: a start that no guide can begin with; the latent is named.
    """

    def start(original: Callable[..., None], handler: Any, msg: dict[str, Any]) -> None:
        if msg["value"] is not None or site_is_subsample(msg):
            return
        if is_discrete(msg["fn"]):  # no guide of these draws it
            original(handler, msg)
            return
        try:
            original(handler, msg)
        except (VipackError, NotImplementedError):
            raise
        except Exception as error:
            raise GuideError(
                f"latent site {msg['name']!r}: its start, init_loc_fn, raised {type(error).__name__}: {error}; give it a value of "
                f"shape {tuple(msg['fn'].shape())}, as with init_to_value(values={{{msg['name']!r}: ...}})."
            ) from error
        _look(msg["name"], msg["fn"], msg["value"])

    with starting_with(start):
        yield


def _look(name: str, fn: Any, value: Any) -> None:
    if value is None:  # the prior is to be drawn from
        return
    start = f"latent site {name!r}: its start (init_loc_fn)"
    if not isinstance(value, Tensor):
        raise GuideError(
            f"{start} is the {type(value).__name__} {value!r}, expected a tensor: torch.tensor({value!r})."
        )
    expected = tuple(fn.batch_shape) + tuple(fn.event_shape)
    if tuple(value.shape) != expected:
        raise ShapeError(
            f"{start} has shape {tuple(value.shape)}, expected {expected}; give a value of that shape, as with "
            f"init_to_value(values={{{name!r}: ...}})."
        )
    if not bool(torch.isfinite(value).all()):
        raise NonFiniteError(
            f"{start} is {_shown(value[~torch.isfinite(value)])} at {int((~torch.isfinite(value)).sum())} of {value.numel()} "
            "element(s); give it finite values, as init_to_median does where a prior has no mean."
        )
    support = support_of(fn)
    if support is not None and not bool(support.check(value).all()) and not _can_be_reached(support, value):
        raise SupportError(
            f"{start} is {_shown(value)}, outside its support {support_name(support)}; give a value inside it."
        )


def _can_be_reached(support: Any, value: Tensor) -> bool:
    """Whether the value is off by rounding alone, as probabilities that add up to 0.999 are."""
    try:
        return bool(torch.isfinite(biject_to(support).inv(value)).all())
    except NotImplementedError:
        return False


def _shown(value: Tensor) -> list[float]:
    values: list[float] = value.flatten()[:3].tolist()
    return values
