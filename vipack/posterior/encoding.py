"""From observations to latents and back, and new observations: what an amortised guide and its model are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import one_hot

from vipack.display import Readable, listed
from vipack.errors import UsageError
from vipack.posterior.by_rows import blocks
from vipack.posterior.observations import Observations
from vipack.posterior.posterior import Posterior
from vipack.posterior.vectorize import vmap_or_loop
from vipack.program import Arguments, Program, seeded
from vipack.program.densities.substitution import Given
from vipack.program.evaluation.evaluation import Evaluation
from vipack.program.evaluation.simulation import Simulation
from vipack.program.running.randomness import check_seed
from vipack.program.running.runs import explained, trace_model
from vipack.program.sites.sites import base_distribution
from vipack.progress import Progress

__all__ = ["Encoding", "decode", "encode", "generate", "reconstruct"]

_MOMENT_DRAWS = 200  # for means and sds that are not known
_MOST_ROWS = 1_000  # of new observations at a time


@dataclass(frozen=True, repr=False)
class Encoding(Readable):
    """What the guide says of N observations: q(z | x).

    Attributes:
        mean, sd: latent -> ``(N, *event shape)``; exact where the guide's distributions tell, over 200 draws elsewhere. Those of
            labels (Categorical) are of an indicator for each class, ``(N, C)``: the mean is the probabilities.
        draws: latent -> ``(S, N, *event shape)``, if any were asked for.
        exact: latents whose mean and sd are exact.
    """

    mean: dict[str, Tensor]
    sd: dict[str, Tensor]
    draws: dict[str, Tensor] = field(default_factory=dict)
    exact: frozenset[str] = frozenset()

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.mean.items())
        return f"mean and sd of {shapes}" + (f"; {len(next(iter(self.draws.values())))} draws" if self.draws else "")


def encode(program: Program, observations: Observations, num_draws: int, *, seed: int, progress: Progress) -> Encoding:
    """Mean and sd of each observation's latents, and draws.

    Raises:
        UsageError, GuideError: as of :func:`vipack.posterior.by_rows.blocks`.
    """
    check_seed(seed)
    results = []
    exact: frozenset[str] | None = None
    progress.begin("encode", observations.num_rows)
    for start, stop, posterior in blocks(program, observations, "encode"):
        own = (seed + start) % 2**32
        known, classes = _known_moments(posterior, own)
        unknown = {site.name for site in posterior.table.of_kind("latent")} - set(known)
        drawn = (
            posterior.guide_draws(max(num_draws, _MOMENT_DRAWS if unknown else 0), seed=own)
            if num_draws or unknown
            else {}
        )
        drawn = {name: _rows_first(posterior, name, value, 1) for name, value in drawn.items()}
        moments = {name: tuple(_rows_first(posterior, name, m, 0) for m in pair) for name, pair in known.items()}
        for name in unknown:
            values = one_hot(drawn[name].long(), classes[name]).float() if name in classes else drawn[name]
            moments[name] = values.mean(0), values.std(0)
        results.append((moments, {name: value[:num_draws] for name, value in drawn.items()} if num_draws else {}))
        exact = frozenset(known) if exact is None else exact & frozenset(known)
        progress(stop - start)
    progress.close()
    names = list(results[0][0])
    mean, sd = ({name: torch.cat([moments[name][i] for moments, _ in results]) for name in names} for i in (0, 1))
    draws = {name: torch.cat([drawn[name] for _, drawn in results], 1) for name in results[0][1]}
    return Encoding(mean, sd, draws, exact or frozenset())


def reconstruct(
    program: Program, observations: Observations, num_draws: int, *, seed: int, progress: Progress
) -> dict[str, Tensor]:
    """The mean of p(x | z) over draws of q(z | x): observed site -> ``(N, *event shape)``.

    Raises:
        UsageError, GuideError: as of :func:`vipack.posterior.by_rows.blocks`.
    """
    check_seed(seed)
    results: list[dict[str, Tensor]] = []
    progress.begin("reconstruct", observations.num_rows)
    for start, stop, posterior in blocks(program, observations, "reconstruct"):
        latents = posterior.guide_draws(num_draws, seed=(seed + start) % 2**32)
        with seeded(seed), posterior.running():
            methods = vmap_or_loop(_expected(posterior.evaluation), latents, num_draws)
            expected = posterior.vectorizer.run("reconstruct", methods, posterior.arguments)
        averages = {name: _likeliest(posterior, name, value.mean(0)) for name, value in expected.items()}
        results.append({name: _rows_first(posterior, name, value, 0) for name, value in averages.items()})
        progress(stop - start)
    progress.close()
    return {name: torch.cat([result[name] for result in results]) for name in results[0]}


def decode(
    posterior: Posterior, calls: Callable[[int, int], Arguments], latents: Mapping[str, Tensor], *, progress: Progress
) -> dict[str, Tensor]:
    """The mean of p(x | z) at given latents ``site -> (n, *event shape)``: observed site -> ``(n, *event shape)``.

    Args:
        posterior, calls: as of :func:`generate`.

    Raises:
        UsageError: a latent is not given, is unknown, has another shape, or is not finite.
    """
    plate = _plate_of_rows(posterior)
    count = _checked(posterior, latents, plate)
    chunks: list[dict[str, Tensor]] = []
    progress.begin("decode", count)
    for start in range(0, count, _MOST_ROWS):
        stop = min(start + _MOST_ROWS, count)
        arguments = calls(start, stop)
        values = {name: _in_plate(posterior, name, value[start:stop], plate) for name, value in latents.items()}
        with seeded(0), posterior.running(arguments):
            expected = _expected(Evaluation(posterior.program, arguments))(values)
        expected = {name: _likeliest(posterior, name, value) for name, value in expected.items()}
        chunks.append({name: _rows_first(posterior, name, value, 0, plate) for name, value in expected.items()})
        progress(stop - start)
    progress.close()
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _checked(posterior: Posterior, latents: Mapping[str, Tensor], plate: str) -> int:
    sites = {site.name: site for site in posterior.table.of_kind("latent")}
    if set(latents) != set(sites):
        raise UsageError(
            f"decode: expected values of {listed(map(repr, sites))}, found {listed(map(repr, latents)) or 'none'}."
        )
    counts = set()
    for name, value in latents.items():
        site = sites[name]
        shape = [*site.batch_shape, *site.event_shape]
        if plate in site.dim_names:
            del shape[site.dim_names.index(plate)]
        if tuple(value.shape[1:]) != tuple(shape):
            raise UsageError(
                f"decode: latent {name!r} has shape {tuple(shape)} for each observation, found {tuple(value.shape)}; give "
                f"(n, {', '.join(map(str, shape))})."
            )
        if not bool(value.isfinite().all()):
            raise UsageError(f"decode: latent {name!r} has values that are not finite.")
        counts.add(len(value))
    if len(counts) != 1:
        raise UsageError(f"decode: the latents are of {sorted(counts)} observations; give as many of each.")
    return counts.pop()


def _in_plate(posterior: Posterior, name: str, value: Tensor, plate: str) -> Tensor:
    names = posterior.table[name].dim_names
    return value.movedim(0, names.index(plate)) if plate in names else value


def generate(
    posterior: Posterior, calls: Callable[[int, int], Arguments], num_rows: int, *, seed: int, progress: Progress
) -> dict[str, Tensor]:
    """New observations in two steps, z from the prior and x from p(x | z): every site of the model -> ``(n, *event shape)``.

    Args:
        posterior: of the fit, for its sites.
        calls: the call on rows from one to another, from which come shapes, and what the model reads beside observing it.

    Raises:
        UsageError: a latent is shared by all observations.
        ModelError: a prior is improper, or the model has a ``pyro.factor``.
    """
    plate = _plate_of_rows(posterior)
    shared = [site.name for site in posterior.table.of_kind("latent", "enumerated") if plate not in site.plates]
    if shared:
        raise UsageError(
            f"generate: latent {shared[0]!r} is shared by all observations, so that new ones follow from its posterior, not "
            "from priors alone; use fit.predict(data=...)."
        )
    program = posterior.program
    chunks: list[dict[str, Tensor]] = []
    progress.begin("generate", num_rows)
    with seeded(seed):
        for start in range(0, num_rows, _MOST_ROWS):
            stop = min(start + _MOST_ROWS, num_rows)
            arguments = calls(start, stop)
            with posterior.running(arguments), explained("model", arguments):
                latents, computed, observed = Simulation(program, arguments).draw()
            sites = {**latents, **computed, **observed}
            chunks.append({name: _rows_first(posterior, name, value, 0, plate) for name, value in sites.items()})
            progress(stop - start)
    progress.close()
    apart = {name for name in chunks[0] if plate in posterior.table[name].plates}
    return {name: torch.cat([c[name] for c in chunks]) if name in apart else value for name, value in chunks[0].items()}


def _plate_of_rows(posterior: Posterior) -> str:
    """
    Raises:
        UsageError: the model has no plate that holds all that is observed.
    """
    table = posterior.table
    observed = table.of_kind("observed", "factor")
    common = set.intersection(*(set(site.plates) for site in observed)) if observed else set()
    if not common:
        raise UsageError(
            "generate: no plate of the model contains every observed site, so there are no separate observations to generate; use fit.predict()."
        )
    return max(common, key=lambda name: table.plates[name])


def _known_moments(posterior: Posterior, seed: int) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, int]]:
    """Mean and sd of latents whose distributions in the guide tell them, and do not depend on what it draws; numbers of classes."""
    classes: dict[str, int] = {}

    def moments(own: int) -> dict[str, tuple[Tensor, Tensor]]:
        with seeded(own), posterior.running():
            trace = posterior.evaluation.guide(posterior.program.guide)
            result = {}
            for site in posterior.table.of_kind("latent"):
                fn = trace.nodes[site.name]["fn"]
                shape = trace.nodes[site.name]["value"].shape
                base: Any = base_distribution(fn)
                if isinstance(base, Categorical):
                    classes[site.name] = base.probs.shape[-1]
                    probs = base.probs.expand(*shape, -1)
                    result[site.name] = probs, (probs * (1 - probs)).sqrt()
                    continue
                try:
                    result[site.name] = fn.mean.expand(shape), fn.variance.sqrt().expand(shape)
                except (NotImplementedError, AttributeError):
                    continue
        return result

    one, two = moments(seed), moments((seed + 1) % 2**32)
    known = {
        name: pair
        for name, pair in one.items()
        if name in two
        and all(torch.equal(a, b) and bool(a.isfinite().all()) for a, b in zip(pair, two[name], strict=True))
    }
    return known, classes


def _expected(evaluation: Evaluation) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """The mean of each observed site at one draw of the latents, or a draw where it is not known; of labels, their probabilities.

    A distribution may have `expectations` of its own, to be averaged in place of means, and `of_expectations`, which makes
    values of them.
    """

    def one(latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with Given(latents):
            trace = trace_model(evaluation.program.model, evaluation.arguments)
        result = {}
        for name, value in evaluation.observed.items():
            fn: Any = trace.nodes[name]["fn"]
            try:
                base = base_distribution(fn)
                if isinstance(base, Categorical):
                    result[name] = base.probs.expand(*value.shape, -1)
                elif hasattr(base, "of_expectations"):
                    result[name] = base.expectations.expand(*value.shape[:-1], -1)
                else:
                    result[name] = fn.mean.expand(value.shape)
            except (NotImplementedError, AttributeError):
                result[name] = fn.sample().to(value.dtype)
        return result

    return one


def _likeliest(posterior: Posterior, name: str, value: Tensor) -> Tensor:
    """Labels in place of their probabilities, which have a dimension more than the site; other values as they are."""
    observed = posterior.evaluation.observed[name]
    base: Any = base_distribution(posterior.evaluation.model_trace.nodes[name]["fn"])
    if hasattr(base, "of_expectations"):
        return base.of_expectations(value)  # type: ignore[no-any-return]
    return value.argmax(-1) if value.dim() > observed.dim() else value


def _rows_first(posterior: Posterior, name: str, value: Tensor, axis: int, plate: str | None = None) -> Tensor:
    """`value` of a site, the dimension of its observations moved to `axis`, before which draws stand."""
    plate = plate or posterior.evaluation.row_plate
    names = posterior.table[name].dim_names
    return value.movedim(axis + names.index(plate), axis) if plate in names else value
