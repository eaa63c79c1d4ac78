import numpy as np
import pandas as pd
import pytest

from vipack.errors import UsageError
from vipack.topics.effect_table import Effect, effects_of


def table(**columns):
    given = {"topic": [0, 1], "term": ["x", "y"], "mean": [0.1, 0.2], "lower": [0.0, 0.1], "upper": [0.2, 0.3]}
    return pd.DataFrame({**given, **columns})


def test_topics_stand_by_number_or_name():
    assert effects_of(table())[1] == Effect(1, "y", 0.2, 0.1, 0.3)
    assert [e.topic for e in effects_of(table(topic=["b", "a"]), 2, ("a", "b"))] == [1, 0]
    assert [e.topic for e in effects_of(table(topic=np.array([1.0, 0.0])), 2)] == [1, 0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (table().drop(columns="upper"), "no column 'upper'"),
        (table().iloc[:0], "found no row"),
        ({"topic": [0]}, "expected a DataFrame with columns topic, term, mean, lower, upper, found dict"),
        (table(lower=[0.15, 0.1]), "row 0 has mean 0.1 and interval 0.15 to 0.2"),
        (table(mean=[0.1, np.nan]), "row 1 has mean nan"),
        (table(upper=[0.2, np.inf]), "row 1 has mean 0.2 and interval 0.1 to inf"),
        (table(topic=[0, 2]), "topic 2 is unknown; expected a number from 0 to 1"),
        (table(topic=["a", "c"]), "topic 'c' is unknown"),
        (table(topic=[0, -1]), "topic -1 is unknown"),
        (table(topic=[0, 0.5]), "topic 0.5 is unknown"),
        (table(topic=[0, np.nan]), "topic nan is unknown"),
        (table(topic=[0, None]), "topic nan is unknown"),
    ],
)
def test_what_is_no_table_of_effects_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        effects_of(given, 2, ("a", "b"))
