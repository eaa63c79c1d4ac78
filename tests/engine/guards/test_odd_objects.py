"""Objects that do not say what they are: a program that reads one trains as in Pyro, in a graph or with a reason."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

import vipack as vi

X = torch.linspace(-1.0, 1.0, 8)


class Raising:
    """Any question about a name is an error of its own."""

    def __init__(self, *names):
        self.names = names

    def __get__(self, instance, owner):
        raise LookupError("not bound")


def plain(**attributes):
    return type("Plain", (), {"scale": 2.0, **attributes})()


class Nameless(type):
    __module__ = Raising()
    __name__ = Raising()


class Proxy:
    """As of a web framework outside of a request: what it stands for is not there."""

    __slots__ = ()
    __class__ = property(lambda self: 1 / 0)
    __dict__ = property(lambda self: 1 / 0)

    def __getattr__(self, name):
        if name != "scale":
            raise RuntimeError(f"{name}: working outside of a context")
        return 2.0


class Callable:
    """A function by all looks but those of its code."""

    __name__ = property(lambda self: 1 / 0)
    __code__ = property(lambda self: 1 / 0)
    __closure__ = property(lambda self: 1 / 0)
    __globals__ = property(lambda self: 1 / 0)
    __wrapped__ = property(lambda self: 1 / 0)
    __module__ = property(lambda self: 1 / 0)
    scale = 2.0

    def __call__(self):
        return 2.0


ODD = {
    "a module that is a property": lambda: plain(__module__=property(lambda self: "there")),
    "a module that raises": lambda: plain(__module__=property(lambda self: 1 / 0)),
    "a module that is a number": lambda: plain(__module__=3),
    "a descriptor for a module": lambda: plain(__module__=Raising()),
    "a class whose metaclass raises": lambda: Nameless("Odd", (), {"scale": 2.0})(),
    "such a class": lambda: Nameless("Odd", (), {"scale": 2.0}),
    "a proxy": Proxy,
    "a callable": Callable,
    "a dict that raises": lambda: plain(__dict__=property(lambda self: 1 / 0)),
    "slots that are none": lambda: type("Slotted", (), {"__slots__": (), "scale": 2.0})(),
}


def model_of(odd):
    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, odd.scale))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, getattr(odd, "scale", 1.0)), obs=x)

    return model


def of_an_argument(odd):
    def inner(x, held):
        loc = pyro.sample("loc", dist.Normal(0.0, held.scale))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(loc, held.scale), obs=x)

    return lambda x: inner(x, odd)


@pytest.mark.parametrize("make", [model_of, of_an_argument])
@pytest.mark.parametrize("name", ODD)
def test_a_program_that_reads_an_odd_object_trains_as_in_pyro(name, make):
    model = make(ODD[name]())
    expected = stepped(SVI, model)
    assert stepped(vi.SVI, model, engine="traced") == pytest.approx(expected, rel=1e-5)
    found, eager = (vi.fit(model, AutoNormal, data=X, steps=20, engine=tier) for tier in ("traced", "eager"))
    assert found.losses == pytest.approx(eager.losses, rel=1e-5)


def stepped(kind, model, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    svi = kind(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO(), **options)
    return [svi.step(X) for _ in range(10)]
