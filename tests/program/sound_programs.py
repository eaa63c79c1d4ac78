"""Programs that are right, however odd they look: models and guides in which the preflight must find nothing."""

from __future__ import annotations

import pyro
import pyro.contrib.gp as gp
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import (
    JitTrace_ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoDiscreteParallel,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalMessenger,
    AutoStructured,
)
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule, PyroSample
from torch import nn
from torch.distributions import constraints

N = 12
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, generator=GENERATOR)
Y = 2 * X + 0.1 * torch.randn(N, generator=GENERATOR)
COUNTS = torch.poisson(torch.full((N,), 3.0), generator=GENERATOR)
LABELS = (X > 0).float()
SEEN = torch.arange(N) % 3 > 0
TABLE = torch.randn(N, 4, generator=GENERATOR)


def regression(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, s + 0.1), obs=y)


def draw(name, support=constraints.real, shape=()):
    loc = pyro.param(f"{name}_loc", torch.zeros(shape))
    scale = pyro.param(f"{name}_scale", torch.full(shape, 0.1), constraint=constraints.positive)
    base = dist.Normal(loc, scale).to_event(len(shape))
    if support is constraints.real:
        return pyro.sample(name, base)
    return pyro.sample(name, dist.TransformedDistribution(base, [torch.distributions.biject_to(support)]))


def by_hand(x, y=None):
    draw("w")
    draw("s", constraints.positive)


def with_an_auxiliary(x, y=None):
    u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
    pyro.sample("w", dist.Normal(0.1 * u, 0.1))
    draw("s", constraints.positive)


def with_point_masses(x, y=None):
    pyro.sample("w", dist.Delta(pyro.param("w_loc", torch.tensor(0.3))))
    pyro.sample("s", dist.Delta(pyro.param("s_loc", torch.tensor(0.3), constraint=constraints.positive)))


def masked(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)), poutine.mask(mask=~torch.isnan(y)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=torch.nan_to_num(y))


def masked_nan(x, y):
    """The mask hides values that are no numbers; validation must be off, as Pyro asks."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)), poutine.mask(mask=~torch.isnan(y)):
        pyro.sample("y", dist.Normal(w * x, 1.0, validate_args=False), obs=torch.where(torch.isnan(y), w.detach(), y))


def partly_observed(x, y, seen):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y, obs_mask=seen)


def factors(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.factor("likelihood", -((x - w) ** 2))


def deterministic(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    twice = pyro.deterministic("twice", 2 * w)
    with pyro.plate("data", len(x)):
        mean = pyro.deterministic("mean", twice + 0 * x)
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def subsampled(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=4) as rows:
        z = pyro.sample("z", dist.Normal(w, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])


def subsampled_guide(x):
    draw("w")
    locs = pyro.param("z_locs", torch.zeros(len(x)))
    with pyro.plate("data", len(x), subsample_size=4) as rows:
        pyro.sample("z", dist.Normal(locs[rows], 1.0))


def local(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def mixture(x):
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(2) / 2))
        pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x)


def mixture_guide(x):
    draw("loc", shape=(2,))
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Categorical(logits=torch.stack([x, -x], -1) * pyro.param("slope", torch.tensor(1.0))))


def mixture_without_labels(x):
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        parts = dist.Normal(loc.expand(len(x), 2), 1.0)
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(torch.ones(len(x), 2)), parts), obs=x)


def chain(x):
    rate = pyro.sample("rate", dist.Beta(1.0, 1.0))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    k = 0
    for t in pyro.markov(range(4)):
        k = pyro.sample(f"k_{t}", dist.Bernoulli(rate if t else 0.5), infer={"enumerate": "parallel"}).long()
        pyro.sample(f"x_{t}", dist.Normal(loc[k], 1.0), obs=x[t])


def hidden_markov(x):
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    eye = torch.eye(1)
    noise = dist.MultivariateNormal(torch.zeros(1), eye * scale)
    start = dist.MultivariateNormal(torch.zeros(1), eye)
    pyro.sample("x", dist.GaussianHMM(start, eye, noise, eye, noise, duration=len(x)), obs=x[:, None])


def dependent_support(x):
    a = pyro.sample("a", dist.LogNormal(1.0, 1.0))
    b = pyro.sample("b", dist.Uniform(0.0, a))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


def correlated(x):
    factor = pyro.sample("factor", dist.LKJCholesky(4, torch.tensor(1.0)))
    scale = pyro.sample("scale", dist.HalfCauchy(1.0).expand([4]).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(4), scale_tril=scale[:, None] * factor), obs=x)


def grey_levels(x):
    """A Bernoulli of values between 0 and 1, as for pictures; the user turned validation off for it."""
    p = pyro.sample("p", dist.Beta(torch.ones(4), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(p, validate_args=False).to_event(1), obs=x)


def counts_of_several_kinds(n, y):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", len(n)):
        pyro.sample("hits", dist.Binomial(total_count=10.0, probs=p[0]), obs=n)
        pyro.sample("zeros", dist.ZeroInflatedPoisson(1.0 + p[1], gate=p[2]), obs=n)
        pyro.sample("y", dist.Bernoulli(p[1]), obs=(y > 0).float())


def boundary_values(x):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Exponential(rate), obs=x.clamp(min=0.0))
        pyro.sample("u", dist.Uniform(0.0, 1.0), obs=(x > 0).float() * 0.5)


def argument_of_a_latents_name(x):
    """x stands for the true values here, and for their measurements in the argument."""
    with pyro.plate("data", len(x)):
        true = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("measured", dist.Normal(true, 1.0), obs=x)


def school_effects(y):
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(0.0, tau))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def nested(x):
    with pyro.plate("columns", 4, dim=-1):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x), dim=-2):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def one_by_one(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"x_{i}", dist.Normal(loc, 1.0), obs=x[i])


def closed_over():
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=X)


def expensive_prior(x):
    """Draws of the prior overflow; the guide starts at the medians."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 50.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, scale), obs=x)


