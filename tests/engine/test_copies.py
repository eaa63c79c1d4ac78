"""A deep copy of ``vipack.SVI`` is what one of ``pyro.infer.SVI`` is."""

import copy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample

import vipack as vi


class Regression(PyroModule):
    """With parameters, a latent and buffers of its own."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[torch.nn.Linear](1, 1, bias=False)
        self.normed = torch.nn.BatchNorm1d(1)
        self.offset = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x):
        mean = self.normed(self.linear(x))[:, 0] + self.offset
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=x[:, 0] ** 2)


@pytest.mark.parametrize("name", ["Adam", "ClippedAdam", "AdagradRMSProp"])
@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_deep_copies_train_on_as_those_of_pyros_do(engine, name):
    def run(make):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model = Regression()
        options = {} if name == "AdagradRMSProp" else {"lr": 0.02}
        first = make(model, AutoNormal(model), getattr(pyro.optim, name)(options), Trace_ELBO())
        losses = [first.step(x) for _ in range(5)]
        second = copy.deepcopy(first)
        for _ in range(6):  # in turn, one twice as often
            losses += [first.step(x), second.step(x), second.step(x)]
        return losses, [*first.model.state_dict().values()], [*second.model.state_dict().values()]

    x = torch.linspace(-1.0, 2.0, 12)[:, None]
    found, expected = run(partial(vi.SVI, engine=engine)), run(SVI)
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-4, atol=1e-5)
    assert not all(map(torch.equal, found[1], found[2]))
