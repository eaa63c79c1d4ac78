"""How fast fits are: steps a second, beside pyro.infer.SVI on the same models in the same process."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from matplotlib.figure import Figure
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.optim import Adam

import vipack
from vipack.cli.demo.models import INK, VAE, non_centred
from vipack.cli.demo.section import Settings, say
from vipack.errors import MissingExtraError
from vipack.report.content import Picture
from vipack.types import EngineReport

__all__ = ["measure_speed"]

_OURS, _THEIRS, _BETWEEN = "#0072B2", "#6b6b6b", "#e6e6e6"


@dataclass(frozen=True)
class _Problem:
    name: str
    model: Callable[..., Any]
    make_guide: Callable[[], Callable[..., Any]]
    data: tuple[Any, ...]
    most_steps: int


def measure_speed(settings: Settings) -> Picture:
    """Steps a second of both, once they run: what comes before, capturing and compiling, is not counted."""
    rates, begun = {}, 0.0
    for problem in _problems(settings.seed):
        ours, report = _ours(problem, settings)
        begun = max(begun, report.capture_seconds + report.compile_seconds)
        theirs = _theirs(problem, settings)
        rates[problem.name] = (ours, theirs)
        say(f"  {problem.name}: {ours:,.0f} steps a second ({report.tier}), pyro.infer.SVI {theirs:,.0f}")
    say()
    return Picture(
        _drawn(rates),
        "Fit fast: gradient steps a second by vipack.fit and by pyro.infer.SVI, on the same models, guides and data, measured in "
        f"this run on one thread; medians. {_beforehand(begun)} The gain is largest where steps are small, and Python takes most "
        "of the time.",
    )


def _beforehand(seconds: float) -> str:
    """What capturing and compiling took, at most, before steps were counted."""
    if seconds < 0.5:
        return "To prepare a step took less than half a second."
    return f"To capture and compile a step took up to {seconds:.0f} s, which is not counted."


def _problems(seed: int) -> list[_Problem]:
    schools = vipack.datasets.eight_schools()
    data = tuple(torch.as_tensor(schools[name], dtype=torch.float32) for name in ("y", "sigma"))
    problems = [
        _Problem("eight schools, mean-field", non_centred, lambda: AutoNormal(non_centred), data, 200_000),
        _Problem("eight schools, full-rank", non_centred, lambda: AutoMultivariateNormal(non_centred), data, 200_000),
    ]
    torch.manual_seed(seed)
    vae = VAE()
    with contextlib.suppress(MissingExtraError):  # in a bare environment there are no digits
        images = torch.from_numpy(INK * vipack.datasets.digits().rows[:128])
        problems.append(_Problem("VAE, 128 images a step", vae.model, lambda: vae.guide, (images,), 1_000))
    return problems


def _ours(problem: _Problem, settings: Settings) -> tuple[float, EngineReport]:
    """Steps a second in the second half of a run, the median of its tenths, and the engine's report."""
    steps = problem.most_steps // 50 if settings.quick else problem.most_steps
    points: list[tuple[int, float]] = []
    fit = vipack.fit(
        problem.model,
        problem.make_guide(),
        data=problem.data,
        optim=Adam({"lr": 1e-3}),
        steps=steps,
        seed=settings.seed,
        engine="auto" if settings.quick else "compiled",  # where a long run comes to by itself, once it is compiled
        progress=False,
        callbacks=vipack.Every(steps // 10, lambda progress: points.append((progress.step, progress.seconds))),
    )
    rates = [
        (last - first) / max(ended - begun, 1e-9)
        for (first, begun), (last, ended) in itertools.pairwise(points[len(points) // 2 - 1 :])
    ]
    return statistics.median(rates), fit.engine


def _theirs(problem: _Problem, settings: Settings) -> float:
    with pyro.get_param_store().scope():
        svi = SVI(problem.model, problem.make_guide(), Adam({"lr": 1e-3}), Trace_ELBO())
        for _ in range(3):
            svi.step(*problem.data)
        times: list[float] = []
        while sum(times) < (0.2 if settings.quick else 2.0):
            started = time.perf_counter()
            svi.step(*problem.data)
            times.append(time.perf_counter() - started)
    return 1 / statistics.median(times)


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _drawn(rates: dict[str, tuple[float, float]]) -> Figure:
    figure = Figure(figsize=(5.2, 0.55 + 0.75 * len(rates)), layout="constrained")
    ax = figure.add_subplot()
    for row, (ours, theirs) in enumerate(rates.values()):
        ax.plot([theirs, ours], [row, row], color=_BETWEEN, linewidth=3, zorder=1)
        for rate, colour, name in ((theirs, _THEIRS, "Pyro"), (ours, _OURS, "vipack")):
            ax.plot(rate, row, "o", color=colour, markersize=9)
            side, stands = (-0.16, "bottom") if name == "vipack" else (0.16, "top")
            ax.text(rate, row + side, f"{name} {rate:,.0f}", ha="center", va=stands, fontsize=9, color=colour)
        ax.text(max(ours, theirs) * 1.4, row, f"{_times(ours / theirs)} times", va="center", fontsize=9)
    ax.set_xscale("log")
    ax.set_xlim(min(min(pair) for pair in rates.values()) / 3, max(max(pair) for pair in rates.values()) * 15)
    ax.set_yticks(range(len(rates)), [textwrap.fill(name, 14) for name in rates], fontsize=9)
    ax.set_ylim(len(rates) - 0.5, -0.6)
    ax.set_xlabel("gradient steps a second (logarithmic)", fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    for edge in ("top", "right", "left"):
        ax.spines[edge].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure
