"""Coordinate ascent agrees with Trace_ELBO on the same program, never lowers the bound, and is a run like others."""

import copy

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy.optimize import linear_sum_assignment
from torch.distributions import Dirichlet, kl_divergence

import vipack as vi
from vipack.errors import OptimizerError, UsageError
from vipack.topics import LDA, CoordinateAscent, DirichletAllocation
from vipack.training.stopping import SmallGain


def ascend(
    planted,
    *,
    steps=40,
    relaxation=1.9,
    normalized_sweeps=0,
    engine=None,
    alpha=0.5,
    learn_alpha=False,
    dtype=None,
    **options,
):
    allocation = DirichletAllocation(planted.counts, 3, alpha=alpha, learn_alpha=learn_alpha)
    if engine is None:
        engine = CoordinateAscent(allocation, relaxation=relaxation, normalized_sweeps=normalized_sweeps)
    options = {"dtype": dtype, "progress": False, "steps": steps, "engine": engine, **options}
    return vi.fit(allocation.model, allocation.guide, data=planted.counts, **options)


def tokens(planted):
    """Document and word of every single word."""
    entries = planted.counts.tocoo()
    times = entries.data.astype(int)
    return torch.as_tensor(np.repeat(entries.row, times)).long(), torch.as_tensor(np.repeat(entries.col, times)).long()


def expected_logs(concentrations):
    return concentrations.digamma() - concentrations.sum(-1, keepdim=True).digamma()


def test_the_bound_is_the_elbo_of_the_program_with_a_topic_for_every_word(planted):
    """Pyro's Trace_ELBO of latent Dirichlet allocation as it is written in textbooks, by draws."""
    fit, further = (ascend(planted, steps=steps, dtype=torch.float64) for steps in (5, 6))
    topics, documents = fit.params["topics"], fit.params["documents"]
    document, word = tokens(planted)
    assigned = expected_logs(documents)[document] + expected_logs(topics)[:, word].T

    def model():
        words = pyro.sample("words", dist.Dirichlet(torch.full((3, 40), 0.5).double()).to_event(1))
        shares = pyro.sample("shares", dist.Dirichlet(torch.full((120, 3), 0.5).double()).to_event(1))
        with pyro.plate("token", len(word)):
            topic = pyro.sample("topic", dist.Categorical(shares[document]))
            pyro.sample("word", dist.Categorical(words[topic]), obs=word)

    def guide():
        pyro.sample("words", dist.Dirichlet(topics).to_event(1))
        pyro.sample("shares", dist.Dirichlet(documents).to_event(1))
        with pyro.plate("token", len(word)):
            pyro.sample("topic", dist.Categorical(logits=assigned))

    pyro.set_rng_seed(0)
    estimates = np.array([-Trace_ELBO().loss(model, guide) for _ in range(400)])
    se = estimates.std() / 20
    assert abs(estimates.mean() + further.losses[-1]) < 4 * se
    assert se < 2e-4 * abs(estimates.mean())
    assert (
        fit.elbo(200, seed=0).value > estimates.mean()
    )  # the program that sums these topics out is bound more tightly


def test_no_gradient_is_left_at_the_end(planted):
    """Of the bound, in the parameters that SVI would move."""
    fit = ascend(planted, steps=2_000, dtype=torch.float64)
    logs = [fit.params[name].log().requires_grad_() for name in ("topics", "documents")]
    topics, documents = (each.exp() for each in logs)
    counts = torch.as_tensor(planted.counts.toarray()).double()
    scores = expected_logs(documents)[:, :, None] + expected_logs(topics)[None]
    divergences = [kl_divergence(Dirichlet(q), Dirichlet(torch.full_like(q, 0.5))).sum() for q in (topics, documents)]
    bound = (counts * scores.logsumexp(1)).sum() - sum(divergences)
    assert bound.item() == pytest.approx(-fit.losses[-1], rel=1e-9)
    for gradient in torch.autograd.grad(bound, logs):
        assert gradient.abs().max() < 0.02  # nats; the start's is above 100


