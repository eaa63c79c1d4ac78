"""Stop rules on made-up losses, whose true gain is known."""

import math

import numpy as np
import pytest

import vipack as vi
from vipack.training.stopping import asked, rules_of
from vipack.types import StopReason

NUM_RUNS = 100
STEP = np.arange(5_000)


def first_stop(losses, rule=None):
    """The step at which a run with these losses ends; the rule is asked every hundred steps."""
    rule = rule or vi.Converged()
    for step in range(100, len(losses) + 1, 100):
        if rule(losses[:step], 0.0) is not None:
            return step
    return math.inf


def stops_of(losses, num_runs=NUM_RUNS):
    return np.array([first_stop(losses(np.random.default_rng(seed))) for seed in range(num_runs)])


def correlated(rng, size, phi=0.9):
    """Unit-variance noise in which neighbours are alike, as with minibatches or slow parameters."""
    shocks = rng.normal(size=size) * math.sqrt(1 - phi**2)
    values = np.empty(size)
    values[0] = rng.normal()
    for i in range(1, size):
        values[i] = phi * values[i - 1] + shocks[i]
    return values


PLATEAUS = {
    "normal noise": lambda rng: rng.normal(size=2_000),
    "heavy tails": lambda rng: rng.standard_t(2, size=2_000),
    "correlated noise": lambda rng: correlated(rng, 2_000),
    "no noise": lambda rng: np.full(2_000, 7.0),
    "a rising loss": lambda rng: np.arange(2_000.0) / 100 + rng.normal(size=2_000),
}


@pytest.mark.parametrize("noise", PLATEAUS)
def test_a_plateau_ends_the_run_within_a_few_looks(noise):
    stops = stops_of(PLATEAUS[noise])
    assert stops.min() == 600
    assert np.mean(stops <= 800) >= 0.9  # each look lets 84% of plateaus end: a gain of one standard error is chance
    assert stops.max() <= 1_500


FALLING = {
    # A third of 600 steps gains four standard errors, and later thirds more.
    "a slow line": lambda rng: -STEP * 4 * math.sqrt(2 / 200) / 200 + rng.normal(size=5_000),
    "an exponential": lambda rng: 100 * np.exp(-STEP / 1_000) + rng.normal(size=5_000),
    "a power": lambda rng: 1e4 / (1 + STEP) + rng.normal(size=5_000),
    "with spikes": lambda rng: 100 * np.exp(-STEP / 1_000) + rng.normal(size=5_000) + 1e4 * (rng.random(5_000) < 0.002),
    "with heavy tails": lambda rng: 100 * np.exp(-STEP / 1_000) + rng.standard_t(1.5, size=5_000),
    "with correlated noise": lambda rng: 100 * np.exp(-STEP / 1_000) + correlated(rng, 5_000),
}


@pytest.mark.parametrize("shape", FALLING)
def test_a_run_that_still_gains_is_not_stopped(shape):
    """The false-stop rate over a whole run of fifty looks is at most two in a hundred."""
    stops = stops_of(FALLING[shape], num_runs=50 if shape == "with correlated noise" else NUM_RUNS)
    assert np.mean(stops < 4_000) <= 0.02


def test_a_run_that_has_arrived_ends():
    """An exponential approach with time constant 200 is over after 2,000 steps; the rule sees it by 4,500."""
    stops = stops_of(lambda rng: 50 * np.exp(-STEP / 200) + rng.normal(size=5_000))
    assert np.mean(stops <= 4_500) >= 0.98
    assert (50 * np.exp(-stops / 200)).max() < 0.1


def test_a_larger_tolerance_stops_sooner_and_min_steps_holds():
    losses = -STEP * 4 * math.sqrt(2 / 200) / 200 + np.random.default_rng(0).normal(size=5_000)
    assert first_stop(losses, vi.Converged(tolerance=50.0)) == 600
    assert first_stop(losses, vi.Converged(tolerance=50.0, min_steps=1_234)) == 1_300
    assert first_stop(losses, vi.Converged()) == math.inf


def test_the_reason_tells_the_gain_and_its_noise():
    found = vi.Converged()(np.random.default_rng(0).normal(size=600), 0.0)
    assert found.reason is StopReason.CONVERGED
    assert str(found).startswith("converged: over the last 200 steps the loss fell by ")


def test_a_rule_depends_on_its_arguments_alone():
    losses = np.random.default_rng(1).normal(size=900)
    rule = vi.Converged()
    assert rule(losses, 0.0) == rule(losses.copy(), 9.0) == vi.Converged()(list(losses), 1.0)


def test_the_clock():
    rule = vi.TimeLimit(2.0)
    assert rule([1.0], 1.9) is None
    found = rule([1.0], 2.1)
    assert found.reason is StopReason.TIME
    assert str(found) == "time used up: 2.1 s of the 2 s allowed"


@pytest.mark.parametrize("wrong", [300, "converged", vi.Converged, (vi.Converged(), None)])
def test_what_is_no_rule_is_refused(wrong):
    with pytest.raises(vi.errors.UsageError, match="stop: expected a rule such as"):
        rules_of(wrong)


@pytest.mark.parametrize("answer", [True, "enough", StopReason.TIME], ids=repr)
def test_a_rule_that_gives_no_reason_is_refused(answer):
    def rule(losses, seconds):
        return answer

    with pytest.raises(vi.errors.UsageError, match=r"the rule rule returned .*vipack\.types\.Stopped"):
        asked(rule, [1.0], 0.1)
    assert asked(lambda losses, seconds: None, [1.0], 0.1) is None
