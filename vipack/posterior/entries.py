"""Entries of observations, some of which are missing: densities of those that are there, and what the others may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical

from vipack.compat.supports import support_of
from vipack.display import listed
from vipack.errors import DataError, UsageError
from vipack.posterior.posterior import Posterior
from vipack.program import Arguments
from vipack.program.densities.masking import counting, over_events
from vipack.program.sites.sites import base_distribution, is_deterministic

__all__ = ["IncompleteSite", "incomplete_sites", "summary", "with_values"]


@dataclass(frozen=True)
class IncompleteSite:
    """An observed site of B observations that holds an argument of the model, entries of which are missing.

    Attributes:
        argument: the name of the model's argument.
        axis: of the observations, in the site's value.
        missing: in the shape of the site's value.
        takes_nan: whether its distribution has a density where NaN stands for what is missing.
    """

    name: str
    argument: str
    axis: int
    missing: Tensor
    takes_nan: bool

    def rows_first(self, value: Tensor, draws: int = 0) -> Tensor:
        """A value of the site, after `draws` dimensions, with the observations in front: ``(B, ...)``."""
        return value.movedim(draws + self.axis, draws)

    def log_observed(self, node: Mapping[str, Any]) -> Tensor:
        """log density in nats of the entries that are there ``(B,)``, by a node of a trace of the model."""
        density = _by_entry(node["fn"], self._marked(node["value"]))
        if not self.takes_nan:
            density = torch.where(_together(self.missing, density), 0.0, density)
        counted = counting(node)
        if counted is not None:
            density = torch.where(over_events(counted, density.dim() - counted.dim()), density, 0.0)
        return density.movedim(self.axis, 0).flatten(1).sum(1) if density.dim() > 1 else density

    def check(self, node: Mapping[str, Any]) -> None:
        """
        Raises:
            UsageError: entries depend on each other given the latents, and some of them are missing without the others.
        """
        if self.takes_nan:
            return
        shared = self.missing, _by_entry(node["fn"], self._marked(node["value"]))
        if not torch.equal(_together(*shared), _together(*shared, whole=True)):
            kind = type(base_distribution(node["fn"])).__name__
            raise UsageError(
                f"impute: site {self.name!r} is a {kind}, whose entries depend on each other given the latents, so that what is "
                "there has no density by itself; an observation must be missing there whole, or not at all. Write it as "
                "independent entries, as in Normal(...).to_event(1)."
            )

    def drawn(self, node: Mapping[str, Any]) -> Tensor:
        """The site's value, its missing entries drawn from p(x | z)."""
        value = node["value"]
        return torch.where(self.missing, node["fn"].sample().to(value.dtype), value)

    def expectations(self, node: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Mean of the site and of its square at one draw of the latents; of classes, their probabilities (see :func:`summary`)."""
        fn, value = node["fn"], node["value"]
        base: Any = base_distribution(fn)
        try:
            if isinstance(base, Categorical):
                probs = base.probs.expand(*value.shape, -1)
                return probs, probs
            if hasattr(base, "of_expectations"):
                leading = value.shape[:-1]
                return base.expectations.expand(*leading, -1), base.expected_squares.expand(*leading, -1)
            mean = fn.mean.expand(value.shape).double()
            return mean, fn.variance.expand(value.shape) + mean**2
        except (NotImplementedError, AttributeError):
            drawn = fn.sample().double()
            return drawn, drawn**2

    def _marked(self, value: Tensor) -> Tensor:
        """The site's value, NaN where an entry is missing if the distribution takes that."""
        return value.masked_fill(self.missing, torch.nan) if self.takes_nan else value


def summary(node: Mapping[str, Any], mean: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """Value and sd of a site by its averaged expectations; of classes the most probable one, and the sd of its indicator."""
    base: Any = base_distribution(node["fn"])
    spread = (square - mean**2).clamp(min=0).sqrt()
    if isinstance(base, Categorical):
        chosen = mean.argmax(-1, keepdim=True)
        return chosen[..., 0].to(node["value"].dtype), spread.gather(-1, chosen)[..., 0]
    if hasattr(base, "of_expectations"):
        return base.of_expectations(mean), base.of_expectations(mean, spread)
    return mean, spread


def incomplete_sites(posterior: Posterior, missing: Mapping[str, Tensor]) -> dict[str, IncompleteSite]:
    """The observed sites that hold an argument as it is, by name.

    Args:
        posterior: of the observations, their missing entries filled.
        missing: argument -> which of its entries are missing, in its shape; of any argument that has some.

    Raises:
        DataError: entries of an argument are missing that no observed site holds.
    """
    evaluation, plate = posterior.evaluation, posterior.evaluation.row_plate
    arguments = {name: value for name, value in posterior.named_arguments().items() if isinstance(value, Tensor)}
    sites = {}
    for name, value in evaluation.observed.items():
        node = evaluation.model_trace.nodes[name]
        argument = next((own for own, given in arguments.items() if _holds(value, given)), None)
        if argument is None or is_deterministic(node):
            continue
        mask = missing.get(argument)
        own = torch.zeros(value.shape, dtype=torch.bool) if mask is None else mask.reshape(value.shape)
        axis = posterior.table[name].dim_names.index(plate)
        sites[name] = IncompleteSite(name, argument, axis, own.to(value.device), _takes_nan(node))
    unheld = [name for name, mask in missing.items() if name not in {site.argument for site in sites.values()}]
    if unheld:
        raise DataError(
            f"impute: entries of the argument {unheld[0]!r} are missing, and no observed site of the model holds it as it is "
            f"(those that hold an argument: {listed(f'{s.name} holds {s.argument}' for s in sites.values()) or 'none'}); "
            "give it values, or observe it unchanged, as in obs=x."
        )
    return sites


def with_values(posterior: Posterior, call: Arguments, values: Mapping[str, Tensor]) -> Arguments:
    """`call` with other values of some arguments."""
    names = list(posterior.named_arguments(call))
    args = tuple(values.get(name, value) for name, value in zip(names, call.args, strict=False))
    kwargs = {name: values.get(name, value) for name, value in call.kwargs.items()}
    return Arguments(args, kwargs, call.indices, call.numbers)


def _holds(value: Any, argument: Tensor) -> bool:
    if not isinstance(value, Tensor) or value.numel() != argument.numel() or not argument.dim():
        return False
    one, two = value.reshape(-1).double(), argument.reshape(-1).double()
    return bool(((one == two) | (one.isnan() & two.isnan())).all())


def _takes_nan(node: Mapping[str, Any]) -> bool:
    value, support = node["value"], support_of(node["fn"])
    if support is None or not value.is_floating_point():
        return False
    return bool(support.check(torch.full_like(value, torch.nan)).all())


def _by_entry(fn: Any, value: Tensor) -> Tensor:
    """log density of each entry of `value`, in as many dimensions; of size 1 where entries share one."""
    fn = base_distribution(fn)
    if hasattr(fn, "log_prob_by_entry"):
        own: Tensor = fn.log_prob_by_entry(value)
        return own
    density: Tensor = fn.log_prob(value)
    return density.reshape(density.shape + (1,) * fn.event_dim)


def _together(missing: Tensor, density: Tensor, *, whole: bool = False) -> Tensor:
    """Which densities are of entries of which any (or, if `whole`, all) are missing."""
    for dim in range(missing.dim()):
        if density.shape[dim] == 1 and missing.shape[dim] > 1:
            missing = missing.all(dim, keepdim=True) if whole else missing.any(dim, keepdim=True)
    return missing