def test_the_bound_of_a_normalized_sweep_is_that_of_its_topics_of_words(planted):
    """q of each word's topic, written out, is not at its optimum there."""
    few = planted.counts[:5]
    eta = torch.tensor([[0.1], [0.5], [10.0]], dtype=torch.float64).expand(3, 40)
    allocation = DirichletAllocation(few, 3, eta=eta)
    engine = CoordinateAscent(allocation, normalized_sweeps=4)
    options = {"data": few, "engine": engine, "dtype": torch.float64, "progress": False}
    fit, further = (vi.fit(allocation.model, allocation.guide, steps=steps, **options) for steps in (2, 3))
    topics, documents = fit.params["topics"], fit.params["documents"]
    counts = torch.as_tensor(few.toarray()).double()
    scores = expected_logs(documents)[:, :, None] + expected_logs(topics)[None]
    assigned = (scores - 0.5 * expected_logs(topics).logsumexp(1)[:, None]).softmax(1)  # of the third of four sweeps
    prior = kl_divergence(Dirichlet(topics), Dirichlet(eta)).sum()
    prior += kl_divergence(Dirichlet(documents), Dirichlet(torch.full_like(documents, 0.5))).sum()
    bound = (counts[:, None] * assigned * (scores - assigned.log())).sum() - prior
    assert -further.losses[-1] == pytest.approx(bound.item(), rel=1e-9)
    best = (counts * scores.logsumexp(1)).sum() - prior
    assert bound < best - 1e-6 * abs(best)


def test_after_normalized_sweeps_the_bound_never_falls(planted):
    fit = ascend(planted, steps=80, relaxation=1.0, normalized_sweeps=30, dtype=torch.float64)
    assert (np.diff(fit.losses[29:]) <= 1e-9 * abs(fit.losses[0])).all()
    plain = ascend(planted, steps=80, relaxation=1.0, dtype=torch.float64)
    assert fit.losses[20] != pytest.approx(plain.losses[20], rel=1e-9)


@pytest.mark.filterwarnings("ignore::vipack.errors.TrustWarning")  # topics that are of no document
def test_normalized_sweeps_lead_to_a_better_bound():
    corpus = vi.datasets.docstrings().prune(min_documents=5, max_fraction=0.15, min_tokens=15)
    gains = []
    for seed in range(5):
        runs = [LDA(30, normalized_sweeps=n, random_state=seed, progress=False).fit(corpus) for n in (0, 150)]
        gains.append(runs[1].bound_ - runs[0].bound_)
    assert np.mean(gains) > 2 * np.std(gains, ddof=1) / 5**0.5 > 0  # nats


@pytest.mark.parametrize("learn_alpha", [False, True])
def test_plain_sweeps_never_lower_the_bound(planted, learn_alpha):
    fit = ascend(planted, steps=80, relaxation=1.0, learn_alpha=learn_alpha, dtype=torch.float64)
    assert (np.diff(fit.losses) <= 1e-9 * abs(fit.losses[0])).all()


def test_relaxed_sweeps_get_further(planted):
    plain, relaxed = (ascend(planted, steps=15, relaxation=w) for w in (1.0, 1.9))
    assert relaxed.losses[-1] < plain.losses[-1]
    assert relaxed.losses[0] == plain.losses[0]


@pytest.mark.parametrize("batch_size", [None, 30])
def test_topics_are_recovered(planted, batch_size):
    fit = ascend(planted, steps=120, batch_size=batch_size)
    topics = fit.params["topics"] / fit.params["topics"].sum(1, keepdim=True)
    distance = np.abs(topics.numpy()[:, None] - planted.topics[None]).sum(-1) / 2
    rows, columns = linear_sum_assignment(distance)
    assert distance[rows, columns].max() < 0.12


