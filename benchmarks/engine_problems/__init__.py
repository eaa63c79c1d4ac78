"""The models of the engine's benchmark, each for Pyro and for NumPyro, and what times them."""

from __future__ import annotations

from benchmarks.engine_problems.problem import Problem

__all__ = ["NAMES", "problems"]

NAMES = (
    "eight schools, AutoNormal",
    "eight schools, AutoMultivariateNormal",
    "eight schools, AutoLowRankMultivariateNormal",
    "GP regression 100",
    "Gaussian mixture, TraceEnum",
    "logistic regression 2000x50",
    "varying intercepts 10000/100",
    "marginalised LDA, 20 topics",
    "VAE batch 128",
    "VAE batch 16",
)


def problems() -> dict[str, Problem]:
    """Those on full data, by name; the VAEs have methods of their own."""
    from benchmarks.engine_problems import counts, regressions

    return {p.name: p for p in [*regressions.problems(), *counts.problems()]}
