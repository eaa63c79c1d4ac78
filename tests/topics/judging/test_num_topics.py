"""How many topics: documents of a model whose number is known, and topics that are the right ones, merged or split."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from vipack.datasets import Corpus
from vipack.errors import DataError, ShapeError, SignatureError, UsageError
from vipack.topics import NumTopicsChoice, choose_num_topics, completion, num_topics_curves
from vipack.topics.judging.conclusions import conclusions
from vipack.topics.judging.estimates import rate
from vipack.types import Estimate

V = 30
TRUE = 0.98 * np.kron(np.eye(3), np.linspace(1.5, 0.5, 10) / 10) + 0.02 / V


def documents(num_documents=150, seed=0):
    rng = np.random.default_rng(seed)
    counts = np.stack([rng.multinomial(40, rng.dirichlet(np.full(3, 0.3)) @ TRUE) for _ in range(num_documents)])
    return Corpus(
        "made", counts, [f"w{i}" for i in range(V)], [f"d{i}" for i in range(num_documents)], "a test", "none"
    )


def topics_of(num_topics, seed):
    """The true topics, merged where there are fewer, with random ones where there are more, and a little noise of the seed."""
    rng = np.random.default_rng([num_topics, seed])
    groups = {1: [[0, 1, 2]], 2: [[0], [1, 2]]}.get(num_topics, [[0], [1], [2]])
    noisy = np.stack([TRUE[group].mean(0) for group in groups]) * np.exp(0.05 * rng.standard_normal((len(groups), V)))
    return np.vstack([noisy, rng.dirichlet(np.ones(V), num_topics - len(groups))])


@pytest.fixture(scope="module")
def choice():
    return choose_num_topics(topics_of, documents(), num_topics=[5, 1, 3, 2], seeds=3)


def test_the_number_that_the_documents_have_is_sufficient(choice):
    assert choice.num_topics == (1, 2, 3, 5)
    assert choice.sufficient == 3
    assert choice.gain(2, 1).value > 0.1
    assert "Perplexity: no longer falls by more than two standard errors after K = 3" in choice.reading


@pytest.mark.parametrize(("gain", "sufficient"), [(0.019, 1), (0.021, None)])
def test_a_gain_counts_from_two_standard_errors(choice, monkeypatch, gain, sufficient):
    monkeypatch.setattr(NumTopicsChoice, "gain", lambda self, larger, smaller: Estimate(gain, 0.01))
    assert choice.sufficient == sufficient


def test_a_larger_number_counts_even_where_the_next_gains_nothing(choice, monkeypatch):
    values = {1: 0.0, 2: 0.0, 3: 0.1, 5: 0.1}
    monkeypatch.setattr(
        NumTopicsChoice, "gain", lambda self, larger, smaller: Estimate(values[larger] - values[smaller], 0.01)
    )
    assert choice.sufficient == 3


def test_a_gain_is_the_paired_difference_with_the_error_of_runs(choice):
    mean = {k: np.mean([run.log_probability for run in choice.completions[k]], 0) for k in (2, 3)}
    sizes = choice.completions[2][0].num_tokens
    paired = rate(mean[3] - mean[2], sizes)
    nats = {k: np.array([run.nats.value for run in runs]) for k, runs in choice.completions.items()}
    pooled = np.mean([runs.var(ddof=1) for runs in nats.values()])
    gain = choice.gain(3, 2)
    assert gain.value == pytest.approx(paired.value) == pytest.approx(nats[2].mean() - nats[3].mean())
    assert gain.se == pytest.approx(math.sqrt(paired.se**2 + 2 * pooled / 3))
    assert choice.gain(2, 3).value == pytest.approx(-gain.value)


def test_the_table_holds_what_the_functions_give(choice):
    table = choice.to_frame()
    assert table.index.tolist() == [1, 2, 3, 5]
    assert math.isnan(table.gain[1])
    assert table.gain[3] == pytest.approx(choice.gain(3, 2).value)
    one = completion(topics_of(3, 1), documents())
    np.testing.assert_allclose(choice.completions[3][1].log_probability, one.log_probability)
    assert table.perplexity[3] == pytest.approx(math.exp(np.mean([run.nats.value for run in choice.completions[3]])))
    assert table.npmi[3] == pytest.approx(choice.npmi[3].mean())
    assert table.runs.tolist() == [3, 3, 3, 3]
    assert (table.stable[3], table.jaccard[3]) == (1.0, 1.0)
    assert table.stable[5] == pytest.approx(3 / 5)


def test_the_text_is_the_table_and_the_reading(choice):
    text = str(choice)
    assert text.endswith(choice.reading)
    assert text.splitlines()[0].split() == [
        "K",
        "perplexity",
        "gain,",
        "nats",
        "a",
        "token",
        "NPMI",
        "exclusivity",
        "Jaccard",
        "stable",
    ]
    assert "Not checked: any K but 1, 2, 3, 5" in text


def test_a_dict_of_runs_gives_the_same(choice):
    fits = {k: [topics_of(k, seed) for seed in range(3)] for k in (3, 1, 2, 5)}
    again = choose_num_topics(fits, documents())
    np.testing.assert_allclose(again.to_frame(), choice.to_frame())


def test_runs_may_come_from_a_generator_or_be_one_array():
    fits = {2: (topics_of(2, seed) for seed in range(2)), 3: np.stack([topics_of(3, seed) for seed in range(2)])}
    assert choose_num_topics(fits, documents(40)).to_frame()["runs"].tolist() == [2, 2]


def test_one_run_of_each_leaves_stability_and_the_error_of_runs_open():
    single = choose_num_topics({2: topics_of(2, 0), 3: [topics_of(3, 0)]}, documents())
    table = single.to_frame()
    assert table[["npmi_se", "exclusivity_se", "jaccard", "stable"]].isna().all(axis=None)
    assert single.gain(3, 2).se == pytest.approx(single.completions[3][0].difference(single.completions[2][0]).nats.se)
    assert single.sufficient is None
    assert "Perplexity: still falls from K = 2 to 3, the largest tried, by 2" in single.reading
    assert "Stability: not checked" in single.reading
    assert "one run of each K, so that no error is known" in single.reading


def read(nats, sufficient, **others):
    """The reading of made-up figures; errors are 0.01 everywhere."""
    again = others.get("again", dict.fromkeys(nats, ()))
    return conclusions(
        SimpleNamespace(
            num_topics=tuple(nats),
            sufficient=sufficient,
            npmi=others.get("npmi", {k: np.array([0.1, 0.1]) for k in nats}),
            exclusivity={k: np.array([9.0, 9.0]) for k in nats},
            stability=again,
            nats=lambda k: Estimate(nats[k], 0.01),
            gain=lambda one, two: Estimate(nats[two] - nats[one], 0.01),
            over_runs=lambda values, k: Estimate(float(values[k].mean()), 0.01),
        )
    )


def test_a_reading_says_where_a_lower_perplexity_is_not_clear():
    text = read({10: 7.9, 20: 7.5, 30: 7.49}, 20)
    assert "after K = 20; lowest at K = 30, by 1.0% (0.010 ± 0.010 nats a token)." in text


def test_a_reading_says_where_perplexity_rises_again():
    assert "; higher again at K = 30, by 9.5% (0.100 ± 0.010 nats a token)." in read({10: 7.9, 20: 7.5, 30: 7.6}, 20)


def test_a_reading_says_that_the_smallest_tried_may_be_too_many():
    assert "after K = 10, the smallest tried; smaller ones may predict as well" in read({10: 7.5, 20: 7.5}, 10)


def test_a_reading_names_what_lies_within_two_standard_errors():
    npmi = {10: np.array([0.3, 0.3]), 20: np.array([0.29, 0.29]), 30: np.array([0.2, 0.2])}
    text = read({10: 7.9, 20: 7.5, 30: 7.5}, 20, npmi=npmi)
    assert "NPMI: highest at K = 10 (0.300 ± 0.010), within two standard errors of it: K = 20." in text
    npmi[20] = np.array([0.1, 0.1])
    assert "all others lower by more than two standard errors" in read({10: 7.9, 20: 7.5, 30: 7.5}, 20, npmi=npmi)


def test_curves_show_means_runs_and_where_perplexity_stops_falling(choice):
    panels = num_topics_curves(choice)
    assert [ax.get_title(loc="left") for ax in panels] == [
        "perplexity of held-out words", "NPMI of 10 words", "exclusivity of 10 words", "stability (Jaccard index)",
    ]  # fmt: skip
    line = panels[0].lines[4]
    assert line.get_xdata().tolist() == [1, 2, 3, 5]
    np.testing.assert_allclose(line.get_ydata(), choice.to_frame().perplexity)
    assert len(panels[0].lines[0].get_ydata()) == 3
    assert "K = 3" in panels[0].texts[0].get_text()


def test_curves_of_single_runs_go_on_given_axes():
    single = choose_num_topics({2: topics_of(2, 0), 3: topics_of(3, 0)}, documents(60))
    axes = Figure().subplots(2, 2)
    assert num_topics_curves(single, axes).tolist() == axes.ravel().tolist()
    assert axes[1, 1].texts[0].get_text() == "one run of each K"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: choose_num_topics({3: [TRUE]}, documents()), UsageError, r"at least two numbers.*\[3\]"),
        (
            lambda: choose_num_topics({2: [TRUE], 3: [TRUE]}, documents()),
            UsageError,
            "K = 2, run 0 has 3 topics, expected 2",
        ),
        (lambda: choose_num_topics({2: [], 3: [TRUE]}, documents()), UsageError, "K = 2 has no run"),
        (
            lambda: choose_num_topics({"2": [TRUE], 3: [TRUE]}, documents()),
            UsageError,
            "a number of topics: expected a positive integer",
        ),
        (
            lambda: choose_num_topics({2: [TRUE[:2, 1:]], 3: [TRUE]}, documents()),
            ShapeError,
            r"K = 2, run 0: found shape \(2, 29\)",
        ),
        (lambda: choose_num_topics(TRUE, documents()), UsageError, "found ndarray"),
        (lambda: choose_num_topics(topics_of, documents()), UsageError, "the numbers to try.*found None"),
        (lambda: choose_num_topics(topics_of, documents(), num_topics=5), UsageError, "the numbers to try.*found 5"),
        (lambda: choose_num_topics(topics_of, documents(), num_topics=[2]), UsageError, r"at least two numbers.*\[2\]"),
        (
            lambda: choose_num_topics(lambda k, s: SimpleNamespace(components_=TRUE), documents(), num_topics=[2, 3]),
            DataError,
            "K = 2, run 0: expected an array.*pass its components_",
        ),
        (
            lambda: choose_num_topics(topics_of, documents(), num_topics=[2, 3], seeds=[]),
            UsageError,
            "seeds: found none",
        ),
        (lambda: choose_num_topics({2: TRUE[:2], 3: TRUE}, documents(), num_topics=[2]), UsageError, "leave it out"),
        (lambda: choose_num_topics(topics_of, documents(), n_topics=[2]), SignatureError, "num_topics="),
        (
            lambda: choose_num_topics({2: TRUE[:2], 3: TRUE}, documents(1)),
            DataError,
            "1 documents have two tokens or more",
        ),
        (lambda: num_topics_curves(3), UsageError, "found int"),
    ],
)
def test_what_there_is_nothing_to_choose_from_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_number_that_was_not_tried_is_refused(choice):
    assert isinstance(choice, NumTopicsChoice)
    assert choice.topics[5][2].sum(1) == pytest.approx(np.ones(5))
    with pytest.raises(UsageError, match="4 was not tried; tried were 1, 2, 3, 5"):
        choice.gain(4, 3)