class Layers(PyroModule):
    def __init__(self):
        super().__init__()
        self.layer = PyroModule[nn.Linear](4, 1)
        self.layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 4]).to_event(2))
        self.bias = PyroSample(lambda self: dist.Normal(0.0, 1.0))

    def forward(self, x, y):
        mean = self.layer(x)[:, 0] + self.bias
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4))
        self.decoder = nn.Linear(2, 4)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Grouped(EasyGuide):
    def guide(self, x):
        group = self.group(match="loc")
        loc = pyro.param("auto_loc", torch.zeros(group.event_shape))
        group.sample("auto", dist.Normal(loc, 0.1).to_event(1))
        with self.plate("data", len(x)):
            self.map_estimate("z")


def discrete_and_continuous():
    guides = AutoGuideList(mixture)
    guides.append(AutoNormal(poutine.block(mixture, hide=["k"])))
    guides.append(AutoDiscreteParallel(poutine.block(mixture, expose=["k"])))
    return guides


def sparse_process():
    kernel = gp.kernels.RBF(input_dim=1)
    return gp.models.VariationalSparseGP(X, Y, kernel, Xu=X[:3].clone(), likelihood=gp.likelihoods.Gaussian())


VAE, GP = Autoencoder(), sparse_process()
MISSING = torch.where(SEEN, Y, torch.nan)
ENUMERATED = config_enumerate(mixture)
REPARAMETRISED = poutine.reparam(school_effects, config={"theta": LocScaleReparam(0.0)})

