"""Structural topics: the bound, its optimum, effects with intervals, and what is refused."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.sparse
import torch
from torch.distributions import Dirichlet, Normal, kl_divergence

import vipack as vi
from vipack.errors import DataError, TrustWarning, UsageError
from vipack.sparse.count_rows import CountRows
from vipack.topics import STM, StructuralAscent, StructuralTopicModel
from vipack.topics.prevalence import Prevalence
from vipack.topics.structural_bound import StructuralBound


def corpus(num_documents=150, effect=1.5, seed=0):
    """Two parties of documents; the first topic is the second's, each with 40 tokens from 3 topics over 40 words."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(40, 0.1), 3)
    party = rng.integers(0, 2, num_documents)
    logits = rng.normal(size=(num_documents, 3)) * 0.7
    logits[:, 0] += effect * party
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    counts = np.stack([rng.multinomial(40, theta @ topics) for theta in shares])
    normals = rng.normal(size=(200_000, 3)) * 0.7
    expected = [np.exp(normals + np.array([x * effect, 0, 0])) for x in (0, 1)]
    means = [(e / e.sum(1, keepdims=True)).mean(0) for e in expected]
    covariates = pd.DataFrame(
        {"party": np.where(party == 1, "right", "left"), "year": rng.integers(1990, 2010, num_documents)}
    )
    return scipy.sparse.csr_array(counts), covariates, topics, means[1] - means[0]


@pytest.fixture(scope="module")
def fitted():
    counts, covariates, topics, effect = corpus()
    model = STM(3, num_starts=4, progress=False).fit(counts, covariates=covariates[["party"]])
    distance = np.abs(model.topics_[:, None] - topics[None]).sum(-1) / 2
    rows, columns = scipy.optimize.linear_sum_assignment(distance)
    order = np.empty(3, int)
    order[columns] = rows
    return model, order, effect


def test_effects_are_recovered_with_intervals(fitted):
    model, order, effect = fitted
    table = model.effects()
    assert list(table.columns) == ["topic", "term", "mean", "sd", "lower", "upper"]
    assert set(table["term"]) == {"party: left to right"}
    table = table.iloc[order]
    assert (np.abs(table["mean"] - effect) < 3 * table["sd"]).all()
    assert (table["sd"] < 0.06).all()
    assert table["mean"].sum() == pytest.approx(0, abs=1e-12)
    draws = model.effect_draws({"party": "left"}, {"party": "right"}, 4_000)
    np.testing.assert_allclose(draws.sum(1), 0, atol=1e-4)
    np.testing.assert_allclose(draws.std(0)[order], table["sd"], rtol=0.1)


def test_intervals_are_wider_than_the_guides(fitted):
    """Mean-field sds of the coefficients ignore that shares and topics are uncertain too."""
    model, _, _ = fitted
    params = model.fit_.params
    own = params["coefficients_scale"][1].numpy()
    response = model._response(lambda p: p["coefficients_loc"][1])
    assert (response.covariance.diagonal().sqrt().numpy() > 1.2 * own).all()


def test_expected_shares_are_probabilities(fitted):
    model, _, _ = fitted
    table = model.expected_shares({"party": ["left", "right"]})
    np.testing.assert_allclose(table.groupby("term")["mean"].sum(), 1)
    assert ((table["lower"] < table["mean"]) & (table["mean"] < table["upper"])).all()
    difference = table["mean"].to_numpy().reshape(2, 3)
    contrast = model.contrast({"party": "left"}, {"party": "right"})["mean"]
    np.testing.assert_allclose(difference[1] - difference[0], contrast, atol=1e-12)


def test_the_bound_is_at_most_the_elbo_of_the_program_and_near_it(fitted):
    model, _, _ = fitted
    estimate = model.fit_.elbo(200, seed=0)
    assert model.bound_ < estimate.value + 3 * estimate.se
    assert estimate.value - model.bound_ < 0.01 * abs(estimate.value)


