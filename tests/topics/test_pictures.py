import numpy as np
import pandas as pd
import pytest
import torch

from tests.topics.models import random_model
from vipack.errors import ShapeError, UsageError
from vipack.topics import document_shares, effect_intervals, shares_over_time, topic_shares


def ticks(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_topics_stand_by_their_share_with_their_words(render):
    topics, theta, corpus = random_model()
    ax = topic_shares(topics, theta, corpus, num_words=3)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == sorted(widths, reverse=True)
    assert sum(widths) == pytest.approx(1)
    first = int(ticks(ax)[0].split()[0])
    assert ticks(ax)[0] == f"{first}  " + ", ".join(corpus.top_words(topics, 3)[first])
    assert topic_shares(topics, theta, corpus, names=list("abcde")).get_yticklabels()[0].get_text()[0] == "abcde"[first]
    render(ax)


def test_the_bars_of_a_document_add_up_to_one(render):
    _, theta, corpus = random_model(12)
    ax = document_shares(torch.tensor(theta), [5, 2], titles=corpus.titles)
    assert ticks(ax) == ["document 5", "document 2"]
    ends = [bar.get_x() + bar.get_width() for bar in ax.containers[-1]]
    np.testing.assert_allclose(ends, 1)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[-1] == "other topics"
    k = int(labels[0].split()[1])
    np.testing.assert_allclose([bar.get_width() for bar in ax.containers[0]], theta[[5, 2], k])
    render(ax)


def test_shares_of_a_period_are_means_over_its_documents(render):
    theta = np.random.default_rng(0).dirichlet(np.ones(3), 90)
    dates = pd.date_range("2001-01-01", "2004-12-31", periods=90)
    axes = shares_over_time(theta, dates, topics=[2])
    expected = [theta[dates.year == year, 2].mean() for year in (2001, 2002, 2003, 2004)]
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), expected)
    assert len(axes[0].collections) == 0
    assert len(shares_over_time(theta, dates, every="M", topics=[0])[0].lines[0].get_ydata()) == 48
    render(axes)


@pytest.mark.parametrize("dates", [[2001, 2003, 2003, np.nan], ["2001-01-01", "2003-01-01", "2003-01-01", None]])
def test_few_dates_are_points_of_their_own_and_missing_ones_are_left_out(dates, render):
    theta = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.3, 0.7]])
    axes = shares_over_time(theta, dates, topics=[0])
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), [1.0, 0.25])
    render(axes)


def test_draws_give_bands_of_their_means(render):
    draws = np.random.default_rng(0).dirichlet(np.ones(2), (200, 30))
    years = np.repeat([2000, 2001, 2002], 10)
    axes = shares_over_time(draws, years, topics=[0])
    low, high = np.quantile(draws[:, :10, 0].mean(1), [0.05, 0.95])
    edge = axes[0].collections[0].get_paths()[0].vertices
    at_first = edge[edge[:, 0] == 2000][:, 1]
    np.testing.assert_allclose([at_first.min(), at_first.max()], [low, high])
    render(axes)


def test_intervals_of_dates_are_drawn_in_their_order():
    theta = np.array([[0.2, 0.8], [0.6, 0.4]])
    axes = shares_over_time(theta, [2001, 2000], lower=theta - 0.1, upper=theta + 0.1, topics=[0])
    edge = axes[0].collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(sorted(set(edge[edge[:, 0] == 2000][:, 1])), [0.5, 0.7])
    with pytest.raises(UsageError, match="several rows have one date"):
        shares_over_time(theta, [2000, 2000], lower=theta, upper=theta)
    with pytest.raises(UsageError, match="found one"):
        shares_over_time(theta, [2000, 2001], lower=theta)


def test_many_numbers_lie_in_sixteen_intervals():
    theta = np.random.default_rng(0).dirichlet(np.ones(2), 300)
    assert len(shares_over_time(theta, np.linspace(0, 1, 300))[0].lines[0].get_xdata()) == 16


def test_effects_stand_by_their_size_and_those_around_zero_are_grey(render):
    table = pd.DataFrame(
        {
            "topic": [0, 1, 2, 0],
            "term": ["age", "age", "age", "party"],
            "mean": [0.1, -0.2, 0.3, 0.0],
            "lower": [-0.1, -0.3, 0.2, -0.1],
            "upper": [0.3, -0.1, 0.4, 0.1],
        }
    )
    axes = effect_intervals(table, names=["a", "b", "c"])
    assert [ax.get_title(loc="left") for ax in axes] == ["age", "party"]
    assert ticks(axes[0]) == ["c", "a", "b"]
    assert len({axes[0].lines[i].get_color() for i in (1, 5)} | {axes[0].lines[3].get_color()}) == 2
    np.testing.assert_allclose(axes[0].lines[1].get_xdata(), [0.2, 0.4])
    assert ticks(effect_intervals(table.assign(topic=["x", "y", "z", "x"]), terms=["age"])[0]) == ["z", "x", "y"]
    with pytest.raises(UsageError, match="no 'sex' in the table, which has 'age', 'party'"):
        effect_intervals(table, terms=["sex"])
    with pytest.raises(UsageError, match="topic 2 is unknown"):
        effect_intervals(table, names=["a", "b"])
    render(axes)


def test_given_axes_are_used(own_axes):
    topics, theta, corpus = random_model()
    (mine,) = own_axes(1)
    assert topic_shares(topics, theta, corpus, ax=mine) is mine
    assert document_shares(theta, ax=mine) is mine
    two = own_axes(2)
    assert list(shares_over_time(theta, np.arange(40), topics=[0, 1], axes=two)) == two


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda theta: document_shares(theta, [40]), UsageError, "documents: expected numbers from 0 to 39, found 40"),
        (lambda theta: document_shares(theta, []), UsageError, "found none"),
        (lambda theta: document_shares(theta, names=["a"]), UsageError, "names: expected 5"),
        (lambda theta: shares_over_time(theta, [2000]), ShapeError, "dates: expected 40.*found 1"),
        (lambda theta: shares_over_time(theta, np.full(40, np.nan)), UsageError, "dates: all are missing"),
        (lambda theta: shares_over_time(theta, ["soon"] * 40), UsageError, "dates: expected numbers or dates as in 2001-12-31"),
        (lambda theta: shares_over_time(theta, np.arange(40), every="Y"), UsageError, "every: periods 'Y' are for dates"),
        (lambda theta: shares_over_time(theta, np.arange(40), topics=[5]), UsageError, "topics: expected numbers from 0 to 4"),
        (lambda theta: shares_over_time(theta[0], np.arange(40)), ShapeError, r"expected \(D, K\) or draws"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(random_model()[1])
