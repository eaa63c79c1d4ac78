"""A fit without a guide in either floating-point type, of programs that hold float32 tensors of their own."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import nn

import vipack as vi
from tests.training.ladder.programs import surface
from vipack.errors import ModelError
from vipack.training.ladder import ladder
from vipack.training.ladder.effort import Effort
from vipack.training.ladder.rungs import Rung

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 2, generator=GENERATOR)
Y = X @ torch.tensor([1.0, -2.0]) + 0.5 + 0.3 * torch.randn(40, generator=GENERATOR)
ZERO, MATRIX, PROBS = torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.tensor([0.3, 0.7])
NET = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).requires_grad_(False)


def seen(mean, y):
    with pyro.plate("row", len(Y)):
        pyro.sample("y", dist.Normal(mean, 0.3), obs=y)


def weights():
    return pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))


def sum_with_own(x, y):
    seen(x[:, 0] + pyro.sample("w", dist.Normal(ZERO, torch.ones(2)).to_event(1)).sum(), y)


def own_covariance(x, y):
    seen((x * pyro.sample("w", dist.MultivariateNormal(ZERO, MATRIX))).sum(-1), y)


def product_with_own(x, y):
    seen(x @ (MATRIX @ weights()), y)


def written_to_own(x, y):
    seen(x @ ZERO.clone().index_add(0, torch.tensor([0, 1]), weights()), y)


def frozen_net(x, y):
    seen(pyro.sample("w", dist.Normal(0.0, 1.0)) * NET(x).squeeze(-1), y)


@config_enumerate
def mixture(y):
    place = pyro.sample("place", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    with pyro.plate("row", len(y)):
        side = pyro.sample("side", dist.Categorical(PROBS))
        pyro.sample("y", dist.Normal(place[side], 1.0), obs=y)


def held_data():
    seen(X @ weights(), Y)


def closed_over(x):
    def model(y):
        seen(torch.mv(x, weights()), y)

    return model


class Held:
    def __init__(self, x):
        self.x = x

    def model(self, y):
        seen(self.x @ weights(), y)


class Regression(PyroModule):
    """Pyro's tutorial on Bayesian regression."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](2, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x, y=None):
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Normal(mean, sigma), obs=y)
        return mean


class Buffered(PyroModule):
    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", MATRIX.clone())

    def forward(self, x, y=None):
        seen(x @ (self.matrix @ weights()), y)


class HalfTrained(PyroModule):
    """Weights of its own, which are trained, and a bias that is drawn."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](2, 1)
        self.linear.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))

    def forward(self, x, y=None):
        seen(self.linear(x).squeeze(-1), y)


# Whether float64 can be had: not where the program multiplies its own float32 tensors with draws by itself.
PROGRAMS = {
    "sum with own tensors": (lambda: sum_with_own, (X, Y), True),
    "own covariance": (lambda: own_covariance, (X, Y), True),
    "module of priors": (Regression, (X, Y), True),
    "buffer": (Buffered, (X, Y), True),
    "trained weights": (HalfTrained, (X, Y), True),
    "product with own matrix": (lambda: product_with_own, (X, Y), False),
    "own tensor written to": (lambda: written_to_own, (X, Y), False),
    "frozen network": (lambda: frozen_net, (X, Y), False),
    "own probabilities, summed out": (lambda: mixture, Y, False),
    "data held by the module": (lambda: held_data, (), False),
    "closure": (lambda: closed_over(X), Y, False),
    "attribute": (lambda: Held(X).model, Y, False),
    "NumPy data": (lambda: closed_over(X), Y.numpy(), False),
}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    short = Effort(gaussian_steps=50, flow_steps=20, flow_draws=4, polish_steps=20, judged_by=500)
    monkeypatch.setattr(ladder, "effort_for", lambda surface: short)
    monkeypatch.setattr(Rung, "excellent", lambda rung: True)


def _cases():
    """Programs and types: those that the default comes to as well are in the slow run, but for one of each type."""
    for name, (_, _, in_float64) in PROGRAMS.items():
        yield pytest.param(name, None, id=f"{name}-default")
        for dtype in (torch.float32, torch.float64):
            again = in_float64 == (dtype is torch.float64) and name not in ("buffer", "closure")
            wide = str(dtype).removeprefix("torch.")
            yield pytest.param(name, dtype, id=f"{name}-{wide}", marks=[pytest.mark.slow] * again)


@pytest.mark.parametrize(("name", "dtype"), list(_cases()))
def test_programs_with_float32_tensors_of_their_own_are_fitted(name, dtype):
    make, data, in_float64 = PROGRAMS[name]
    fit = functools.partial(vi.fit, make(), data=data, dtype=dtype, progress=False)
    if dtype is torch.float64 and not in_float64:
        with pytest.raises(ModelError, match="another floating-point type than the data"):
            fit()
        return
    found = fit()
    drawn = next(iter(found.sample(20).values())).dtype
    assert drawn is (torch.float64 if in_float64 and dtype is not torch.float32 else torch.float32)
    said = any("in float32, the type of tensors that the model holds" in stage.reason for stage in found.stages)
    assert said is (dtype is None and not in_float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_stage_runs_in_either_type(dtype, monkeypatch):
    monkeypatch.setattr(Rung, "excellent", lambda rung: False)
    monkeypatch.setattr(Rung, "spared", lambda rung: "")
    monkeypatch.setattr(ladder, "_KHAT", -10.0)  # so that the flow is polished
    monkeypatch.setattr(ladder, "_EVEN", 2.0)
    found = vi.fit(Regression(), data=(X, Y), dtype=dtype, progress=False)
    assert [stage.name for stage in found.stages][:3] == ["paths", "gaussian", "flow"]
    assert all(stage.elbo is not None for stage in found.stages)
    assert found.sample(20)["sigma"].dtype is dtype


def test_the_types_agree_on_the_elbo():
    one, other = (vi.fit(held_data, data=(), dtype=dtype, progress=False) for dtype in (None, torch.float32))
    assert torch.equal(one.sample(5)["w"], other.sample(5)["w"])
    wide = vi.fit(Regression(), data=(X, Y), progress=False).stages[0].elbo
    narrow = vi.fit(Regression(), data=(X, Y), dtype=torch.float32, progress=False).stages[0].elbo
    assert abs(wide.value - narrow.value) < 4 * (wide.se + narrow.se)


def test_a_prior_of_float32_does_for_an_automatic_guide_and_float64_data():
    fit = vi.fit(Regression(), AutoNormal, data=(X.double(), Y.double()), steps=5, progress=False)
    assert fit.sample(5)["linear.weight"].dtype is torch.float64
    assert fit.predict(5)["y"].dtype is torch.float64


def test_an_error_that_has_nothing_to_do_with_types_is_the_models_own():
    def broken(x, y):
        raise RuntimeError("no such matrix")

    with pytest.raises(ModelError, match="no such matrix"):
        vi.fit(broken, data=(X, Y))


def test_points_of_float64_are_taken_to_a_model_of_float32():
    place = surface(product_with_own, X, Y, dtype=torch.float32)
    u = torch.zeros(3, 2, dtype=torch.float64)
    value, gradient = place.gradients(u)
    assert (value.dtype, gradient.dtype, place.values(u).dtype) == (torch.float64,) * 3
