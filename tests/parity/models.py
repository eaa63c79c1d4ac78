"""Models and guides written by hand, one for each thing that a Pyro program may do."""

from __future__ import annotations

import pyro
import pyro.contrib.gp as gp
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer.reparam import LocScaleReparam
from pyro.ops.indexing import Vindex
from torch.distributions import constraints

from tests.parity.data import CURVE, FEATURES, LINE, TARGET


def schools(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def logistic(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=(x * w).sum(-1) + b), obs=y)


def subsampled(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(x), subsample_size=8) as rows:
        pyro.sample("y", dist.Normal(x[rows] @ w, 1.0), obs=y[rows])


def varying_intercepts(x, group, y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    slope = pyro.sample("slope", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    sigma = pyro.sample("sigma", dist.Exponential(1.0))
    with pyro.plate("groups", 5):
        a = pyro.sample("a", dist.Normal(mu, tau))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(a[group] + x @ slope, sigma), obs=y)


def local(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 5.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.StudentT(4.0, loc, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def mixture(x):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    locs = pyro.sample("locs", dist.Normal(torch.tensor([-1.0, 1.0]), 3.0).to_event(1))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(Vindex(locs)[..., k], 1.0), obs=x)


def hidden_markov(x):
    stay = pyro.sample("stay", dist.Beta(torch.ones(2), 1.0).to_event(1))
    locs = pyro.sample("locs", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    state = 0
    for t in pyro.markov(range(len(x))):
        to_first = torch.stack([stay[..., 0], 1.0 - stay[..., 1]], -1)
        state = pyro.sample(
            f"state_{t}", dist.Bernoulli(1.0 - to_first[..., state]), infer={"enumerate": "parallel"}
        ).long()
        pyro.sample(f"x_{t}", dist.Normal(locs[..., state], 1.0), obs=x[t])


def forward_pass(x):
    """A chain summed out by Pyro's own distribution."""
    start = pyro.sample("start", dist.Dirichlet(torch.ones(3)))
    moves = pyro.sample("moves", dist.Dirichlet(torch.ones(3, 3)).to_event(1))
    locs = pyro.sample("locs", dist.Normal(torch.tensor([-2.0, 0.0, 2.0]), 1.0).to_event(1))
    chain = dist.DiscreteHMM(start.log(), moves.log(), dist.Normal(locs, 1.0), duration=len(x))
    pyro.sample("x", chain, obs=x)


def random_walk(x):
    scale = pyro.sample("scale", dist.LogNormal(-1.0, 0.5))
    z = 0.0
    for t in range(len(x)):
        z = pyro.sample(f"z_{t}", dist.Normal(z, scale))
        pyro.sample(f"x_{t}", dist.Normal(z, 0.5), obs=x[t])


def gaussian_process(x, y):
    length = pyro.sample("length", dist.LogNormal(-1.0, 0.5))
    noise = pyro.sample("noise", dist.LogNormal(-1.0, 0.5))
    kernel = torch.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + (noise + 1e-3) * torch.eye(len(x), dtype=x.dtype)
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x), dtype=x.dtype), kernel), obs=y)


def counts(x, y):
    w = pyro.sample("w", dist.Laplace(torch.zeros(3), 1.0).to_event(1))
    shape = pyro.sample("shape", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.GammaPoisson(shape, shape * torch.exp(-x @ w)), obs=y)


def inflated(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    gate = pyro.sample("gate", dist.Beta(2.0, 2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.ZeroInflatedPoisson(torch.exp(x @ w), gate=gate), obs=y)


def masked(x, y, seen):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(x)), poutine.mask(mask=seen):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def partly_observed(x, y, seen):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y, obs_mask=seen)


def scaled(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(x)), poutine.scale(scale=2.5):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def factors(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 5.0))
    pyro.factor("pull", -0.1 * (loc - 1.0) ** 2)
    with pyro.plate("rows", len(x)):
        pyro.factor("x", -((x - loc) ** 2))


def deterministic(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    log_sigma = pyro.sample("log_sigma", dist.Normal(0.0, 1.0))
    sigma = pyro.deterministic("sigma", log_sigma.exp())
    with pyro.plate("rows", len(x)):
        mean = pyro.deterministic("mean", x @ w)
        pyro.sample("y", dist.Normal(mean, sigma), obs=y)


def correlated(x):
    factor = pyro.sample("factor", dist.LKJCholesky(3, torch.tensor(2.0)))
    scale = pyro.sample("scale", dist.HalfNormal(1.0).expand([3]).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(3), scale_tril=scale[:, None] * factor), obs=x)


def many_supports(x):
    simplex = pyro.sample("simplex", dist.Dirichlet(torch.ones(3)))
    cuts = pyro.sample(
        "cuts",
        dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0).to_event(1), dist.transforms.OrderedTransform()),
    )
    positive = pyro.sample("positive", dist.Weibull(1.0, 2.0))
    inside = pyro.sample("inside", dist.Uniform(-1.0, 2.0))
    share = pyro.sample("share", dist.Beta(2.0, 3.0))
    with pyro.plate("rows", len(x)):
        mean = simplex @ cuts + inside * x + share
        pyro.sample("x", dist.Normal(mean, positive), obs=x)