def test_a_run_ends_by_its_rule_and_goes_on_bit_for_bit(planted, tmp_path):
    whole = ascend(planted, steps=30, normalized_sweeps=15)
    path = tmp_path / "run.pt"
    ascend(planted, steps=12, normalized_sweeps=15, checkpoint=vi.Checkpoint(path, every_steps=6))
    allocation = DirichletAllocation(planted.counts, 3)
    engine = CoordinateAscent(allocation, normalized_sweeps=15)
    loaded = vi.load(path, allocation.model, allocation.guide, data=planted.counts, engine=engine)
    resumed = loaded.resume(18)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    for name, value in whole.params.items():
        torch.testing.assert_close(resumed.params[name], value, rtol=0, atol=0)
    settled = ascend(planted, steps=None, stop=SmallGain(1e-3))
    assert settled.stopped.reason.name == "CONVERGED"
    assert 10 < len(settled.losses) < 200


def test_a_fit_loaded_without_the_engine_says_what_it_needs(planted, tmp_path):
    fit = ascend(planted, steps=4)
    fit.save(tmp_path / "fit.pt")
    allocation = DirichletAllocation(planted.counts, 3)
    loaded = vi.load(tmp_path / "fit.pt", allocation.model, allocation.guide)
    torch.testing.assert_close(loaded.params["topics"], fit.params["topics"])
    with pytest.raises(OptimizerError, match=r"coordinate ascent.*engine="):
        loaded.resume(5)


def test_alpha_is_learned(planted):
    fit = ascend(planted, steps=100, learn_alpha=True, alpha=2.0)
    assert 0.2 < float(fit.params["alpha"].mean()) < 0.8  # .4 made the data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relaxation": 2.5}, "relaxation: expected a number from 1 to 2"),
        ({"forgetting": 0.3}, "forgetting"),
        ({"normalized_sweeps": -1}, "normalized_sweeps: expected a number from 0"),
        ({"document_steps": 0}, "document_steps"),
    ],
)
def test_bad_options_are_named(planted, options, message):
    with pytest.raises(UsageError, match=message):
        CoordinateAscent(DirichletAllocation(planted.counts, 3), **options)


def test_another_program_is_refused(planted):
    allocation, other = (DirichletAllocation(planted.counts, k) for k in (3, 4))
    with pytest.raises(UsageError, match=r"topics \(4, 40\)"):
        vi.fit(allocation.model, allocation.guide, data=planted.counts, engine=CoordinateAscent(other), steps=1)


def test_another_model_or_prior_is_refused(planted):
    """The bound would be that of another program, without a word."""
    allocation = DirichletAllocation(planted.counts, 3)

    class Changed(DirichletAllocation):
        def model(self, counts):
            super().model(counts)
            pyro.sample("more", dist.Normal(0.0, 1.0), obs=torch.tensor(3.0))

    changed, prior = Changed(planted.counts, 3), DirichletAllocation(planted.counts, 3, alpha=2.0)
    for model in (lambda counts: allocation.model(counts), changed.model, prior.model):
        with pytest.raises(UsageError, match="another model or prior"):
            vi.fit(model, allocation.guide, data=planted.counts, engine=CoordinateAscent(allocation), steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": 3}, "restarts"),
        ({"optim": torch.optim.Adam}, "optim"),
        ({"loss": vi.objectives.BetaELBO(0.1)}, "loss"),
        ({"transform": {"counts": vi.transforms.Binarize()}}, "transform"),
        ({"average": True}, "average"),
        ({"engine": "fast"}, "'compiled', found 'fast'"),
    ],
)
def test_what_does_not_go_with_it_is_refused(planted, options, message):
    with pytest.raises(UsageError, match=message):
        ascend(planted, **options)


def test_a_fit_on_sparse_data_is_copied(planted):
    fit = ascend(planted, steps=5)
    other = copy.deepcopy(fit)
    torch.testing.assert_close(other.params["topics"], fit.params["topics"], rtol=0, atol=0)
    assert len(other.resume(3).losses) == 8
