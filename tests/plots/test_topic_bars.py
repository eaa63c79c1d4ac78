import numpy as np
import pytest
import torch

from vipack import plots
from vipack.errors import UsageError

WORDS = ["file", "path", "lock", "thread"]
TOPICS = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_the_most_probable_words_stand_first_with_their_probabilities(render):
    axes = plots.topics(TOPICS, WORDS, num_words=3)
    assert words(axes[0]) == ["thread", "lock", "path"]
    assert [bar.get_width() for bar in axes[0].patches] == [0.4, 0.3, 0.2]
    assert words(axes[1])[0] == "file"
    assert axes[0].yaxis_inverted()  # the first on top
    assert axes[0].get_xlabel() == "probability"
    render(axes)


def test_topics_share_one_scale():
    one, two = plots.topics(TOPICS, WORDS)
    assert one.get_xlim() == two.get_xlim()


def test_titles_name_topics_and_their_share():
    named = plots.topics(TOPICS, WORDS, titles=["locks", "files"], shares=[0.25, 0.75])
    assert [ax.get_title(loc="left") for ax in named] == ["locks  25%", "files  75%"]
    assert plots.topics(TOPICS, WORDS)[1].get_title(loc="left") == "topic 1"


def test_a_short_vocabulary_has_fewer_bars():
    assert len(plots.topics(torch.tensor(TOPICS), WORDS, num_words=10)[0].patches) == 4


@pytest.mark.parametrize("values", [np.zeros((1, 4)), np.eye(4, dtype=int)])
def test_zeros_and_whole_weights_are_drawn(values, render):
    render(plots.topics(values, WORDS))


def test_given_axes_are_used(own_axes):
    mine = own_axes(2)
    assert list(plots.topics(TOPICS, WORDS, axes=mine)) == mine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"topic_words": TOPICS[:, :3]}, r"topic_words: expected shape \(K, 4\).* found \(2, 3\)"),
        ({"topic_words": TOPICS[0]}, "topic_words: expected shape"),
        ({"topic_words": np.log(TOPICS)}, "negative"),
        ({"topic_words": TOPICS * np.nan}, "non-finite"),
        ({"num_words": 0}, "num_words: expected a positive integer"),
        ({"shares": [1.0]}, "shares: expected one for each of 2 topics, found 1"),
        ({"titles": ["a", "b", "c"]}, "titles: expected one for each of 2 topics, found 3"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        plots.topics(**{"topic_words": TOPICS, "vocabulary": WORDS, **arguments})
