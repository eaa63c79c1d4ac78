"""Latents of each row from a network that reads the row, and the others from any guide."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide, AutoMultivariateNormal
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from torch.distributions import biject_to

from vipack.compat.autoguides import ReadsModel, set_up
from vipack.compat.supports import is_discrete, support_or_reals
from vipack.errors import GuideError, ShapeError
from vipack.hints import checked_class
from vipack.program.running.flat import flat_priors_sampled

__all__ = ["Amortized"]


@checked_class
class Amortized(ReadsModel, AutoGuide):  # type: ignore[misc]
    """A guide whose local latents are Gaussians computed from the data, so that it takes any batch of rows.

    Args:
        network: called with the model's arguments, gives for each local latent a pair of location and scale on the
            unconstrained space: ``(loc, scale)`` where there is one, ``{name: (loc, scale)}`` where there are more. Their
            leading dimensions are those of the latent's plates.
        local: names of the local latents.
        global_guide: an AutoGuide class or ``functools.partial`` of one for all other latents, if there are any.

    Raises:
        GuideError: when first called: a local latent is not one of the model's, is discrete, or shares a plate with a
            latent that `local` leaves out.
        ShapeError: the network gives another shape than the latent's.
    """

    amortized = True

    def __init__(
        self,
        model: Callable[..., Any],
        network: nn.Module,
        local: Sequence[str],
        *,
        global_guide: Callable[..., Any] = AutoMultivariateNormal,
    ) -> None:
        super().__init__(model)
        if not isinstance(network, nn.Module):
            raise GuideError(f"guide Amortized: network must be a torch.nn.Module, found {type(network).__name__}.")
        self.local = (local,) if isinstance(local, str) else tuple(local)
        self.network = network
        self.shared = global_guide(poutine.block(model, hide=list(self.local)))

    def read_model(self, *args: Any, **kwargs: Any) -> None:
        """See which latents the network is asked for, and let the guide of the others read the model."""
        with flat_priors_sampled():
            super().read_model(*args, **kwargs)
            latents = dict(self.prototype_trace.iter_stochastic_nodes())
            frames = self._check(latents)
            self._has_globals = len(latents) > len(self.local)
            # The plates of the locals are opened at every call, as large as its data.
            self.forget_plates(frames)
            if self._has_globals:
                set_up(self.shared, *args, **kwargs)

    def _check(self, latents: Mapping[str, Any]) -> set[str]:
        """The names of the locals' plates."""
        for name in self.local:
            if name not in latents:
                raise GuideError(
                    f"guide Amortized: local={name!r} is not a latent of the model; its latents are {', '.join(latents)}."
                )
            if is_discrete(latents[name]["fn"]):
                raise GuideError(f"guide Amortized: local latent {name!r} is discrete; sum it out, or write a guide.")
        frames = {frame.name for name in self.local for frame in latents[name]["cond_indep_stack"]}
        for name, site in latents.items():
            if name not in self.local and frames & {frame.name for frame in site["cond_indep_stack"]}:
                raise GuideError(
                    f"guide Amortized: latent {name!r} stands in a plate of the local latents; list it in local too."
                )
        return frames

    def _check_prototype(self, other_trace: Trace) -> None:
        """Called by the guide of the globals with the trace that it read."""

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """A draw of every latent by name, made by ``pyro.sample`` statements."""
        if self.prototype_trace is None:
            self.read_model(*args, **kwargs)
        self.open_plates(*args, **kwargs)
        result: dict[str, Tensor] = dict(self.shared(*args, **kwargs)) if self._has_globals else {}
        plates: dict[str, Any] = {}
        for name, (loc, scale) in self._numbers(self.network(*args, **kwargs)).items():
            site = self.prototype_trace.nodes[name]
            event_dim = self._event_dim(name)
            with contextlib.ExitStack() as stack:
                for frame in sorted(site["cond_indep_stack"], key=lambda f: f.dim):
                    dim = frame.dim - event_dim
                    if loc.dim() < -dim:
                        raise self._wrong_shape(name, loc)
                    if frame.name not in plates:
                        plates[frame.name] = _plate(frame, loc.shape[dim])
                    rows = stack.enter_context(plates[frame.name])
                    if loc.shape[dim] != len(rows):  # a plate that takes some rows of all
                        loc, scale = loc.index_select(dim, rows), scale.index_select(dim, rows)
                transform = biject_to(support_or_reals(site["fn"]))
                normal = dist.Normal(loc, scale).to_event(event_dim)
                result[name] = pyro.sample(name, dist.TransformedDistribution(normal, [transform]))
            if result[name].shape[result[name].dim() - site["fn"].event_dim :] != site["fn"].event_shape:
                raise self._wrong_shape(name, loc)
        return result

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The median of each latent, where the guide of the globals knows its own."""
        result = dict(self.shared.median(*args, **kwargs)) if self._has_globals else {}
        for name, (loc, _) in self._numbers(self.network(*args, **kwargs)).items():
            result[name] = biject_to(support_or_reals(self.prototype_trace.nodes[name]["fn"]))(loc)
        return result

    def _numbers(self, outputs: Any) -> dict[str, tuple[Tensor, Tensor]]:
        if not isinstance(outputs, Mapping):
            outputs = {self.local[0]: outputs} if len(self.local) == 1 else {}
        if set(outputs) != set(self.local) or any(not isinstance(v, tuple) or len(v) != 2 for v in outputs.values()):
            raise GuideError(
                f"guide Amortized: the network must give a pair (loc, scale) for each of {', '.join(self.local)}, as a dict "
                f"by name where there are several; found {type(outputs).__name__} of {', '.join(map(str, outputs)) or 'a pair'}."
            )
        return {name: outputs[name] for name in self.local}

    def _event_dim(self, name: str) -> int:
        site = self.prototype_trace.nodes[name]
        unconstrained = biject_to(support_or_reals(site["fn"])).inv(site["value"])
        return int(site["fn"].event_dim + unconstrained.dim() - site["value"].dim())

    def _wrong_shape(self, name: str, loc: Tensor) -> ShapeError:
        site = self.prototype_trace.nodes[name]
        expected = tuple(biject_to(support_or_reals(site["fn"])).inv(site["value"]).shape)
        return ShapeError(
            f"guide Amortized: the network gave a location of shape {tuple(loc.shape)} for {name!r}; expected the shape of "
            f"its unconstrained value, such as {expected}."
        )


def _plate(frame: Any, size: int) -> Any:
    full = frame.full_size or frame.size
    if full == frame.size:
        return pyro.plate(frame.name, size, dim=frame.dim)
    return pyro.plate(frame.name, full, dim=frame.dim, subsample_size=frame.size)