def flat_prior(x, y):
    b = pyro.sample("b", dist.ImproperUniform(constraints.real, (), ()))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(b * x[:, 0], sigma), obs=y)


def closed_over():
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", 30):
        pyro.sample("y", dist.Normal(FEATURES @ w, 1.0), obs=TARGET)


def shares(x):
    concentration = pyro.sample("concentration", dist.Gamma(torch.full((3,), 2.0), 0.5).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Dirichlet(concentration), obs=x)


def rates(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    share = pyro.sample("share", dist.Beta(1.0, 1.0))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate * share + weights[0]), obs=y)


def gamma_guide(y):
    def positive(name, value):
        return pyro.param(name, torch.tensor(value), constraint=constraints.positive)

    pyro.sample("rate", dist.Gamma(positive("rate_shape", 3.0), positive("rate_rate", 2.0)))
    pyro.sample("share", dist.Beta(positive("share_a", 2.0), positive("share_b", 2.0)))
    pyro.sample("weights", dist.Dirichlet(positive("weights_concentration", [1.0, 2.0, 3.0])))


def gates(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.4))
        pyro.sample("x", dist.Normal(loc * (2 * k - 1), 1.0), obs=x)


def gates_guide(x):
    loc = pyro.param("loc_loc", torch.tensor(0.5))
    pyro.sample("loc", dist.Normal(loc, pyro.param("loc_scale", torch.tensor(0.5), constraint=constraints.positive)))
    logits = pyro.param("logits", torch.zeros(len(x)))
    with pyro.plate("rows", len(x)):
        pyro.sample("k", dist.Bernoulli(logits=logits))


def gates_guide_enumerated(x):
    with poutine.infer_config(config_fn=lambda site: {"enumerate": "parallel"} if site["name"] == "k" else {}):
        gates_guide(x)


def classes(x):
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(torch.tensor([-3.0, 0.0, 3.0])[k], 1.0), obs=x)


def classes_guide(x):
    concentration = pyro.param("concentration", torch.ones(3), constraint=constraints.positive)
    pyro.sample("weights", dist.Dirichlet(concentration))
    logits = pyro.param("logits", torch.zeros(len(x), 3))
    with pyro.plate("rows", len(x)):
        pyro.sample("k", dist.Categorical(logits=logits))


def sleeping(x):
    """A model with parameters of its own, as wake-sleep trains them."""
    bias = pyro.param("bias", torch.tensor(0.1))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z + bias, 1.0), obs=x)


def sleeping_guide(x):
    weight = pyro.param("weight", torch.tensor(0.3))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(weight * x, scale))


def topics(words):
    """LDA with the topics of words summed out."""
    phi = pyro.param(
        "phi", lambda: torch.full((3, 15), 1 / 15) + 0.01 * torch.eye(3, 15), constraint=constraints.simplex
    )
    with pyro.plate("documents", len(words)):
        theta = pyro.sample("theta", dist.Dirichlet(torch.full((3,), 0.5)))
        pyro.sample("words", dist.Multinomial(100, theta @ phi, validate_args=False), obs=words)


def topics_guide(words):
    concentration = pyro.param("concentration", lambda: torch.ones(len(words), 3), constraint=constraints.positive)
    with pyro.plate("documents", len(words)):
        pyro.sample("theta", dist.Dirichlet(concentration))


def by_hand(x, y):
    """Full covariance, tensor-valued parameters with constraints of several kinds."""
    loc = pyro.param("loc", torch.zeros(3))
    factor = pyro.param("factor", torch.eye(3), constraint=constraints.lower_cholesky)
    pyro.sample("w", dist.MultivariateNormal(loc, scale_tril=factor))
    pyro.sample("b", dist.Delta(pyro.param("b_value", torch.tensor(0.1))))


def intercept_and_slopes(x, y):
    w = pyro.sample("w", dist.MultivariateNormal(torch.zeros(3), torch.eye(3)))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w + b, 1.0), obs=y)


class Grouped(EasyGuide):
    def guide(self, x):
        group = self.group(match="loc")
        loc = pyro.param("auto_loc", torch.zeros(group.event_shape))
        group.sample("auto", dist.Normal(loc, 0.1).to_event(1))
        with self.plate("rows", len(x)):
            self.map_estimate("z")


def sparse_process():
    with torch.random.fork_rng(devices=[]):
        kernel = gp.kernels.RBF(input_dim=1)
        return gp.models.VariationalSparseGP(
            LINE, CURVE, kernel, Xu=LINE[::4].clone(), likelihood=gp.likelihoods.Gaussian(), jitter=1e-4
        )


REPARAMETRISED = poutine.reparam(local, config={"z": LocScaleReparam(0.5, shape_params=["df"])})
CONDITIONED = poutine.condition(logistic, {"b": torch.tensor(0.2)})
