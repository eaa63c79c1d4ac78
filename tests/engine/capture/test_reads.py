"""Programs that read numbers from tensors, to branch on them or to count: captured, checked, and never silently wrong."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.engine.steps import runner

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([1, 2, 3, 4, 5, 4, 3, 2, 5, 5, 1, 2])


def latents():
    return pyro.sample("mu", dist.Normal(0.0, 1.0)), pyro.sample("s", dist.LogNormal(0.0, 1.0))


def rows(x, mu, s):
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, s), obs=x[:, 0])


def a_loop_as_long_as_the_data_say(x, lengths):
    mu, s = latents()
    before = torch.zeros(len(x))
    for t in range(lengths.max()):
        with pyro.plate(f"rows_{t}", len(x)), poutine.mask(mask=t < lengths):
            pyro.sample(f"x_{t}", dist.Normal(mu * before, s), obs=x[:, t])
        before = x[:, t]


def a_part_of_each_row(x, lengths):
    mu, s = latents()
    for i, length in enumerate(lengths):
        pyro.sample(f"x_{i}", dist.Normal(mu, s).expand([int(length)]).to_event(1), obs=x[i, :length])


def a_range_of_the_data(x, lengths):
    mu, s = latents()
    index = torch.arange(lengths.max())
    rows(x[:, index], mu + len(index), s)


def branches_on_data(x, lengths):
    mu, s = latents()
    if (x[:, 0] > 0).sum() >= 6:
        mu = 2 * mu
    if (x.sum(0) == 0).any().item() or not lengths.sum():
        mu = mu + 1
    rows(x, mu, s)


def branches_on_draws(x, lengths):
    mu, s = latents()
    if mu > 0:
        mu = 2 * mu
    if s.item() > 1.0 and abs(mu.item()) < 50:
        s = s + 0.1
    rows(x, mu, s)


def other_parameters_by_branch(x, lengths):
    mu, s = latents()
    name = "up" if x[0, 0] > 0 else "down"
    rows(x, mu + pyro.param(name, torch.tensor(0.3)), s)


def numbers_of_the_data(x, lengths):
    mu, s = latents()
    scale = float(x.std()) + x.mean().item() + float(x[:, 0].numpy().max()) + lengths.tolist()[0]
    rows(x, mu, s + scale)


def an_assertion_on_draws(x, lengths):
    mu, s = latents()
    assert (s > 0).all(), "scales are positive"
    if torch.isnan(mu).any():
        raise ValueError("a draw is NaN")
    rows(x, mu, s)


def equality_of_tensors(x, lengths):
    mu, s = latents()
    rows(x, mu + (1.0 if torch.equal(lengths, LENGTHS) else 0.0), s)


PROGRAMS = [
    a_loop_as_long_as_the_data_say, a_part_of_each_row, a_range_of_the_data, branches_on_data, branches_on_draws,
    other_parameters_by_branch, numbers_of_the_data, an_assertion_on_draws, equality_of_tensors,
]  # fmt: skip


def batches(number):
    generator = torch.Generator().manual_seed(3)
    made = [(X, LENGTHS)]
    for highest in (3, 6, 4, 6, 5, 3)[: number - 1]:
        x = torch.randn(12, 6, generator=generator)
        made.append((x, torch.randint(1, highest + 1, (12,), generator=generator)))
    return made


def run(make, program, calls, loss=None, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = make(program, AutoNormal(program), pyro.optim.Adam({"lr": 0.05}), (loss or Trace_ELBO)(), **options)
    losses = [svi.step(*call) for call in calls]
    return losses, {name: value.detach().clone() for name, value in pyro.get_param_store().items()}, svi


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


NATIVELY = [a_loop_as_long_as_the_data_say, branches_on_draws, other_parameters_by_branch, numbers_of_the_data]
# By graphs in Python one batch of these is trained below as well, beside others.
ALONE = [pytest.param(p, "traced", marks=pytest.mark.slow) for p in PROGRAMS if p not in NATIVELY]
RUNS = [*ALONE, *((program, "interpreted") for program in NATIVELY)]


@pytest.mark.parametrize(("program", "engine"), RUNS, ids=lambda value: getattr(value, "__name__", value))
def test_steps_are_pyros_and_taken_by_a_graph(program, engine):
    calls = batches(1) * 40
    found = run(vi.SVI, program, calls, engine=engine)
    assert_same(found, run(SVI, program, calls))
    assert found[2].engine.steps[engine] >= 20, found[2].engine


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_batches_that_lead_other_ways_get_graphs_of_their_own(program):
    calls = [call for call in batches(4) for _ in range(3)] * 8
    found = run(vi.SVI, program, calls, engine="traced")
    assert_same(found, run(SVI, program, calls))
    assert found[2].engine.steps["traced"] >= 45, found[2].engine


def test_data_that_are_written_to_lead_another_way():
    def calls(x, lengths):
        for k in range(60):
            if k == 30:
                lengths.data[4] = 1  # unseen by torch's version counters
                lengths.data[lengths == 5] = 3
            yield x, lengths

    found = run(vi.SVI, a_loop_as_long_as_the_data_say, calls(X, LENGTHS.clone()), engine="interpreted")
    assert_same(found, run(SVI, a_loop_as_long_as_the_data_say, calls(X, LENGTHS.clone())))
    assert found[2].engine.steps["interpreted"] >= 45


def test_a_run_of_many_steps_takes_back_those_that_go_another_way():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    plain = SVI(branches_on_draws, AutoNormal(branches_on_draws), pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    expected = [plain.step(X, LENGTHS) for _ in range(100)]
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    guide = AutoNormal(branches_on_draws)
    svi = vi.SVI(branches_on_draws, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(), engine="interpreted")
    np.testing.assert_allclose(svi.run(100, X, LENGTHS), expected, rtol=1e-4)
    assert svi.engine.steps["interpreted"] >= 60


def test_a_number_that_changes_with_every_step_is_not_frozen():
    def program(x, lengths):
        mu, s = latents()
        rows(x, float(mu.detach()), s)

    calls = batches(1) * 20
    found = run(vi.SVI, program, calls, engine="traced")
    assert_same(found, run(SVI, program, calls))
    assert "changes with every step" in found[2].engine.reason
    assert f"test_reads.py:{program.__code__.co_firstlineno + 2}" in found[2].engine.reason


def test_numbers_that_are_new_in_every_batch_end_in_the_eager_tier():
    generator = torch.Generator().manual_seed(5)
    calls = [(torch.randn(12, 6, generator=generator), LENGTHS) for _ in range(250)]
    found = run(vi.SVI, numbers_of_the_data, calls, engine="traced")
    assert_same(found, run(SVI, numbers_of_the_data, calls))
    assert "another number in almost every step (test_reads.py:" in found[2].engine.reason


def test_tracegraph_with_a_branch():
    def program(x, lengths):
        k = pyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": None})
        mu = pyro.sample("mu", dist.Normal(k, 1.0))
        if lengths.max() > 3:
            mu = mu + 1
        rows(x, mu, 1.0)

    def guide(x, lengths):
        k = pyro.sample("k", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.2))))
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.1)) + k, 1.0))

    def steps(make, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        svi = make(program, guide, pyro.optim.Adam({"lr": 0.05}), TraceGraph_ELBO(), **options)
        return [svi.step(X, LENGTHS) for _ in range(30)], svi

    found, svi = steps(vi.SVI, engine="traced")
    np.testing.assert_allclose(found, steps(SVI)[0], rtol=1e-4)
    assert svi.engine.reason or svi.engine.tier == "traced"


def coins(x):
    locs = pyro.param("locs", torch.tensor([0.0, 1.0]))
    for k in range(4):
        i = pyro.sample(f"i{k}", dist.Categorical(torch.ones(2) / 2))
        pyro.sample(f"x{k}", dist.Normal(locs[i], 1.0), obs=x[k, 0])


def guesses(x):
    for k in range(4):
        pyro.sample(f"i{k}", dist.Categorical(pyro.param(f"p{k}", torch.ones(2), constraint=dist.constraints.positive)))


def test_a_way_that_draws_seldom_take_is_bound_once(monkeypatch):
    translated = []

    def counting(*arguments):
        translated.append(arguments)
        return translate(*arguments)

    def steps(make, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        svi = make(coins, guesses, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(), **options)
        return [svi.step(X) for _ in range(40)], svi

    translate = runner.translate
    monkeypatch.setattr(runner, "translate", counting)
    found, svi = steps(vi.SVI, engine="interpreted")
    np.testing.assert_allclose(found, steps(SVI)[0], rtol=1e-4)
    assert len(translated) <= 8  # one for each graph
    assert svi.engine.steps["interpreted"] > 0


def of_a_minibatch(x):
    mu, s = latents()
    if mu > 0.3:
        mu = 2 * mu
    with pyro.plate("rows", 60, subsample_size=len(x)):
        shift = 0.5 if torch.isfinite(x).all() and (len(x) < 60 or (x > 0).sum() > 5) else 0.0
        pyro.sample("x", dist.Normal(mu + shift, s), obs=x)


@pytest.mark.parametrize("engine", ["traced", "interpreted"])
@pytest.mark.parametrize("batch_size", [None, 8])
def test_fits_are_those_of_the_eager_tier(batch_size, engine):
    data = torch.randn(60, generator=torch.Generator().manual_seed(1)) + 0.3
    options = {"data": data, "batch_size": batch_size, "seed": 0, "steps": 120, "progress": False}
    expected = vi.fit(of_a_minibatch, AutoNormal(of_a_minibatch), engine="eager", **options)
    found = vi.fit(of_a_minibatch, AutoNormal(of_a_minibatch), engine=engine, **options)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-3)
    assert found.engine.steps[engine] >= 50, found.engine


def test_starts_side_by_side_that_may_take_other_ways_are_trained_one_by_one():
    data = torch.randn(60, generator=torch.Generator().manual_seed(1)) + 0.3
    options = {"data": data, "seed": 0, "steps": 60, "progress": False, "restarts": 2}
    fits = [vi.fit(of_a_minibatch, AutoNormal(of_a_minibatch), engine=e, **options) for e in ("eager", "traced")]
    np.testing.assert_allclose(fits[1].losses, fits[0].losses, rtol=1e-3)


CONDITIONS = {
    "draw": lambda x, lengths, mu, s: mu > 0,
    "scale": lambda x, lengths, mu, s: s.item() < 1.2,
    "data": lambda x, lengths, mu, s: x.mean() > 0,
    "length": lambda x, lengths, mu, s: int(lengths.max()) % 2,
    "list": lambda x, lengths, mu, s: lengths.tolist()[0] > 2,
    "array": lambda x, lengths, mu, s: lengths.numpy().min() > 1,
    "sum": lambda x, lengths, mu, s: (x > mu).sum(),
    "equal": lambda x, lengths, mu, s: torch.equal(lengths, LENGTHS),
}


@pytest.mark.parametrize("examples", [5, pytest.param(300, marks=pytest.mark.slow)])
def test_random_programs_of_branches(examples):
    @settings(max_examples=examples, deadline=None, derandomize=examples < 100, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(st.sampled_from(sorted(CONDITIONS)), st.floats(-1, 1)), min_size=1, max_size=4),
        st.lists(st.integers(0, 6), min_size=1, max_size=5),
    )
    def holds(branches, order):
        def program(x, lengths):
            mu, s = latents()
            for name, shift in branches:
                if CONDITIONS[name](x, lengths, mu, s):
                    mu = mu + shift
            rows(x, mu, s)

        calls = [batches(7)[i] for i in order for _ in range(4)] * 2
        assert_same(run(vi.SVI, program, calls, engine="traced"), run(SVI, program, calls))

    holds()
