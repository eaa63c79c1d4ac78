"""What a comparison of numbers of topics says, in plain sentences that claim no more than was checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from vipack.display import listed
from vipack.topics.judging.estimates import with_error
from vipack.topics.judging.topic_stability import Stability
from vipack.topics.judging.topic_words import Array
from vipack.types import Estimate

__all__ = ["CLEAR", "Tried", "conclusions"]

CLEAR = 2.0  # standard errors


class Tried(Protocol):
    """What is read of a comparison of numbers of topics."""

    @property
    def num_topics(self) -> tuple[int, ...]:
        """Ascending."""

    @property
    def sufficient(self) -> int | None:
        """Than which no larger one predicts clearly better."""

    @property
    def npmi(self) -> Mapping[int, Array]:
        """Of each run."""

    @property
    def exclusivity(self) -> Mapping[int, Array]:
        """Of each run."""

    @property
    def stability(self) -> Mapping[int, tuple[Stability, ...]]:
        """Of each run in the others."""

    def gain(self, num_topics: int, other: int) -> Estimate:
        """In nats a token."""

    def nats(self, num_topics: int) -> Estimate:
        """A token."""

    def over_runs(self, values: Mapping[int, Array], num_topics: int) -> Estimate:
        """Their mean."""


def conclusions(choice: Tried) -> str:
    """A line on each measure, and one on what was not checked."""
    single = all(len(runs) == 1 for runs in choice.npmi.values())
    lines = [f"Perplexity: {_perplexity(choice)}"]
    lines += [
        f"{name}: {_highest(choice, values, single)}"
        for name, values in (("NPMI", choice.npmi), ("Exclusivity", choice.exclusivity))
    ]
    lines.append(f"Stability: {_stability(choice.stability)}")
    lines.append(_limits(choice.num_topics, single))
    return "\n".join(lines)


def _perplexity(choice: Tried) -> str:
    tried, enough = choice.num_topics, choice.sufficient
    largest = tried[-1]
    if enough is None:
        before = tried[-2]
        return f"still falls from K = {before} to {largest}, the largest tried, {_by(choice, largest, before)}; larger ones may predict better."
    best = min(tried, key=lambda count: choice.nats(count).value)
    text = f"no longer falls by more than two standard errors after K = {enough}"
    if enough == tried[0]:
        text += ", the smallest tried; smaller ones may predict as well"
    if best != enough:
        text += f"; lowest at K = {best}, {_by(choice, best, enough)}"
    rise = choice.gain(enough, largest)
    if rise.value > CLEAR * rise.se:
        text += f"; higher again at K = {largest}, {_by(choice, enough, largest)}"
    return f"{text}."


def _by(choice: Tried, better: int, worse: int) -> str:
    gain = choice.gain(better, worse)
    return f"by {-math.expm1(-gain.value):.1%} ({with_error(gain.value, gain.se)} nats a token)"


def _highest(choice: Tried, values: Mapping[int, Array], single: bool) -> str:
    means = {count: choice.over_runs(values, count) for count in choice.num_topics}
    best = max(means, key=lambda count: means[count].value)
    text = f"highest at K = {best} ({with_error(means[best].value, means[best].se)})"
    if single:
        return f"{text}; one run of each K, so that no error is known."
    near = [
        count
        for count, mean in means.items()
        if count != best and means[best].value - mean.value <= CLEAR * math.hypot(mean.se, means[best].se)
    ]
    return f"{text}, {_near(near)}."


def _near(near: Sequence[int]) -> str:
    if not near:
        return "all others lower by more than two standard errors"
    return f"within two standard errors of it: K = {listed(map(str, near), 20)}"


def _stability(again: Mapping[int, tuple[Stability, ...]]) -> str:
    means = {count: sum(run.mean for run in runs) / len(runs) for count, runs in again.items() if runs}
    if not means:
        return "not checked; it needs at least two runs of a K."
    best, least = max(means, key=lambda count: means[count]), min(means, key=lambda count: means[count])
    return f"highest at K = {best} (Jaccard index {means[best]:.2f}), lowest at K = {least} ({means[least]:.2f})."


def _limits(tried: tuple[int, ...], single: bool) -> str:
    errors = (
        "errors are over documents alone, one run of each K"
        if single
        else "errors are over documents and runs, NPMI's and exclusivity's over runs"
    )
    return (
        f"Not checked: any K but {listed(map(str, tried), 20)}; whether fits had converged; whether topics mean anything to a reader. "
        f"{errors[0].upper()}{errors[1:]}."
    )
