"""Numbers among the arguments that change from call to call: one graph for all of them, and the same steps as Pyro's."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.distributions import constraints

import vipack as vi
from vipack.engine import graphs
from vipack.errors import EngineWarning

X = torch.randn(20, generator=torch.Generator().manual_seed(0))
STEPS = 72
TABLE = {number: 0.01 * number for number in range(0, 100, 2)}


def guide(x, beta, epoch=0):
    loc = pyro.param("loc", torch.tensor(0.5))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    with poutine.scale(scale=beta if not isinstance(beta, dict) else beta["kl"][0]):
        pyro.sample("mu", dist.Normal(loc, scale))


def rows(x, mu, scale=1.0):
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, scale), obs=x)


def weight_of_the_prior(x, beta, epoch=0):
    with poutine.scale(scale=beta):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu, 1.0 + 0.1 * beta)


def thresholds(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    if isinstance(beta, float) and beta > 0.5:
        mu = 1.1 * mu
    if epoch > 62 or epoch in (5, 50):
        mu = mu + 0.1
    rows(x, mu, max(beta, 0.3))


def schedule_in_the_model(x, beta, epoch=0):
    with poutine.scale(scale=max(0.01, min(1.0, epoch / 60))):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu)


def tensors_excepted(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu * 2 if torch.is_tensor(beta) or isinstance(beta, torch.Tensor) else mu * (1 + beta))


def in_a_container(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu, 1.0 + beta["kl"][0] + beta["fixed"])


def with_a_shape(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu * 2 if hasattr(beta, "requires_grad") else mu * (1 + beta))


CAPTURED = [with_a_shape, weight_of_the_prior, thresholds, schedule_in_the_model, tensors_excepted, in_a_container]


def looked_up_in_a_table(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu, 1.0 + TABLE.get(epoch, 0.0))


def looked_up_in_a_set(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu, 2.0 if epoch in {50, 51, 52} else 1.0)


def number_of_copies(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu + sum(0.01 for _ in range(epoch)))


def through_math(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu, np.exp(-float(beta)))


def by_name(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu + pyro.param(f"shift_{epoch // 30}", torch.tensor(0.2)))


def by_type(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu + (0.3 if type(beta) in (float, np.float64) and epoch > 50 else 0.0))


def by_class(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu + (0.3 if beta.__class__ is not torch.Tensor and epoch > 50 else 0.0))


def by_pattern(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    match beta:
        case float() if epoch > 50:
            mu = mu + 0.3
    rows(x, mu)


def by_text(x, beta, epoch=0):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    rows(x, mu + {"55": 0.3, "56": 0.2}.get(f"{epoch}", 0.0) + {"60": 0.3}.get(str(epoch), 0.0))


def later_by_type(x, beta, epoch=0):
    """The question is asked from some value on, in code that the first graph's run did not reach."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    if epoch > 20:
        mu = mu + asked_later(beta, epoch)
    rows(x, mu)


def asked_later(beta, epoch):
    return 0.3 if type(beta) in (float, np.float64) and epoch > 50 else 0.0


LEFT_ALONE = [
    looked_up_in_a_table,
    looked_up_in_a_set,
    number_of_copies,
    through_math,
    by_name,
    by_type,
    by_class,
    by_pattern,
    by_text,
    later_by_type,
]


def calls(program, kind):
    for k in range(STEPS):
        beta = kind(0.01 + k / 100)
        if program is in_a_container:
            yield {"kl": (beta, "a"), "fixed": 0.25}, k
        else:
            yield beta, k


