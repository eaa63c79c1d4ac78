"""The importance-weighted bound of independent rows is a sum of bounds of rows, in minibatches too."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from torch.distributions import constraints

import vipack as vi
from vipack.objectives import ImportanceWeighted

N, K = 300, 20
COPIES = torch.full((N, 2), 1.5)


def model(x):
    slope = pyro.param("slope", torch.tensor(0.8))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(slope * z, 0.5).to_event(1), obs=x)


def guide(x):
    weight = pyro.param("weight", torch.tensor(0.5))
    scale = pyro.param("scale", torch.tensor(0.9), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(weight * x, scale).to_event(1))


def bound_of_a_row(num_draws=20_000, seed=0):
    """The mean of log mean_k w over many sets of K draws for one row, and its standard error, in nats."""
    generator = torch.Generator().manual_seed(seed)
    x = COPIES[0]
    q = dist.Normal(0.5 * x, 0.9)
    z = 0.5 * x + 0.9 * torch.randn(num_draws, K, 2, generator=generator)
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(0.8 * z, 0.5).log_prob(x)
    bounds = (log_p - q.log_prob(z)).sum(-1).logsumexp(1) - math.log(K)
    return bounds.mean().item(), bounds.std().item() / math.sqrt(num_draws)


def estimates(number=30, data=COPIES, guide=guide, model=model):
    pyro.clear_param_store()
    objective = ImportanceWeighted(K)
    return np.array([-objective.loss(model, guide, data) for _ in range(number)]) / len(data)


def test_copies_of_one_row_have_that_rows_bound():
    exact, exact_se = bound_of_a_row()
    found = estimates()
    se = math.hypot(exact_se, found.std() / math.sqrt(len(found)))
    assert abs(found.mean() - exact) < 4 * se
    assert se < 0.02


@pytest.mark.parametrize("engine", ["eager", "traced", "interpreted"])
@pytest.mark.parametrize("batch_size", [None, 30, 7])
def test_minibatches_have_the_same_bound(batch_size, engine):
    exact, _ = bound_of_a_row()
    fit = vi.fit(
        model, guide, data=COPIES, loss=ImportanceWeighted(K), steps=40, batch_size=batch_size, engine=engine, seed=1,
        optim=pyro.optim.SGD({"lr": 0.0}), progress=False,
    )  # fmt: skip
    per_row = -fit.losses / N
    assert abs(per_row.mean() - exact) < 4 * per_row.std() / math.sqrt(len(per_row)) + 0.01
    assert fit.engine.tier == engine, fit.engine.reason


def by_hand(x, scale=1.0):
    """DReG (Tucker et al. 2019, equation 8) for the guide and the bound's own gradient for the model, row by row."""
    slope, weight, log_sd = (torch.tensor(v, requires_grad=True) for v in (0.8, 0.5, math.log(0.9)))
    noise = torch.stack([torch.randn(len(x), 2) for _ in range(K)])
    z = weight * x + log_sd.exp() * noise
    fixed = dist.Normal(weight.detach() * x, log_sd.exp().detach())

    def log_weights(z, slope):
        log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(slope * z, 0.5).log_prob(x)
        return (log_p - fixed.log_prob(z)).sum(-1)

    shares = log_weights(z, slope).softmax(0).detach()
    for_guide = (shares.square() * log_weights(z, slope.detach())).sum()
    for_model = (shares * log_weights(z.detach(), slope)).sum()
    (scale * (for_guide + for_model)).backward()
    return {"slope": slope.grad, "weight": weight.grad, "scale": log_sd.grad}


def mean_and_se(gradients):
    values = torch.stack(gradients).double()
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def test_its_gradient_is_dreg_row_by_row():
    ours, theirs = {}, {}
    for _ in range(150):
        pyro.clear_param_store()
        objective = ImportanceWeighted(K)
        objective.loss_and_grads(model, guide, COPIES[:20])
        for name in ("slope", "weight", "scale"):
            ours.setdefault(name, []).append(-pyro.get_param_store()._params[name].grad)
        for name, gradient in by_hand(COPIES[:20]).items():
            theirs.setdefault(name, []).append(gradient)
    for name in ours:
        (one, one_se), (two, two_se) = mean_and_se(ours[name]), mean_and_se(theirs[name])
        assert abs(one - two) < 4 * torch.hypot(one_se, two_se), name
        assert torch.hypot(one_se, two_se) < 0.1 * two.abs() + 0.3, name


def test_automatic_guides_by_site_have_rows_and_joint_ones_have_not():
    by_site, joint = (estimates(20, COPIES[:40], made(model)) for made in (AutoNormal, AutoDiagonalNormal))
    assert (
        by_site.mean() > joint.mean() + 0.1
    )  # the same start; K weights of forty rows at once are hardly better than one


def test_global_latents_keep_the_joint_bound():
    """log N(x; 0, I + 11') is the evidence; with the posterior as the guide every weight is that."""
    x = torch.tensor([0.3, -0.2, 0.9])

    def shared(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def posterior(x):
        pyro.sample("z", dist.Normal(x.sum() / (len(x) + 1), (len(x) + 1) ** -0.5))

    evidence = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 1.0).log_prob(x).item()
    assert -ImportanceWeighted(5).loss(shared, posterior, x) == pytest.approx(evidence, abs=1e-5)


def globally(x):
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(centre, 1.0).expand([len(x), 2]).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("program", "loss", "cure"),
    [
        (model, RenyiELBO(alpha=0, num_particles=5), "use vipack.objectives.ImportanceWeighted"),
        (globally, RenyiELBO(alpha=0.5, num_particles=5), "train on all rows at once"),
        (globally, ImportanceWeighted(5), "train on all rows at once"),
    ],
)
def test_weights_of_all_rows_together_in_minibatches_are_warned_of(program, loss, cure):
    options = {"data": COPIES, "loss": loss, "steps": 2, "engine": "eager", "progress": False}
    with pytest.warns(vi.errors.ProgramWarning, match=f"no bound on the evidence; {cure}"):
        vi.fit(program, AutoNormal, batch_size=30, **options)
    vi.fit(program, AutoNormal, **options)  # of all rows it is one
