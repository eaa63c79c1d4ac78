"""Topics with an outcome in one joint model: the bound, effects with intervals, and what plugging shares in does."""

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.distributions import Normal

from vipack.errors import DataError, TrustWarning, UsageError
from vipack.sparse.count_rows import CountRows
from vipack.topics import STM
from vipack.topics.structural_bound import StructuralBound

EFFECTS = np.array([-1.0, 0.0, 2.0])


def corpus(seed=0, num_documents=200, num_words=25):
    """Documents of a few words from 3 topics over 40 words, and an outcome around 10."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(40, 0.1), 3)
    logits = rng.normal(size=(num_documents, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    counts = np.stack([rng.multinomial(num_words, own @ topics) for own in shares])
    return counts, 10 + shares @ EFFECTS + 0.5 * rng.normal(size=num_documents), topics, shares


def order_of(topics, truth):
    distance = np.abs(topics[:, None] - truth[None]).sum(-1)
    return scipy.optimize.linear_sum_assignment(distance.T)[1]


@pytest.fixture(scope="module")
def fitted():
    counts, outcome, topics, _ = corpus()
    model = STM(3, num_starts=3, supervised=True, progress=False).fit(counts, outcome)
    return model, order_of(model.topics_, topics)


def test_the_bound_of_outcomes_is_that_by_draws():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    outcome, design = normal(15), torch.ones(15, 1, dtype=torch.float64)
    sizes = {"coefficients": (1, 3), "spread": (3,), "outcome_effects": (3,), "noise": (), "logits": (15, 3)}
    parameters = {"topics": normal(3, 5)}
    for name, shape in sizes.items():
        parameters |= {f"{name}_loc": 0.5 * normal(*shape), f"{name}_scale": 0.2 * normal(*shape) - 1}
    rows = CountRows(torch.zeros(16).long(), torch.zeros(0).long(), torch.zeros(0).double(), 5)
    options = {"eta": 0.3, "coefficient_sd": 2.0, "offset_sd": (-1.0, 1.0), "num_topics": 3, "num_draws": 2_000}
    bounds = [StructuralBound(rows, design, None, outcome=y, **options)(parameters) for y in (outcome, None)]

    q = {
        n: Normal(parameters[f"{n}_loc"], parameters[f"{n}_scale"].exp())
        for n in ("outcome_effects", "noise", "logits")
    }
    torch.manual_seed(1)
    z = {name: own.sample((20_000,)) for name, own in q.items()}
    mean = (z["logits"].softmax(-1) * z["outcome_effects"][:, None]).sum(-1)
    draws = Normal(mean, z["noise"].exp()[:, None]).log_prob(outcome).sum(1)
    draws += (
        Normal(0.0, 10.0).log_prob(z["outcome_effects"]) - q["outcome_effects"].log_prob(z["outcome_effects"])
    ).sum(1)
    draws += Normal(0.0, 1.0).log_prob(z["noise"]) - q["noise"].log_prob(z["noise"])
    se = float(draws.std()) / len(draws) ** 0.5
    assert abs(float(bounds[0] - bounds[1]) - float(draws.mean())) < 6 * se  # the bound's own draws have an error, too


def test_effects_of_topics_on_an_outcome_are_recovered(fitted):
    model, order = fitted
    with pytest.warns(TrustWarning, match="documents have 25 words in the median"):
        table = model.outcome_effects().iloc[order]
    assert list(table.columns) == ["topic", "term", "mean", "sd", "lower", "upper"]
    assert (np.abs(table["mean"] - 10 - EFFECTS) < 3 * table["sd"]).all()
    with pytest.warns(TrustWarning):
        against = model.outcome_effects(against=int(order[1])).iloc[order]
    assert against["mean"].iloc[1] == against["sd"].iloc[1] == 0
    assert against["mean"].iloc[2] == pytest.approx(table["mean"].iloc[2] - table["mean"].iloc[1])


@pytest.mark.slow
def test_intervals_of_effects_on_an_outcome_cover_in_long_documents():
    """Of 36 intervals of 90%; three of a corpus go together. In documents of 25 words they do not, and it warns."""
    inside = []
    for seed in range(100, 112):
        counts, outcome, topics, _ = corpus(seed, num_words=200)
        model = STM(3, num_starts=3, supervised=True, progress=False).fit(counts, outcome)
        table = model.outcome_effects(level=0.9).iloc[order_of(model.topics_, topics)]
        inside.append((table["lower"] <= 10 + EFFECTS) & (table["upper"] >= 10 + EFFECTS))
    assert np.mean(inside) > 0.7


def test_outcomes_of_new_documents_are_predicted(fitted):
    model, _ = fitted
    counts, _, topics, _ = corpus()
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.full(3, 0.5), 200)
    new = np.stack([rng.multinomial(25, own @ topics) for own in shares])
    assert np.corrcoef(model.predict(new), shares @ EFFECTS)[0, 1] > 0.8
    assert model.transform(counts).shape == (200, 3)


@pytest.mark.parametrize(
    ("outcome", "error", "message"),
    [
        (None, UsageError, "needs the outcome"),
        (np.ones(20), DataError, "depend on nothing"),
        (np.arange(3.0), DataError, r"expected \(20,\)"),
        (["a"] * 20, DataError, "a number for each document"),
        (np.r_[np.arange(19.0), np.nan], DataError, "nan in row 19"),
    ],
)
def test_bad_outcomes_are_named(outcome, error, message):
    counts = np.random.default_rng(0).integers(0, 3, (20, 8))
    with pytest.raises(error, match=message):
        STM(2, supervised=True, num_starts=1, progress=False).fit(counts, outcome)
