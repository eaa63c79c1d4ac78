"""Latents and data drawn from the model itself, and which observed sites are data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import site_is_factor
from torch import Tensor

from vipack.compat.messengers import seen_after_condition
from vipack.errors import ModelError
from vipack.program.densities.densities import same_densities
from vipack.program.densities.masking import unmasked
from vipack.program.densities.substitution import Given
from vipack.program.program import Program
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, explained, trace_model
from vipack.program.sites.sites import has_density, is_deterministic, is_latent, sample_nodes

__all__ = ["Simulation", "Unobserved", "conditioned_sites", "simulate"]

_CONDITIONED = "_vipack_conditioned"  # in a message's infer, inside _marked_conditions()


class Unobserved(UnconditionMessenger):  # type: ignore[misc]
    """Draws what the data fixed, and only that.

    Pyro's messenger also draws deterministic sites anew, from a Delta that the site's plates have expanded: theta of
    shape ``(8,)`` in a plate of 8 came back ``(8, 8)``, and so did whatever was computed from it.

    Args:
        conditioned: observed sites that are no data and keep their values.
    """

    def __init__(self, conditioned: Collection[str] = ()) -> None:
        super().__init__()
        self._conditioned = conditioned

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] not in self._conditioned and not is_deterministic(msg):
            with_totals = getattr(msg["fn"], "with_totals_of", None)
            if msg["is_observed"] and with_totals is not None:  # as many words as the document has
                msg["fn"] = with_totals(msg["value"])
            super()._pyro_sample(msg)


def conditioned_sites(
    run: Callable[[Mapping[str, Tensor]], Trace], latents: Mapping[str, Tensor], others: Mapping[str, Tensor]
) -> frozenset[str]:
    """Sites that ``poutine.condition`` holds at a value, as a parameter that is known: no data, though observed.

    They are those on which no latent acts and on which other sites depend.

    Args:
        run: the model's trace at given values of latents, or of observed sites.
        latents, others: two draws of the latents.
    """
    with _marked_conditions():
        nodes = sample_nodes(run(latents))
    marked = [n for n, node in nodes.items() if node["infer"].get(_CONDITIONED) and not is_deterministic(node)]
    if not marked:
        return frozenset()

    def densities(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Without masks: elements that a mask leaves out are predicted too.
        sites = {name: node for name, node in sample_nodes(run(given)).items() if has_density(node)}
        return {name: unmasked(node["fn"]).log_prob(node["value"]) for name, node in sites.items()}

    before, moved = densities(latents), densities(others)
    conditioned = []
    for name in marked:
        if not same_densities({name: before[name]}, {name: moved[name]}):
            continue
        after = densities({**latents, name: nodes[name]["fn"].sample()})
        if not same_densities(_without(before, name), _without(after, name)):
            conditioned.append(name)
    return frozenset(conditioned)


def _without(densities: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {other: value for other, value in densities.items() if other != name}


@contextlib.contextmanager
def _marked_conditions() -> Iterator[None]:
    """Let each message tell whether ``poutine.condition`` gave it its value, rather than ``obs=``."""

    def mark(handler: Any, msg: dict[str, Any]) -> None:
        if msg["is_observed"] and msg["name"] in handler.data:
            msg["infer"][_CONDITIONED] = True

    with seen_after_condition(mark):
        yield


def simulate(program: Program, arguments: Arguments) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One draw of the latents and of the observed sites, by name, from the joint distribution of the model.

    Raises:
        ModelError: a prior cannot be drawn from, being improper, or the model raises; the site is named.
    """
    values = program.parameters.detached()
    with program.bound(arguments, values=values, training=False), pyro.validation_enabled(False), torch.no_grad():
        simulation = Simulation(program, arguments)
        with explained("model", arguments):
            latents, _, observed = simulation.draw()
    return latents, observed


class Simulation:
    """Draws from the joint distribution of a model, to be made and called inside ``Program.bound``.

    Raises:
        ModelError: a prior cannot be drawn from, being improper, or the model raises; the site is named.
    """

    def __init__(self, program: Program, arguments: Arguments) -> None:
        self._model, self._arguments = program.model, arguments
        self._observed = _observed(program, arguments)

        def run(given: Mapping[str, Tensor]) -> Trace:
            with seeded(0), Given(given):
                return trace_model(program.model, arguments)

        with explained("model", arguments):
            draws = [sample_nodes(trace_model(program.model, arguments)) for _ in range(2)]
            self._conditioned = conditioned_sites(
                run, *({n: s["value"] for n, s in d.items() if is_latent(s)} for d in draws)
            )

    def draw(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """One draw of the latents, of the deterministic sites and of the observed ones, by name."""
        args, kwargs = self._arguments.args, self._arguments.kwargs
        sites = sample_nodes(poutine.trace(Unobserved(self._conditioned)(self._model)).get_trace(*args, **kwargs))
        latents = {n: s["value"] for n, s in sites.items() if n not in self._observed and is_latent(s)}
        computed = {n: s["value"] for n, s in sites.items() if is_deterministic(s)}
        return (
            latents,
            computed,
            {name: sites[name]["value"] for name in self._observed if name not in self._conditioned},
        )


def _observed(program: Program, arguments: Arguments) -> list[str]:
    with explained("model", arguments), _Midway():
        trace = poutine.trace(program.model).get_trace(*arguments.args, **arguments.kwargs)
    names = []
    for name, site in sample_nodes(trace).items():
        if not site["is_observed"] or is_deterministic(site):
            continue
        if site_is_factor(site):
            raise ModelError(
                f"site {name!r} is a pyro.factor, which no data can be drawn from; write it as a distribution of the data."
            )
        names.append(name)
    return names


class _Midway(poutine.messenger.Messenger):  # type: ignore[misc]
    """Names the prior that cannot be drawn from."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if type(msg["fn"]).__name__ == "ImproperUniform" or type(getattr(msg["fn"], "base_dist", None)).__name__ == (
            "ImproperUniform"
        ):
            raise ModelError(
                f"site {msg['name']!r} has an improper prior, which no parameters can be drawn from; give it a proper one."
            )
