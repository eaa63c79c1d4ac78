import datetime

import numpy as np
import pandas as pd
import pytest
import torch

from vipack.topics.covariate_levels import columns_of, level_means, levels_of


def levels(values):
    return levels_of(pd.Series(values))


def test_categories_are_levels_and_missing_ones_are_counted():
    found = levels(["b", "a", None, "b"])
    assert (found.names, found.codes.tolist(), found.missing, found.ordered) == (("a", "b"), [1, 0, -1, 1], 1, False)
    assert levels([True, False]).names == ("False", "True")


def test_ordered_categories_keep_their_order():
    found = levels(pd.Categorical(["low", "high", "low"], ["low", "mid", "high"], ordered=True))
    assert (found.names, found.codes.tolist(), found.ordered) == (("low", "high"), [0, 1, 0], True)


def test_few_numbers_are_levels_in_their_order():
    found = levels([10, 2, 2, 1])
    assert (found.names, found.codes.tolist(), found.ordered) == (("1", "2", "10"), [2, 1, 1, 0], True)
    assert levels([1.0, np.inf, np.nan]).missing == 2


def test_many_numbers_are_cut_into_bins_of_as_many_documents():
    found = levels(np.arange(80.0))
    assert np.bincount(found.codes).tolist() == [10] * 8
    assert (found.names[0], found.names[-1], found.ordered) == ("0 to 9", "70 to 79", True)
    skewed = levels([0.0] * 60 + list(range(1, 21)))
    assert skewed.names[0] == "0"
    assert set(skewed.codes) == set(range(len(skewed.names)))


@pytest.mark.parametrize(
    ("dates", "names"),
    [
        (pd.to_datetime([f"{year}-03-01" for year in range(2001, 2006)]), ("2001", "2002", "2003", "2004", "2005")),
        (pd.to_datetime([f"2001-{month:02}-01" for month in range(1, 13)]), ("2001Q1", "2001Q2", "2001Q3", "2001Q4")),
        (pd.period_range("2001", "2004", freq="Y"), ("2001", "2002", "2003", "2004")),
        ([datetime.date(2001, 1, day) for day in (1, 2, 3, 4)], tuple(f"2001-01-0{day}" for day in (1, 2, 3, 4))),
        (pd.date_range("2001-01-01", periods=28), tuple(f"week of 2001-01-{day:02}" for day in (1, 8, 15, 22))),
        (pd.to_datetime(["2001-01-01", "2001-01-02"]).tz_localize("UTC"), ("2001-01-01", "2001-01-02")),
    ],
)
def test_dates_lie_in_the_longest_periods_that_tell_four_apart(dates, names):
    assert levels(dates).names == names


def test_differences_of_times_are_days():
    assert levels(pd.to_timedelta([36, 12], unit="h")).names == ("0.5", "1.5")


def test_the_rarest_of_many_levels_are_left_out():
    values = [f"level {i:02}" for i in range(25) for _ in range(i + 1)]
    found = levels(values)
    assert (len(found.names), found.left_out, found.names[0]) == (20, 5, "level 05")
    assert (found.codes == -1).sum() == 1 + 2 + 3 + 4 + 5
    assert found.names[found.codes[-1]] == "level 24"


def test_a_column_without_values_has_no_levels():
    assert levels([None, None]).names == levels([np.nan, np.nan]).names == ()


def test_columns_are_matched_by_position():
    frame = pd.DataFrame({"x": [1, 2]}, index=[7, 3])
    assert columns_of(frame, 2)["x"].tolist() == [1, 2]
    assert columns_of(frame["x"], 2)["x"].tolist() == [1, 2]
    assert columns_of({"t": torch.tensor([1.0, 2.0])}, 2)["t"].tolist() == [1, 2]
    assert columns_of(None, 2) == {}


def test_means_have_standard_errors_over_documents():
    theta = np.random.default_rng(0).dirichlet(np.ones(3), 6)
    sizes, means, errors = level_means(np.array([0, 0, 0, 1, -1, 0]), 2, theta)
    assert sizes.tolist() == [4, 1]
    np.testing.assert_allclose(means[0], theta[[0, 1, 2, 5]].mean(0))
    np.testing.assert_allclose(errors[0], theta[[0, 1, 2, 5]].std(0, ddof=1) / 2)
    assert np.isnan(errors[1]).all()
