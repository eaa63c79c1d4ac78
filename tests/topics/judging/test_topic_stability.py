"""Topics matched between runs, with overlaps that are known."""

import numpy as np
import pytest
import torch

from vipack.errors import ShapeError, UsageError
from vipack.topics import match_topics, stability


def topic(*words, size=40):
    weights = np.full(size, 1e-6)
    weights[list(words)] = np.linspace(1.0, 0.9, len(words))
    return weights


ONE = np.stack([topic(*range(10)), topic(*range(10, 20)), topic(*range(20, 30))])


def shared(count):
    """A topic that shares `count` of its ten words with the first of `ONE`."""
    return topic(*range(count), *range(30, 40 - count))


def test_the_same_topics_in_another_order():
    order = [2, 0, 1]
    result = stability(ONE, [ONE[order]])
    assert result.matches[:, 0].tolist() == [1, 2, 0]
    assert result.jaccard.tolist() == [[1.0], [1.0], [1.0]]
    np.testing.assert_allclose(result.cosine, 1.0)
    assert result.stable == (0, 1, 2)
    np.testing.assert_array_equal(ONE[order][match_topics(ONE, ONE[order])], ONE)


@pytest.mark.parametrize(("count", "stable"), [(10, True), (7, True), (6, False), (1, False)])
def test_seven_of_ten_words_in_common_are_stable(count, stable):
    result = stability(ONE, [np.stack([ONE[2], shared(count), ONE[1]])])
    assert result.jaccard[0, 0] == pytest.approx(count / (20 - count))
    assert (0 in result.stable) == stable
    assert {1, 2} <= set(result.stable)


def test_a_topic_is_judged_by_its_mean_over_runs():
    runs = [np.stack([shared(count), ONE[1], ONE[2]]) for count in (10, 4)]
    table = stability(ONE, runs).to_frame()
    assert table.loc[0, "jaccard"] == pytest.approx((1 + 4 / 16) / 2)
    assert table.loc[0, "lowest"] == pytest.approx(0.25)
    assert table["stable"].tolist() == [True, True, True]
    assert stability(ONE, runs, threshold=0.7).stable == (1, 2)


def test_a_mean_at_the_threshold_is_stable_whatever_rounding_says():
    runs = [np.stack([shared(count), ONE[1], ONE[2]]) for count in (4, 4, 8, 8, 8)]
    result = stability(ONE, runs)
    assert result.jaccard[0].mean() < 0.5  # 2 of 1/4 and 3 of 2/3, in floats
    assert 0 in result.stable
    assert result.to_frame().stable[0]
    assert 0 not in stability(ONE, runs, threshold=0.5 + 1e-6).stable


def test_a_run_of_fewer_topics_leaves_some_without_a_match():
    result = stability(ONE, [ONE[[2, 0]]])
    assert result.matches[:, 0].tolist() == [1, -1, 0]
    assert result.jaccard[:, 0].tolist() == [1.0, 0.0, 1.0]
    assert result.cosine[1, 0] == 0.0
    assert result.to_frame()["runs"].tolist() == [1, 0, 1]
    assert match_topics(ONE, ONE[:1]).tolist() == [0, -1, -1]


def test_a_run_of_more_topics_has_some_left_over():
    more = np.vstack([topic(*range(30, 40)), ONE])
    assert match_topics(ONE, more).tolist() == [1, 2, 3]
    assert stability(ONE, [more]).mean == 1.0


def test_matches_are_the_best_together_and_not_one_by_one():
    # Both want the first topic; the second topic of the run is all that is left for one of them.
    reference = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    other = np.array([[0.85, 0.15, 0.0], [0.3, 0.7, 0.0]])
    assert match_topics(reference, other).tolist() == [0, 1]
    assert match_topics(reference[::-1], other).tolist() == [1, 0]


def test_runs_may_be_one_array():
    runs = np.stack([ONE[[2, 0, 1]], ONE[[1, 2, 0]]])
    assert (
        stability(ONE, runs).matches.tolist() == stability(ONE, list(runs)).matches.tolist() == [[1, 2], [2, 0], [0, 1]]
    )


def test_words_are_shown_and_weights_need_not_be_normalised():
    words = [f"w{i}" for i in range(40)]
    result = stability(torch.tensor(30 * ONE), [ONE], num_words=3, vocabulary=words)
    assert result.words[1] == ("w10", "w11", "w12")
    assert stability(ONE, [ONE]).words[0][:2] == ("0", "1")


def test_the_text_tells_which_topics_are_not_stable():
    text = str(stability(ONE, [np.stack([shared(3), ONE[1], ONE[2]])]))
    assert text.startswith("2 of 3 topics are stable: the Jaccard index of their 10 leading words")
    assert "stable: 1, 2" in text
    assert "not stable, least first: 0" in text


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: stability(ONE, []), UsageError, "at least one"),
        (lambda: stability(ONE, ONE), UsageError, r"found ndarray of shape \(3, 40\)"),
        (lambda: stability(ONE, None), UsageError, "found NoneType"),
        (lambda: stability(ONE, [ONE[:, :30]]), ShapeError, r"runs\[0\]: topics over 30 words, reference over 40"),
        (lambda: stability(ONE, [ONE], num_words=41), UsageError, "num_words"),
        (lambda: stability(ONE, [ONE], threshold=0), UsageError, "threshold"),
        (lambda: stability(ONE, [ONE], threshold="half"), UsageError, "threshold"),
        (lambda: stability(ONE, [ONE], vocabulary=["a"]), UsageError, "1 words for topics over 40"),
        (lambda: match_topics(ONE, ONE[:, 1:]), ShapeError, "topics over 39"),
    ],
)
def test_what_cannot_be_matched_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