def run(make, program, kind, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = make(program, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(), **options)
    return [svi.step(X, beta, epoch=epoch) for beta, epoch in calls(program, kind)], svi


BY_KIND = [weight_of_the_prior, thresholds, in_a_container]  # where a type of number may make a difference


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        *((program, float) for program in CAPTURED),
        *(pytest.param(p, np.float64, marks=[pytest.mark.slow] * (p not in BY_KIND)) for p in CAPTURED),
    ],
    ids=lambda value: value.__name__,
)
def test_one_graph_takes_all_values(program, kind):
    expected, _ = run(SVI, program, kind)
    found, svi = run(vi.SVI, program, kind, engine="traced")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert svi.engine.steps["traced"] >= STEPS - 25, svi.engine


def test_one_graph_takes_all_values_natively():
    expected, _ = run(SVI, weight_of_the_prior, float)
    found, svi = run(vi.SVI, weight_of_the_prior, float, engine="interpreted")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert svi.engine.steps["interpreted"] >= STEPS - 10, svi.engine


ALIKE = [looked_up_in_a_set, by_class]  # to a table and to a type


@pytest.mark.parametrize(
    "program",
    [pytest.param(program, marks=[pytest.mark.slow] * (program in ALIKE)) for program in LEFT_ALONE],
    ids=lambda program: program.__name__,
)
def test_programs_that_need_the_number_itself_are_pyros(program):
    expected, _ = run(SVI, program, float)
    found, svi = run(vi.SVI, program, float, engine="traced")
    assert svi.engine.steps["eager"] >= 40, svi.engine
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_values_that_come_back_in_turn_and_then_others():
    def run(make, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        svi = make(weight_of_the_prior, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(), **options)
        betas = [0.5, 1.0] * 10 + [0.1, 0.2, 0.3, 0.4, 0.5, 1.0] * 6 + [2.0] * 5 + [0.5, 1.0]
        losses = [svi.step(X, beta) for beta in betas]
        return [*losses, *(svi.step(X, 0.7, epoch=k) for k in range(8))]

    np.testing.assert_allclose(run(vi.SVI, engine="traced"), run(SVI), rtol=1e-4)


KNOWS = isinstance  # before it is asked on behalf of numbers


def test_what_no_rule_foresees_is_seen_when_the_graph_is_held_to_later_values():
    def unforeseen(x, beta, epoch=0):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        rows(x, mu * (1.5 if KNOWS(beta, float) and beta > 0.1 else 1.0))

    pyro.clear_param_store()
    svi = vi.SVI(unforeseen, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(), engine="traced")

    def train():
        for beta, epoch in calls(unforeseen, float):
            svi.step(X, beta, epoch=epoch)

    with pytest.warns(EngineWarning, match="no longer agrees"):
        train()
    assert svi.engine.tier == "eager"


@pytest.mark.parametrize("tier", ["traced", "interpreted", "compiled"])
def test_a_keyword_that_rises_at_every_step_of_an_autoencoder_is_an_input_of_one_graph(tier, monkeypatch):
    decoder, encoder = torch.nn.Linear(2, 6), torch.nn.Linear(6, 4)
    first = [{name: value.clone() for name, value in each.state_dict().items()} for each in (decoder, encoder)]
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))

    def model(x, beta):
        pyro.module("decoder", decoder)
        with pyro.plate("rows", len(x)):
            with poutine.scale(scale=beta):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

    def encode(x, beta):
        pyro.module("encoder", encoder)
        loc, raw = encoder(x).chunk(2, -1)
        with pyro.plate("rows", len(x)), poutine.scale(scale=beta):
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    def losses(make, **options):
        for each, state in zip((decoder, encoder), first, strict=True):
            each.load_state_dict(state)
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        svi = make(model, encode, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), **options)
        return [svi.step(x, beta=(k + 1) / STEPS) for k in range(STEPS)], svi

    expected, _ = losses(SVI)
    captured = []
    capture = graphs.capture
    monkeypatch.setattr(graphs, "capture", lambda *args, **kwargs: captured.append(1) or capture(*args, **kwargs))
    found, svi = losses(vi.SVI, engine=tier)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert len(captured) == 1
    assert svi.engine.steps[tier] >= STEPS - 10, svi.engine
