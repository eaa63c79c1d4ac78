"""Posteriors for the ladder: known exactly, badly scaled, funnel-shaped, or broken."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints

from vipack.program import Arguments, Program
from vipack.program.evaluation.logjoint import LogJoint
from vipack.training.ladder.surface import Surface

X = torch.tensor([1.2, 0.3, 2.1, 1.7, 0.9], dtype=torch.float64)


def flat(name, support=constraints.real, shape=()):
    return pyro.sample(name, dist.ImproperUniform(support, (), torch.Size(shape)))


def conjugate(x):
    """mu | x ~ Normal(sum(x) / (n + 1), 1 / sqrt(n + 1))."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def badly_scaled():
    """Independent normals with standard deviations from 1e-4 to 1e4, far from the origin."""
    scale = torch.logspace(-4, 4, 5)
    pyro.sample("z", dist.Normal(3 * scale, scale).to_event(1))


def funnel():
    log_scale = pyro.sample("log_scale", dist.Normal(0.0, 3.0))
    pyro.sample("z", dist.Normal(0.0, log_scale.exp()).expand([4]).to_event(1))


def skewed(x):
    """Two gammas, far from normal on the log scale too, and a sum that is hardly seen."""
    z = pyro.sample("z", dist.Gamma(torch.tensor([0.3, 3.0]), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(z.sum(), 10.0), obs=x)


def two_shapes(x):
    """Flat priors on the line, the half line and ordered pairs."""
    b, s = flat("b"), flat("s", constraints.positive)
    cuts = flat("cuts", constraints.ordered_vector, (2,))
    pyro.factor("cuts_seen", dist.Normal(torch.tensor([-1.0, 1.0]), 0.1).log_prob(cuts).sum())
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(b, s), obs=x)


def constant(x):
    """log p(x, z) is the same everywhere."""
    flat("b")
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def unidentified(x):
    """Only the sum of a and b is seen."""
    a, b = flat("a"), flat("b")
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)


def nowhere(x):
    """No value of mu explains the data."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.factor("never", torch.log(mu * 0))


def toss(x):
    side = pyro.sample("side", dist.Bernoulli(0.5))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(side, 1.0), obs=x)


def surface(model, *data, dtype=torch.float64):
    program = Program(model, lambda *args: None, dtype=dtype, device=torch.device("cpu"))
    return Surface(LogJoint(program, Arguments(data)))
