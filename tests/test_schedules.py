"""Schedules give the numbers of their formulas, and refuse what they cannot use."""

import math
import pickle

import pytest

from vipack.errors import UsageError
from vipack.schedules import Cosine, Cyclical, Exponential, Function, Linear, Schedule


@pytest.mark.parametrize("kind", [Linear, Cosine, Exponential])
def test_it_goes_from_start_to_end_and_stays(kind):
    schedule = kind(2.0, 0.5, 10, delay=5)
    values = [schedule(step) for step in range(30)]
    assert values[:6] == [2.0] * 6
    assert values[15:] == [0.5] * 15
    assert values == sorted(values, reverse=True)
    assert len(set(values[5:16])) == 11


def test_formulas():
    assert Linear(0.0, 1.0, 4)(1) == 0.25
    assert Cosine(0.0, 1.0, 4)(2) == pytest.approx(0.5)
    assert Cosine(1.0, 0.0, 4)(1) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert Exponential(1.0, 0.01, 4)(2) == pytest.approx(0.1)


def test_cycles_rise_over_their_share_and_hold():
    schedule = Cyclical(10, ratio=0.5, cycles=2)
    assert [schedule(step) for step in range(10)] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1])
    assert schedule(12) == pytest.approx(0.4)
    assert [schedule(step) for step in (20, 22)] == [1.0, 1.0]
    assert Cyclical(10)(22) == pytest.approx(0.4)


def test_they_show_themselves_and_travel():
    schedule = Linear(0.0, 1.0, 100)
    assert repr(schedule) == "Linear(start=0.0, end=1.0, steps=100, delay=0)"
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert repr(Function(math.sqrt)) == "Function(sqrt)"
    assert isinstance(Function(math.sqrt), Schedule)
    assert Function(math.sqrt)(4) == 2.0


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Linear(0.0, 1.0, 0), "steps"),
        (lambda: Linear(0.0, 1.0, 2.5), "steps"),
        (lambda: Linear(0.0, 1.0, 5, delay=-1), "delay"),
        (lambda: Linear(math.nan, 1.0, 5), "start"),
        (lambda: Cosine(0.0, "1", 5), "end"),
        (lambda: Exponential(1.0, 0.0, 5), "end"),
        (lambda: Cyclical(0), "period"),
        (lambda: Cyclical(10, ratio=1.5), "ratio"),
        (lambda: Cyclical(10, cycles=True), "cycles"),
        (lambda: Function(3.0), "function"),
    ],
)
def test_what_no_schedule_can_have_is_refused(make, named):
    with pytest.raises(UsageError, match=named):
        make()