def test_the_bound_in_closed_form_is_the_bound_by_draws():
    """All but the likelihood of counts, with offsets of groups: E[log p - log q] by draws of q."""
    generator = torch.Generator().manual_seed(0)
    num_documents, num_topics, num_groups = 20, 3, 4

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    design = torch.cat([torch.ones(num_documents, 1, dtype=torch.float64), normal(num_documents, 1)], 1)
    groups = torch.arange(num_documents) % num_groups
    shapes = {
        "coefficients": (2, 3),
        "spread": (3,),
        "offset_sd": (3,),
        "offsets": (4, 3),
        "logits": (num_documents, 3),
    }
    parameters = {"topics": normal(num_topics, 5)}
    for name, shape in shapes.items():
        parameters |= {f"{name}_loc": 0.3 * normal(*shape), f"{name}_scale": 0.2 * normal(*shape) - 1}
    empty = CountRows(
        torch.zeros(num_documents + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0).double(), 5
    )
    bound = StructuralBound(empty, design, groups, eta=0.3, coefficient_sd=2.0, offset_sd=(-1.0, 1.0), num_topics=3)

    q = {name: Normal(parameters[f"{name}_loc"], parameters[f"{name}_scale"].exp()) for name in shapes}
    torch.manual_seed(1)
    z = {name: own.sample((20_000,)) for name, own in q.items()}
    spread, offset_sd = z["spread"].exp(), z["offset_sd"].exp()  # whose Jacobian is the same in p and q
    mean = design @ z["coefficients"] + z["offsets"][:, groups]
    log_p = [
        Normal(0.0, 2.0).log_prob(z["coefficients"]),
        Normal(0.0, 1.0).log_prob(z["spread"]),
        Normal(-1.0, 1.0).log_prob(z["offset_sd"]),
        Normal(0.0, offset_sd[:, None]).log_prob(z["offsets"]),
        Normal(mean, spread[:, None]).log_prob(z["logits"]),
    ]
    draws = sum(each.flatten(1).sum(1) for each in log_p) - sum(q[n].log_prob(z[n]).flatten(1).sum(1) for n in shapes)
    topics = parameters["topics"].exp()
    divergence = kl_divergence(Dirichlet(topics), Dirichlet(torch.full_like(topics, 0.3))).sum()
    se = float(draws.std()) / len(draws) ** 0.5
    assert abs(float(bound(parameters)) - float(draws.mean() - divergence)) < 4 * se


def test_the_start_does_not_depend_on_the_order_of_topics():
    """K logits rather than K - 1: relabelled topics have the same bound."""
    counts, _, _, _ = corpus(30)
    rows = CountRows.of(scipy.sparse.csr_array(counts), torch.float64)
    design = torch.ones(30, 1, dtype=torch.float64)
    bound = StructuralBound(
        rows, design, None, eta=0.1, coefficient_sd=2.0, offset_sd=(-1.0, 1.0), num_topics=3, num_draws=400
    )
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "topics": (3, 40),
        **{
            f"{n}_{p}": s
            for n, s in {"coefficients": (1, 3), "spread": (3,), "logits": (30, 3)}.items()
            for p in ("loc", "scale")
        },
    }
    parameters = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) * 0.3 for name, shape in shapes.items()
    }
    order = torch.tensor([2, 0, 1])
    relabelled = {name: value[order] if name == "topics" else value[..., order] for name, value in parameters.items()}
    assert float(bound(parameters)) == pytest.approx(float(bound(relabelled)), rel=2e-3)


def test_a_trend_by_a_spline_and_groups():
    counts, covariates, _, _ = corpus(120)
    covariates["source"] = np.arange(120) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        model = STM(3, prevalence="party + s(year)", groups="source", num_starts=2, steps=15, progress=False)
        model.fit(counts, covariates=covariates)
        table = model.expected_shares({"party": ["left"] * 3, "year": [1992, 2000, 2008]})
    assert len(table) == 9
    assert model.fit_.params["offsets_loc"].shape == (3, 3)
    assert len(model.prevalence_.columns) > 5
    assert next(term for term, _, _ in model.prevalence_.contrasts()) == "party: left to right"


TABLE = pd.DataFrame(
    {
        "party": ["a", "b", "a", "b"],
        "year": [1.0, 2.0, 3.0, 4.0],
        "same": 1.0,
        "holes": [1.0, None, 2.0, 3.0],
        "endless": [0.0, 1.0, np.inf, 2.0],
    }
)


@pytest.mark.parametrize(
    ("columns", "formula", "error", "message"),
    [
        (["party", "holes"], None, DataError, r"'holes' is missing in row 1 \(1 row"),
        (["party", "same"], None, DataError, "'same' has the same value"),
        (["party", "endless"], None, DataError, "'endless' is infinite in row 2"),
        (["party"], "party + era", DataError, "'era' is no column"),
        (["party"], "party +* year", UsageError, "cannot be read"),
        (["party", "same"], "party + same", DataError, "'same' has one level"),
    ],
)
def test_bad_covariates_are_named(columns, formula, error, message):
    with pytest.raises(error, match=message):
        Prevalence(TABLE[columns], formula)


def test_new_levels_are_named():
    prevalence = Prevalence(TABLE[["party"]])
    with pytest.raises(DataError, match="level 'c'"):
        prevalence.rows(pd.DataFrame({"party": ["c"]}))
    with pytest.raises(DataError, match="'party' is missing"):
        prevalence.rows(pd.DataFrame({"era": ["c"]}))


