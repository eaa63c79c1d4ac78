"""Discrete latents summed out: the sum written out by hand, and draws with the probabilities of their posterior."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, infer_discrete
from pyro.infer.autoguide import AutoNormal
from scipy import stats

import vipack as vi
from vipack.errors import GuideError, ModelError, ProgramWarning
from vipack.posterior import posterior as module
from vipack.program import Arguments, LogJoint, Program, seeded
from vipack.program.densities.enumeration import Enumerate, draw_enumerated, sum_enumerated

LENGTHS = torch.tensor([3, 1, 2])
SEQUENCES = torch.tensor([[0.5, -1.0, 2.0], [1.5, 9.0, 9.0], [-0.3, 0.8, 9.0]])  # nines are padding
START, MOVE = torch.tensor([0.3, 0.7]), torch.tensor([[0.9, 0.1], [0.4, 0.6]])
LOC = torch.tensor([-1.0, 1.5])


def padded(x, lengths, loc=LOC):
    """A hidden Markov model of sequences of different lengths, both states and observations masked."""
    with pyro.plate("sequence", len(x)):
        state = None
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=t < lengths):
                probs = START if state is None else MOVE[state]
                state = pyro.sample(f"k_{t}", dist.Categorical(probs), infer={"enumerate": "parallel"})
                pyro.sample(f"x_{t}", dist.Normal(loc[state], 1.0), obs=x[:, t])


def posterior_of_path(x):
    """log evidence of one sequence without padding, and the probability of each path of states."""
    log_p = {}
    for path in itertools.product((0, 1), repeat=len(x)):
        term = 0.0
        for t, k in enumerate(path):
            term += math.log(START[k] if t == 0 else MOVE[path[t - 1], k]) + stats.norm(LOC[k], 1).logpdf(x[t])
        log_p[path] = term
    total = math.log(sum(math.exp(term) for term in log_p.values()))
    return total, {path: math.exp(term - total) for path, term in log_p.items()}


def enumerated(model, *args, nesting=1):
    with pyro.validation_enabled(False), Enumerate(first_available_dim=-1 - nesting):
        return poutine.trace(model).get_trace(*args)


def test_masked_states_add_nothing_to_the_evidence():
    expected = sum(posterior_of_path(x[:n].tolist())[0] for x, n in zip(SEQUENCES, LENGTHS.tolist(), strict=True))
    found = sum_enumerated(enumerated(padded, SEQUENCES, LENGTHS), 1)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    assert float(found) == pytest.approx(-elbo.loss(padded, lambda *args: None, SEQUENCES, LENGTHS), rel=1e-6)


def test_states_are_drawn_with_the_probabilities_of_their_posterior():
    trace = enumerated(padded, SEQUENCES, LENGTHS)
    with seeded(0):
        draws = torch.vmap(lambda _: draw_enumerated(trace, 1), randomness="different")(torch.arange(20_000))
    for i, n in enumerate(LENGTHS.tolist()):
        _, probabilities = posterior_of_path(SEQUENCES[i, :n].tolist())
        for path, p in probabilities.items():
            share = torch.stack([draws[f"k_{t}"][:, i] == k for t, k in enumerate(path)]).all(0).double().mean()
            assert float(share) == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / 20_000) + 1e-9)


def test_a_masked_state_is_drawn_from_its_prior_given_the_state_before():
    trace = enumerated(padded, SEQUENCES, LENGTHS)
    with seeded(0):
        draws = torch.vmap(lambda _: draw_enumerated(trace, 1), randomness="different")(torch.arange(20_000))
    before, after = draws["k_0"][:, 1], draws["k_1"][:, 1]  # the sequence of length 1
    for k in (0, 1):
        share, count = float((after[before == k] == 1).double().mean()), int((before == k).sum())
        assert share == pytest.approx(float(MOVE[k, 1]), abs=4.5 * math.sqrt(0.25 / count))


def test_draws_agree_with_infer_discrete_where_nothing_is_masked():
    trace = enumerated(padded, SEQUENCES, torch.full((3,), 3))
    copies = SEQUENCES.repeat(20_000, 1)  # so that one run gives many draws
    with seeded(1), pyro.validation_enabled(False), poutine.trace() as found:
        infer_discrete(padded, first_available_dim=-2)(copies, torch.full((len(copies),), 3))
    theirs = {f"k_{t}": found.trace.nodes[f"k_{t}"]["value"].reshape(20_000, 3) for t in range(3)}
    with seeded(0):
        ours = torch.vmap(lambda _: draw_enumerated(trace, 1), randomness="different")(torch.arange(20_000))

    def paths(draws):
        number = 4 * draws["k_0"] + 2 * draws["k_1"] + draws["k_2"]
        return torch.stack([torch.bincount(number[:, i].long(), minlength=8) for i in range(3)]) / 20_000

    torch.testing.assert_close(paths(ours), paths(theirs), rtol=0, atol=4.5 * math.sqrt(2 * 0.25 / 20_000))


def test_a_group_and_its_rows_are_drawn_together():
    """k of a row is the label of its group with a few flips: the pair has another law than the two apart."""
    x = torch.tensor([0.4, -0.2])

    def model():
        g = pyro.sample("g", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        with pyro.plate("row", 2):
            k = pyro.sample("k", dist.Bernoulli(0.1 + 0.8 * g), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(2 * k - 1, 1.0), obs=x)

    def density(g, k):
        terms = [stats.norm(2 * k[i] - 1, 1).pdf(float(x[i])) * (0.9 if k[i] == g else 0.1) for i in (0, 1)]
        return 0.5 * math.prod(terms)

    every = {(g, *k): density(g, k) for g in (0, 1) for k in itertools.product((0, 1), repeat=2)}
    trace = enumerated(model)
    assert float(sum_enumerated(trace, 1)) == pytest.approx(math.log(sum(every.values())), rel=1e-5)
    with seeded(0):
        draws = torch.vmap(lambda _: draw_enumerated(trace, 1), randomness="different")(torch.arange(20_000))
    for (g, *k), value in every.items():
        share = ((draws["g"] == g) & (draws["k"] == torch.tensor(k)).all(1)).double().mean()
        p = value / sum(every.values())
        assert float(share) == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / 20_000))


def test_a_trace_without_density_does_not_stop_the_others():
    def model(loc):
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(k + loc, 1.0), obs=torch.tensor(0.0))

    def one(loc):
        return draw_enumerated(enumerated(model, loc, nesting=0), 0)["k"]

    locs = torch.tensor([math.inf, 30.0, -30.0])
    with seeded(0), pyro.validation_enabled(False):
        assert torch.vmap(one, randomness="different")(locs)[1:].tolist() == [0.0, 1.0]


# --- scales


def scaled(inner=1.0, outer=1.0):
    def model(x):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)), poutine.scale(scale=outer):
            k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            with poutine.scale(scale=inner):
                pyro.sample("x", dist.Normal(a + k, 1.0), obs=x)

    return model


X = torch.tensor([0.2, 1.4, -0.5])


def test_a_scale_acts_on_the_sum_and_not_inside():
    fit = vi.fit(scaled(outer=3.0), AutoNormal, data=X, loss=TraceEnum_ELBO(max_plate_nesting=1), steps=5)
    draws = fit.posterior.draws(4)
    a = draws.latents["a"].double()[:, None]
    parts = torch.stack([math.log(p) + dist.Normal(a + k, 1.0).log_prob(X.double()) for k, p in ((0, 0.7), (1, 0.3))])
    expected = dist.Normal(0.0, 1.0).log_prob(a[:, 0]) + 3 * parts.logsumexp(0).sum(1)
    torch.testing.assert_close(draws.log_joint, expected, rtol=1e-5, atol=1e-5)


def test_scales_that_differ_are_named_before_training():
    found = vi.check(scaled(inner=2.0), AutoNormal, data=X, loss=TraceEnum_ELBO(max_plate_nesting=1))
    assert [type(error) for error in found.errors] == [ModelError]
    message = str(found.errors[0])
    for words in ("site 'k' is scaled by 1", "site 'x' by 2", "put poutine.scale around both"):
        assert words in message


def test_a_label_outside_the_batch_plate_is_refused_in_minibatches():
    def model(x):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.Normal(a + k, 1.0), obs=x)

    options = {"loss": TraceEnum_ELBO(max_plate_nesting=1)}
    assert vi.check(model, AutoNormal, data=X, **options).ok
    (error,) = vi.check(model, AutoNormal, data=X, batch_size=2, **options).errors
    assert "leave batch_size out" in str(error)


def test_a_scale_for_each_row_is_refused_where_a_sum_is_scaled():
    model = scaled(outer=torch.tensor([1.0, 2.0, 1.0]))
    found = vi.check(model, AutoNormal, data=X, loss=TraceEnum_ELBO(max_plate_nesting=1))
    assert "poutine.scale of shape (3,)" in str(found.errors[0])


# --- in a fit


def mixture(y):
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-3.0, 3.0]), 1.0).to_event(1))
    with pyro.plate("row", len(y)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.25, 0.75])), infer={"enumerate": "parallel"})
        mu = pyro.deterministic("mu", loc[k])
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


Y = torch.tensor([-3.2, 3.1, 0.4, 2.0])


@pytest.fixture(scope="module")
def fitted():
    return vi.fit(mixture, AutoNormal, data=Y, loss=TraceEnum_ELBO(max_plate_nesting=1), steps=200)


def test_labels_come_with_the_draws_and_what_is_computed_from_them_has_one_value_a_draw(fitted):
    draws = fitted.sample(300)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        "loc": (300, 2),
        "k": (300, 4),
        "mu": (300, 4),
    }
    torch.testing.assert_close(draws["mu"], draws["loc"].gather(1, draws["k"]))


def test_labels_have_the_law_that_they_have_given_each_draw(fitted):
    draws = fitted.posterior.draws(4_000)
    loc = draws.latents["loc"].double()
    parts = [math.log(p) + dist.Normal(loc[:, k, None], 1.0).log_prob(Y.double()) for k, p in ((0, 0.25), (1, 0.75))]
    expected = torch.stack(parts).softmax(0)[1]
    error = (draws.enumerated["k"] - expected).mean(0) / (expected * (1 - expected)).mean(0).sqrt() * math.sqrt(4_000)
    assert float(error.abs().max()) < 4.5


@pytest.mark.parametrize("way", ["vmap", "loop"])
def test_labels_are_drawn_in_either_way(fitted, way):
    posterior = module.Posterior(fitted._trainer.program, fitted._trainer.rows.full())
    posterior.vectorizer.allowed = (way,)
    draws = posterior.draws(50)
    assert posterior.vectorizer.chosen["enumerated"] == posterior.vectorizer.chosen["deterministic"] == way
    assert draws.enumerated["k"][:, 0].double().mean() < 0.1
    assert draws.enumerated["k"][:, 1].double().mean() > 0.9


def test_diagnostics_need_no_labels(fitted):
    draws = fitted.posterior.draws(10, enumerated=False)
    assert draws.enumerated == {}
    assert draws.deterministic == {}  # mu has no value without a label
    assert torch.equal(draws.log_weights, fitted.posterior.draws(10).log_weights)
    found = fitted.diagnose(200)
    assert found.drift is not None
    assert not any(name.startswith("mu") for name in found.drift.draws.names)


def test_deterministic_sites_that_do_not_depend_on_labels_are_kept_by_diagnostics():
    def model(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.deterministic("twice", 2 * loc)
        with pyro.plate("row", len(y)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.deterministic("mu", loc + k)
            pyro.sample("y", dist.Normal(loc + k, 1.0), obs=y)

    fit = vi.fit(model, AutoNormal, data=Y, loss=TraceEnum_ELBO(max_plate_nesting=1), steps=2)
    assert list(fit.posterior.draws(3, enumerated=False).deterministic) == ["twice"]
    assert list(fit.posterior.draws(3).deterministic) == ["twice", "mu"]


def test_more_labels_than_memory_holds_are_left_out_and_it_is_said(fitted, monkeypatch):
    monkeypatch.setattr("vipack.posterior.draws._MOST_LABELS", 100)
    with pytest.warns(
        ProgramWarning, match=r"enumerated latent\(s\) 'k' would hold 200 numbers.*ask for at most 25 draws"
    ):
        assert list(fitted.sample(50)) == ["loc"]
    assert list(fitted.sample(25)) == ["loc", "k", "mu"]


def test_importance_resampling_takes_labels_along(fitted):
    draws = fitted.sample(100, resample=True)
    torch.testing.assert_close(draws["mu"], draws["loc"].gather(1, draws["k"]))


def test_a_latent_that_only_guides_may_enumerate_one_by_one_is_not_taken_for_summed_out():
    def model(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})
            pyro.sample("y", dist.Normal(loc + k, 1.0), obs=y)

    def guide(y):
        pyro.sample("loc", dist.Normal(pyro.param("at", torch.tensor(0.0)), 1.0))

    found = vi.check(model, guide, data=Y, loss=TraceEnum_ELBO(max_plate_nesting=1))
    assert "latent site 'k' (Bernoulli) of the model is missing in the guide" in str(found.errors[0])
    program = Program(model, guide, dtype=torch.float32, device=torch.device("cpu"))
    with pytest.raises(GuideError, match=r"site 'k' is a discrete latent.*config_enumerate"):
        LogJoint(program, Arguments((Y,)))


def test_a_label_of_the_guide_is_drawn_by_the_guide_and_the_others_are_summed_out():
    """Marked for enumeration in the model too, as config_enumerate does."""

    def model(y):
        a = pyro.sample("a", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        with pyro.plate("row", len(y)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(k + 2 * a, 0.5), obs=y)

    def guide(y):
        pyro.sample("a", dist.Bernoulli(pyro.param("q", torch.tensor(0.4))), infer={"enumerate": "parallel"})

    y = torch.tensor([0.5, 1.5])
    fit = vi.fit(model, guide, data=y, loss=TraceEnum_ELBO(max_plate_nesting=1), steps=1)
    weights = {}
    draws = fit.posterior.draws(200)
    for a, weight in zip(draws.latents["a"].tolist(), draws.log_weights.tolist(), strict=True):
        weights[a] = weight
    q = float(fit.params["q"])
    elbo = -TraceEnum_ELBO(max_plate_nesting=1).loss(model, fit.guide, y)
    assert (1 - q) * weights[0.0] + q * weights[1.0] == pytest.approx(elbo, rel=1e-4)
    assert draws.enumerated["k"].shape == (200, 2)


def test_a_model_of_labels_alone_has_draws():
    def model(y):
        shift = pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("row", len(y)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(k + shift, 0.1), obs=y)

    fit = vi.fit(
        model, lambda y: None, data=torch.tensor([0.0, 1.0]), loss=TraceEnum_ELBO(max_plate_nesting=1), steps=1
    )
    assert fit.sample(5)["k"].tolist() == [[0.0, 1.0]] * 5


def test_a_support_that_depends_on_a_label_is_named():
    def model(y):
        k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        b = pyro.sample("b", dist.Uniform(0.0, 1.0 + k))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(b, 1.0), obs=y)

    program = Program(model, lambda y: None, dtype=torch.float32, device=torch.device("cpu"))
    with pytest.raises(GuideError, match=r"site 'b': its support depends on a discrete latent that is summed out"):
        LogJoint(program, Arguments((Y,)))


def test_without_enumeration_the_sum_is_pyros_own():
    def model(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)), poutine.scale(scale=2.0):
            pyro.sample("y", dist.Normal(loc, 1.0), obs=y)

    fit = vi.fit(model, AutoNormal, data=Y, steps=1)
    draws = fit.posterior.draws(1, seed=3)
    with seeded(3), torch.no_grad():
        assert float(draws.log_weights) == pytest.approx(-Trace_ELBO().loss(model, fit.guide, Y), rel=1e-5)
