"""Latents and data drawn from the model itself."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor

from vipack.errors import ModelError
from vipack.program.program import Program
from vipack.program.runs import Arguments, explained

__all__ = ["Unobserved", "simulate"]


class Unobserved(UnconditionMessenger):  # type: ignore[misc]
    """Draws what the data fixed, and only that.

    Pyro's messenger also draws deterministic sites anew, from a Delta that the site's plates have expanded: theta of
    shape ``(8,)`` in a plate of 8 came back ``(8, 8)``, and so did whatever was computed from it.
    """

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not msg["infer"].get("_deterministic"):
            super()._pyro_sample(msg)


def simulate(program: Program, arguments: Arguments) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One draw of the latents and of the observed sites, by name, from the joint distribution of the model.

    Raises:
        ModelError: a prior cannot be drawn from, being improper, or the model raises; the site is named.
    """
    values = program.parameters.detached()
    with program.bound(arguments, values=values, training=False), pyro.validation_enabled(False), torch.no_grad():
        observed = _observed(program, arguments)
        with explained("model", arguments):
            trace = poutine.trace(Unobserved()(program.model)).get_trace(*arguments.args, **arguments.kwargs)
    sites = {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}
    latents = {n: s["value"] for n, s in sites.items() if not s["infer"].get("_deterministic") and n not in observed}
    return latents, {name: sites[name]["value"] for name in observed}


def _observed(program: Program, arguments: Arguments) -> list[str]:
    with explained("model", arguments), _Midway():
        trace = poutine.trace(program.model).get_trace(*arguments.args, **arguments.kwargs)
    found = []
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or not site["is_observed"] or site["infer"].get("_deterministic"):
            continue
        if site_is_factor(site):
            raise ModelError(
                f"site {name!r} is a pyro.factor, which no data can be drawn from; write it as a distribution of the data."
            )
        found.append(name)
    return found


class _Midway(poutine.messenger.Messenger):  # type: ignore[misc]
    """Names the prior that cannot be drawn from."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if type(msg["fn"]).__name__ == "ImproperUniform" or type(getattr(msg["fn"], "base_dist", None)).__name__ == (
            "ImproperUniform"
        ):
            raise ModelError(
                f"site {msg['name']!r} has an improper prior, which no parameters can be drawn from; give it a proper one."
            )
