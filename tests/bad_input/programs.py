"""A few programs that are right, to be spoiled, and the data for them."""

import pyro
import pyro.distributions as dist
import torch

N = 20
X = torch.linspace(-1, 1, N)
Y = 2 * X + 0.1


def regression(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, s + 0.1), obs=y)


def draw_w(x=None, y=None, scale=0.1):
    loc = pyro.param("w_loc", torch.tensor(0.0))
    return pyro.sample("w", dist.Normal(loc, scale))


def draw_s(x=None, y=None):
    loc = pyro.param("s_loc", torch.tensor(0.0))
    return pyro.sample("s", dist.LogNormal(loc, 0.1))


def guide(x, y):
    draw_w(), draw_s()


def mixture_guide(x):
    pyro.sample("loc", dist.Normal(pyro.param("loc_q", torch.zeros(2)), 1.0).to_event(1))


def local(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def plate_of_ten(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 10):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def two(**more):
    return {"data": (X, Y), **more}


def one(**more):
    return {"data": X, **more}