@pytest.mark.parametrize(
    ("options", "covariates", "error", "message"),
    [
        ({"prevalence": "party"}, None, UsageError, "pass a DataFrame"),
        ({}, np.ones((7, 1)), DataError, "7 rows for 30 documents"),
        ({"groups": "author"}, {"party": np.arange(30) % 2}, DataError, "'author' is no column"),
        ({"num_topics": 1}, None, UsageError, "num_topics"),
        ({"eta": -1.0}, None, UsageError, "eta"),
    ],
)
def test_bad_options_are_named(options, covariates, error, message):
    counts, _, _, _ = corpus(30)
    with pytest.raises(error, match=message):
        STM(**{"num_topics": 3, **options}).fit(counts, covariates=covariates)


def test_effects_without_covariates_are_refused():
    counts, _, _, _ = corpus(30)
    model = STM(3, num_starts=1, steps=2, progress=False).fit(counts)
    with pytest.raises(UsageError, match="without covariates"):
        model.effects()


def test_it_is_copied_and_pickled(fitted):
    model, _, _ = fitted
    effects = model.effects()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        pd.testing.assert_frame_equal(other.effects(), effects)


def test_another_model_is_refused():
    counts, _, _, _ = corpus(30)
    model, prior = (StructuralTopicModel(counts, 3, 1, num_starts=1, eta=eta) for eta in (0.1, 0.3))
    data = (scipy.sparse.csr_array(counts.astype(float)), torch.ones(30, 1, dtype=torch.float64))
    for given in (prior.model, lambda counts, covariates: model.model(counts, covariates)):
        with pytest.raises(UsageError, match="another model or prior"):
            vi.fit(given, model.guide, data=data, engine=StructuralAscent(model), steps=1, dtype=torch.float64)


def test_minibatches_and_float32_are_refused():
    counts, _, _, _ = corpus(30)
    model = StructuralTopicModel(counts, 3, 1, num_starts=1)
    data = (scipy.sparse.csr_array(counts.astype(float)), torch.ones(30, 1, dtype=torch.float64))
    options = {"data": data, "engine": StructuralAscent(model), "steps": 1, "progress": False}
    with pytest.raises(UsageError, match="batch_size"):
        vi.fit(model.model, model.guide, batch_size=10, dtype=torch.float64, **options)
    with pytest.raises(UsageError, match="needs float64"):
        vi.fit(model.model, model.guide, dtype=torch.float32, **options)


def test_new_documents_get_the_shares_that_old_ones_have(fitted):
    model, _, _ = fitted
    counts, covariates, _, _ = corpus()
    shares = model.transform(counts, covariates=covariates[["party"]])
    np.testing.assert_allclose(shares.sum(1), 1)
    assert np.abs(shares - model.shares_).mean() < 0.01
    empty = model.transform(np.zeros((1, 40)) + np.eye(1, 40, 3), covariates=pd.DataFrame({"party": ["right"]}))
    assert empty.shape == (1, 3)
    with pytest.raises(UsageError, match="covariates: shares of new documents"):
        model.transform(counts)


def test_a_file_brings_effects_and_new_documents_back(fitted, tmp_path):
    model, _, _ = fitted
    counts, covariates, _, _ = corpus()
    model.save(tmp_path / "model.pt")
    again = STM.load(tmp_path / "model.pt")
    pd.testing.assert_frame_equal(again.effects(), model.effects())
    new = {"covariates": covariates[["party"]][:9]}
    np.testing.assert_array_equal(again.transform(counts[:9], **new), model.transform(counts[:9], **new))
    np.testing.assert_array_equal(again.shares_, model.shares_)
    dated = copy.copy(model)
    dated.levels_ = [pd.Timestamp("2020-01-01")]
    with pytest.raises(UsageError, match="groups has values of type Timestamp"):
        dated.save(tmp_path / "other.pt")


def test_topics_that_are_found_together_are_correlated(fitted):
    model, _, _ = fitted
    table = model.topic_correlations()
    np.testing.assert_allclose(np.diag(table), 1)
    assert list(table.columns) == model.topic_names_
    plain = np.corrcoef(model.shares_.T)
    assert np.abs(table.to_numpy() - plain).max() < 0.2  # those of means, which are a little sharper
    assert np.sign(table.to_numpy()[~np.eye(3, dtype=bool)]).sum() < 0


def test_correlated_topics_need_no_covariates():
    counts, _, _, _ = corpus(num_documents=60)
    model = STM(3, num_starts=2, steps=8, progress=False).fit(counts)
    assert model.topic_correlations().shape == (3, 3)
    np.testing.assert_allclose(model.transform(counts).sum(1), 1)
    with pytest.raises(UsageError, match="without outcomes"):
        model.outcome_effects()