# name -> model, guide, data and options
SOUND = {
    "a guide by hand": (regression, by_hand, (X, Y), {}),
    "a guide by hand in minibatches": (regression, by_hand, (X, Y), {"batch_size": 5}),
    "an automatic guide": (regression, AutoNormal, (X, Y), {}),
    "the default guide": (regression, None, {"x": X, "y": Y}, {"batch_size": 5}),
    "a guide with an auxiliary site": (regression, with_an_auxiliary, (X, Y), {}),
    "point masses": (regression, with_point_masses, (X, Y), {}),
    "a MAP estimate": (regression, AutoDelta, (X, Y), {}),
    "a messenger guide": (regression, AutoNormalMessenger, (X, Y), {}),
    "a structured guide": (regression, AutoStructured, (X, Y), {}),
    "a model conditioned on data": (poutine.condition(regression, {"y": Y}), AutoNormal, X, {}),
    "a mask": (masked, AutoNormal, (X, MISSING), {}),
    "a mask in minibatches": (masked, AutoNormal, (X, MISSING), {"batch_size": 5}),
    "a mask with validation off": (masked_nan, AutoNormal, (X, MISSING), {}),
    "obs_mask": (partly_observed, AutoNormal, (X, Y, SEEN), {}),
    "obs_mask in minibatches": (partly_observed, AutoNormal, (X, Y, SEEN), {"batch_size": 5}),
    "obs_mask over finite fillers": (partly_observed, AutoNormal, (X, Y.masked_fill(~SEEN, 1e3), SEEN), {}),
    "factors": (factors, AutoNormal, X, {}),
    "factors in minibatches": (factors, AutoNormal, X, {"batch_size": 5}),
    "deterministic sites": (deterministic, AutoNormal, X, {}),
    "deterministic sites in minibatches": (deterministic, AutoNormal, X, {"batch_size": 5}),
    "Pyro's own subsampling": (subsampled, subsampled_guide, X, {}),
    "Pyro's own subsampling, automatic": (subsampled, AutoNormal, X, {}),
    "local latents in minibatches": (local, AutoNormal, X, {"batch_size": 5}),
    "an easy guide": (local, Grouped(local), X, {}),
    "enumeration": (ENUMERATED, AutoNormal, X, {"loss": TraceEnum_ELBO(max_plate_nesting=1)}),
    "enumeration in minibatches": (ENUMERATED, AutoDelta, X, {"loss": TraceEnum_ELBO(), "batch_size": 5}),
    "labels in the guide": (mixture, mixture_guide, X, {"loss": TraceGraph_ELBO()}),
    "labels enumerated in the guide": (mixture, config_enumerate(mixture_guide), X, {"loss": TraceEnum_ELBO()}),
    "labels in a list of guides": (mixture, discrete_and_continuous(), X, {"loss": TraceEnum_ELBO()}),
    "labels summed out by hand": (mixture_without_labels, AutoNormal, X, {"batch_size": 5}),
    "a discrete Markov chain": (chain, AutoNormal, X, {"loss": TraceEnum_ELBO()}),
    "a hidden Markov model": (hidden_markov, AutoNormal, X, {}),
    "a support that depends on another site": (dependent_support, AutoMultivariateNormal, X, {}),
    "a correlation matrix": (correlated, AutoLowRankMultivariateNormal, TABLE, {}),
    "grey levels": (grey_levels, AutoNormal, TABLE.sigmoid(), {"batch_size": 5}),
    "counts of several kinds": (counts_of_several_kinds, AutoNormal, (COUNTS, Y), {"batch_size": 5}),
    "values on the edge of a support": (boundary_values, AutoNormal, X, {}),
    "an argument of a latent's name": (argument_of_a_latents_name, AutoNormal, X, {}),
    "reparametrised sites": (REPARAMETRISED, AutoNormal, Y, {}),
    "nested plates": (nested, AutoNormal, TABLE, {"batch_size": 5}),
    "a sequential plate": (one_by_one, AutoNormal, X, {}),
    "a model of no arguments": (closed_over, AutoNormal, (), {}),
    "a prior too wide to draw from": (expensive_prior, AutoNormal, X, {"batch_size": 5}),
    "a Bayesian network": (Layers(), AutoDiagonalNormal, (TABLE, Y), {}),
    "an autoencoder": (VAE.model, VAE.guide, TABLE, {}),
    "an autoencoder in minibatches": (VAE.model, VAE.guide, TABLE, {"batch_size": 5, "loss": TraceMeanField_ELBO()}),
    "a sparse Gaussian process": (GP.model, GP.guide, (), {}),
    "several particles": (regression, AutoNormal, (X, Y), {"loss": Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=1)}),
    "a Renyi bound": (regression, AutoNormal, (X, Y), {"loss": RenyiELBO(alpha=0.5, num_particles=2)}),
    "Pyro's tracer": (regression, AutoNormal, (X, Y), {"loss": JitTrace_ELBO(ignore_jit_warnings=True)}),
}  # fmt: skip
