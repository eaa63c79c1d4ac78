"""Fits that go wrong in known ways: stopped early, trained at a wrong rate, a parameter held, scales off, a mode missed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pyro.optim
import torch
from pyro.infer.autoguide import AutoContinuous, AutoMultivariateNormal, init_to_value
from torch import Tensor

import vipack as vi
from benchmarks.known_posteriors import Known

__all__ = ["FEW_STEPS", "SABOTAGE", "Given"]

FEW_STEPS = 250  # of the saboteurs that train; an honest fit takes thousands

Saboteur = Callable[[Known, vi.Fit, int], vi.Fit]  # the model, the honest full-rank fit, a seed


class Given(AutoContinuous):  # type: ignore[misc]
    """A normal distribution on the unconstrained space that is given, not learned."""

    def __init__(self, model: Callable[..., Any], loc: Tensor, scale_tril: Tensor) -> None:
        super().__init__(model)
        self._given = loc.detach(), scale_tril.detach()

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(self._given[0], scale_tril=self._given[1])


def scaled(factor: float, known: Known, honest: vi.Fit, seed: int) -> vi.Fit:
    """All sds `factor` times what they were."""
    found = honest.guide.get_posterior()
    return _given(known, found.loc, factor * found.scale_tril, seed)


def shifted(known: Known, honest: vi.Fit, seed: int) -> vi.Fit:
    """One mean a third of its sd off."""
    found = honest.guide.get_posterior()
    off = torch.zeros_like(found.loc)
    off[-1] = found.stddev[-1] / 3
    return _given(known, found.loc + off, found.scale_tril, seed)


def squeezed(known: Known, honest: vi.Fit, seed: int) -> vi.Fit:
    """One sd 0.7 of what it was, given the others."""
    found = honest.guide.get_posterior()
    factor = torch.eye(len(found.loc), dtype=found.loc.dtype)
    factor[-1, -1] = 0.7
    return _given(known, found.loc, found.scale_tril @ factor, seed)


def stopped_early(steps: int, known: Known, honest: vi.Fit, seed: int) -> vi.Fit:
    """Training cut off after `steps`."""
    optim = pyro.optim.Adam({"lr": 0.02})
    return vi.fit(known.model, AutoMultivariateNormal, data=known.data, seed=seed, steps=steps, optim=optim, **_F64)


def wrong_rate(rate: float, known: Known, honest: vi.Fit, seed: int) -> vi.Fit:
    """Adam with a learning rate far too high or low."""
    optim = pyro.optim.Adam({"lr": rate})
    return vi.fit(known.model, AutoMultivariateNormal, data=known.data, seed=seed, steps=FEW_STEPS, optim=optim, **_F64)


def frozen(part: str, known: Known, honest: vi.Fit, seed: int) -> vi.Fit:
    """The parameter whose name ends in `part` stays where it started."""
    optim = pyro.optim.Adam(lambda name: {"lr": 0.0 if name.endswith(part) else 0.03})
    return vi.fit(known.model, AutoMultivariateNormal, data=known.data, seed=seed, steps=FEW_STEPS, optim=optim, **_F64)


def dropped_mode(known: Known, honest: vi.Fit, seed: int) -> vi.Fit:
    """Started at one of the modes, with a scale too small to see the other."""
    start = init_to_value(values=known.modes[seed % len(known.modes)])
    guide = functools.partial(AutoMultivariateNormal, init_loc_fn=start, init_scale=0.5)
    optim = pyro.optim.Adam({"lr": 0.02})
    return vi.fit(known.model, guide, data=known.data, seed=seed, steps=2 * FEW_STEPS, optim=optim, **_F64)


SABOTAGE: dict[str, Saboteur] = {
    "stopped after 15 steps": functools.partial(stopped_early, 15),
    "stopped after 100 steps": functools.partial(stopped_early, 100),
    "rate 1": functools.partial(wrong_rate, 1.0),
    "rate 0.0001": functools.partial(wrong_rate, 1e-4),
    "frozen loc": functools.partial(frozen, "loc"),
    "frozen scale": functools.partial(frozen, "scale"),
    "sd x 0.5": functools.partial(scaled, 0.5),
    "sd x 0.8": functools.partial(scaled, 0.8),
    "sd x 1.5": functools.partial(scaled, 1.5),
    "sd x 2": functools.partial(scaled, 2.0),
    "one mean shifted": shifted,
    "one sd squeezed": squeezed,
    "dropped mode": dropped_mode,
}

_F64: dict[str, Any] = {"dtype": torch.float64}


def _given(known: Known, loc: Tensor, scale_tril: Tensor, seed: int) -> vi.Fit:
    guide = functools.partial(Given, loc=loc, scale_tril=scale_tril)
    return vi.fit(known.model, guide, data=known.data, seed=seed, steps=0, **_F64)
