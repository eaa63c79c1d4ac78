"""A fit owns its parameters: nothing reaches Pyro's store, the user's modules or another fit."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import module as register
from pyro.infer import Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoMultivariateNormal, AutoNormal, AutoNormalMessenger
from pyro.nn import PyroModule, PyroParam, PyroSample
from pyro.optim import Adam
from torch import nn
from torch.distributions import constraints

import vipack as vi

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
OPTIONS = {"data": X, "steps": 4, "optim": Adam({"lr": 0.05})}


@pytest.fixture(autouse=True)
def store():
    """Pyro's global store holds something of the user's, and must hold the same afterwards."""
    pyro.clear_param_store()
    mine = pyro.param("mine", torch.tensor(1.5), constraint=constraints.positive)
    before = pyro.get_param_store().get_state()
    values = {name: value.clone() for name, value in before["params"].items()}
    yield
    after = pyro.get_param_store().get_state()
    assert set(after["params"]) == set(values)
    assert all(torch.equal(after["params"][name], value) for name, value in values.items())
    assert mine.item() == pytest.approx(1.5)
    pyro.clear_param_store()


def latent_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).expand([len(x), 3]).to_event(1), obs=x)


def amortised(network, name="encoder", register=pyro.module):
    """A guide whose q(z | x) is `network`'s output."""

    def guide(x):
        register(name, network)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(network(x), 0.5).to_event(1))

    return guide


def coefficients(model=None):
    def guide(x):
        loc = pyro.param("loc", torch.zeros(2))
        scale = pyro.param("scale", torch.ones(2), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return guide


class Encoder(PyroModule):
    def __init__(self):
        super().__init__()
        self.layer = PyroModule[nn.Linear](3, 2)
        self.scale = PyroParam(torch.ones(2), constraint=constraints.positive)

    def forward(self, x):
        scale = 0.5 * (self.scale + self.scale)  # read twice
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.layer(x), scale).to_event(1))


class Lazy(PyroModule):
    """Declares its parameters when it first runs, in both of Pyro's ways."""

    @PyroParam(constraint=constraints.positive)
    def scale(self):
        return torch.ones(2)

    def forward(self, x):
        if "loc" not in self._pyro_params:
            self.loc = PyroParam(torch.zeros(2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, self.scale).to_event(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(1, 2, batch_first=True)

    def forward(self, x):
        return self.cell(x[..., None])[0][:, -1]


class Normalised(nn.Module):
    def __init__(self, affine=True):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2, affine=affine)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.norm(self.layer(x)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.second(torch.tanh(self.first(x))))


def with_weights_read(network):
    """A guide that reads a weight without calling the module."""

    def guide(x):
        pyro.module("encoder", network)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ network.weight.T, 0.5).to_event(1))

    return guide


def in_parts(network):
    def guide(x):
        pyro.module("layer", network.layer)
        pyro.module("norm", network.norm)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(network.norm(network.layer(x)), 0.5).to_event(1))

    return guide


def seeded(make):
    torch.manual_seed(7)
    return make()


# name -> (the module that the user holds, the guide that uses it)
GUIDES = {
    "pyro.module": lambda: (m := seeded(lambda: nn.Linear(3, 2)), amortised(m)),
    "from pyro import module": lambda: (m := seeded(lambda: nn.Linear(3, 2)), amortised(m, register=register)),
    "a weight that is only read": lambda: (m := seeded(lambda: nn.Linear(3, 2)), with_weights_read(m)),
    "PyroModule": lambda: (m := seeded(Encoder), m),
    "lazy PyroModule": lambda: (m := Lazy(), m),
    "LSTM": lambda: (m := seeded(lambda: Recurrent(nn.LSTM)), amortised(m)),
    "GRU": lambda: (m := seeded(lambda: Recurrent(nn.GRU)), amortised(m)),
    "tied weights": lambda: (m := seeded(Tied), amortised(m)),
    "BatchNorm and dropout": lambda: (m := seeded(Normalised), amortised(m)),
    "BatchNorm without weights": lambda: (m := seeded(lambda: Normalised(affine=False)), amortised(m)),
    "BatchNorm in parts": lambda: (m := seeded(Normalised), in_parts(m)),
    "module in evaluation mode": lambda: (m := seeded(Normalised).eval(), amortised(m)),
    "pyro.param": lambda: (nn.Module(), coefficients()),
}


def by_name(value):
    return value if isinstance(value, str) else ""


# A module in evaluation mode is trained in it, with a warning; see tests/program/checks/test_modes.py.
pytestmark = pytest.mark.filterwarnings("ignore:.*are in evaluation mode:vipack.errors.ProgramWarning")


@pytest.mark.parametrize("name", GUIDES)
def test_the_users_module_is_left_as_it_was(name):
    network, guide = GUIDES[name]()
    before, modes = copy.deepcopy(network.state_dict()), [part.training for part in network.modules()]
    identities = [id(p) for p in network.parameters()]
    fit = vi.fit(latent_model, guide, **OPTIONS)
    fit.sample(3), fit.predict(3), fit.elbo(3)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert [id(p) for p in network.parameters()] == identities
    assert [part.training for part in network.modules()] == modes
    assert all(p.grad is None for p in network.parameters())
    assert not all(torch.equal(v, w) for v, w in zip(fit.params.values(), vi_start(guide), strict=True))


@pytest.mark.parametrize("name", GUIDES)
def test_a_network_of_another_type_than_the_data_is_trained_in_the_datas_type(name):
    """So is one elsewhere than the data, as on the host where they are on a GPU."""
    network, guide = GUIDES[name]()
    before = copy.deepcopy(network.state_dict())
    fit = vi.fit(latent_model, guide, **{**OPTIONS, "data": X.double()})
    assert {value.dtype for value in fit.params.values()} == {torch.float64}
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert {value.dtype for value in network.state_dict().values()} <= {torch.float32, torch.int64}
    if len(before):
        doubled, guide = GUIDES[name]()
        expected = vi.fit(latent_model, (doubled.double(), guide)[1], **{**OPTIONS, "data": X.double()})
        assert fit.losses.tolist() == expected.losses.tolist()


def vi_start(guide):
    return vi.fit(latent_model, guide, **{**OPTIONS, "steps": 0}).params.values()


@pytest.mark.parametrize("name", GUIDES)
def test_two_fits_that_share_a_guide_are_strangers(name):
    alone = vi.fit(latent_model, GUIDES[name]()[1], **OPTIONS)
    _, guide = GUIDES[name]()
    first = vi.fit(latent_model, guide, **{**OPTIONS, "seed": 5, "steps": 9})
    first_params = first.params
    second = vi.fit(latent_model, guide, **OPTIONS)
    assert_equal_fits(second, alone)
    first.resume(2)  # and back to the first one
    second.resume(2)
    alone.resume(2)
    assert_equal_fits(second, alone)
    assert any(not torch.equal(value, first_params[key]) for key, value in first.params.items())


def assert_equal_fits(fit, other):
    assert fit.losses.tolist() == other.losses.tolist()
    assert list(fit.params) == list(other.params)
    assert all(torch.equal(value, other.params[key]) for key, value in fit.params.items())
    a, b = fit.sample(5), other.sample(5)
    assert all(torch.equal(a[site], b[site]) for site in a)


@pytest.mark.parametrize("name", GUIDES)
def test_training_equals_plain_pyro_in_the_users_own_module(name):
    """Plain SVI from the same start, with the same draws, moves the module's weights to where the fit's are."""
    network, guide = GUIDES[name]()
    fit = vi.fit(latent_model, guide, **OPTIONS)
    with pyro.get_param_store().scope():
        svi = pyro.infer.SVI(latent_model, guide, Adam({"lr": 0.05}), Trace_ELBO())
        pyro.set_rng_seed(0)
        losses = [svi.step(X) for _ in range(4)]
        assert losses == fit.losses.tolist()
        for key, value in fit.params.items():
            assert torch.equal(value, pyro.param(key)), key
    for key, buffer in network.named_buffers():
        assert any(torch.equal(buffer, own) for own in fit._trainer.program.parameters.buffers().values()), key


def test_batches_are_counted_once_a_step():
    """Neither reading the program nor drawing from the posterior moves the running statistics."""
    fit = vi.fit(latent_model, GUIDES["BatchNorm and dropout"]()[1], **OPTIONS)
    fit.sample(3), fit.elbo(2)
    counts = [v for k, v in fit._trainer.program.parameters.buffers().items() if "num_batches_tracked" in k]
    assert [int(count) for count in counts] == [4]


def test_finding_the_batch_plate_leaves_a_models_module_alone_too():
    network = seeded(Normalised)

    def model(x):
        pyro.module("network", network)
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        mean = network(x).sum(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w + mean, 1.0), obs=x[:, 0])

    before = copy.deepcopy(network.state_dict())
    fit = vi.fit(model, AutoNormal, **OPTIONS, batch_size=8)
    fit.elbo(2)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    buffers = fit._trainer.program.parameters.buffers()
    assert [int(v) for k, v in buffers.items() if "num_batches_tracked" in k] == [4]


def test_draws_run_in_evaluation_mode():
    """Running statistics, no dropout: a row's posterior does not depend on the other rows."""
    fit = vi.fit(latent_model, GUIDES["BatchNorm and dropout"]()[1], **OPTIONS)
    guide = fit.guide
    pyro.set_rng_seed(3)
    together = pyro.poutine.trace(guide).get_trace(X).nodes["z"]["fn"].mean
    alone = pyro.poutine.trace(guide).get_trace(X[:1]).nodes["z"]["fn"].mean
    torch.testing.assert_close(together[:1], alone)
    draws = fit.posterior.draws(2_000).latents["z"]
    torch.testing.assert_close(draws.mean(0), together, atol=5 * 0.5 / 2_000**0.5, rtol=0)


def test_tied_weights_are_one_tensor():
    fit = vi.fit(latent_model, GUIDES["tied weights"]()[1], **OPTIONS)
    parameters = fit._trainer.program.parameters
    assert len(parameters.tensors()) == 3
    assert sum(value.numel() for value in parameters.tensors()) == 9 + 6 + 2


@pytest.mark.parametrize("name", [n for n in GUIDES if n != "pyro.param"])
def test_plain_pyro_agrees_after_write_back(name):
    network, guide = GUIDES[name]()
    fit = vi.fit(latent_model, guide, **OPTIONS)
    network.eval()  # as the fit's posterior has it
    with pyro.get_param_store().scope():
        fit.to_pyro()
        for key, value in fit.params.items():
            assert torch.equal(value, pyro.param(key)), key
        expected = guided_draw(fit.guide)
        assert torch.equal(guided_draw(guide), expected)
        pyro.clear_param_store()  # the module itself has the values as well
        assert torch.equal(guided_draw(guide), expected)


def guided_draw(guide):
    pyro.set_rng_seed(11)
    return pyro.poutine.trace(guide).get_trace(X).nodes["z"]["value"]


def global_model(x):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, s + 0.1).to_event(1), obs=x)


def guide_list():
    guides = AutoGuideList(global_model)
    guides.append(AutoNormal(pyro.poutine.block(global_model, expose=["w"])))
    guides.append(AutoDelta(pyro.poutine.block(global_model, expose=["s"])))
    return guides


AUTOMATIC = {
    "AutoNormal": lambda: AutoNormal(global_model),
    "AutoMultivariateNormal": lambda: AutoMultivariateNormal(global_model),
    "AutoGuideList": guide_list,
    "AutoNormalMessenger": lambda: AutoNormalMessenger(global_model),
}


@pytest.mark.parametrize("name", AUTOMATIC)
def test_an_automatic_guide_that_serves_twice_starts_anew(name):
    alone = vi.fit(global_model, AUTOMATIC[name](), **OPTIONS)
    guide = AUTOMATIC[name]()
    vi.fit(global_model, guide, **{**OPTIONS, "seed": 5})
    second = vi.fit(global_model, guide, **OPTIONS)
    assert_equal_fits(second, alone)
    if isinstance(guide, nn.Module):
        assert list(guide.parameters()) == []  # it was never set up


def test_an_automatic_guide_set_up_by_the_user_keeps_its_start():
    guide = AutoNormal(global_model, init_scale=0.3)
    with pyro.get_param_store().scope():
        guide(X)
        start = {name: value.detach().clone() for name, value in guide.named_parameters()}
    fit = vi.fit(global_model, guide, **{**OPTIONS, "steps": 0})
    found = {
        name.removeprefix("AutoNormal."): value for name, value in fit._trainer.program.parameters.unconstrained.items()
    }
    assert all(any(torch.equal(value, own) for own in found.values()) for value in start.values())
    vi.fit(global_model, guide, **OPTIONS)
    assert all(torch.equal(value, start[name]) for name, value in guide.named_parameters())


def test_the_fitted_guide_works_in_plain_pyro():
    fit = vi.fit(global_model, AutoNormal, **OPTIONS)
    draws = Predictive(global_model, guide=fit.guide, num_samples=6)(X)
    assert draws["w"].shape == (6, 1, 3)
    assert fit.guide.median()["w"].shape == (3,)
    assert Trace_ELBO().loss(global_model, fit.guide, X) > 0


def test_a_bayesian_network_of_pyro_samples_can_be_fitted():
    class Regression(PyroModule):
        def __init__(self):
            super().__init__()
            self.layer = PyroModule[nn.Linear](3, 1)
            self.layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
            self.layer.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))

        def forward(self, x, y):
            mean = self.layer(x)[:, 0]
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(mean, 0.1), obs=y)

    fit = vi.fit(
        Regression(), AutoNormal, data=(X, X @ torch.tensor([1.0, 2.0, 3.0])), steps=300, optim=Adam({"lr": 0.1})
    )
    weight = fit.sample(500)["layer.weight"].mean(0)[0]
    torch.testing.assert_close(weight, torch.tensor([1.0, 2.0, 3.0]), atol=0.15, rtol=0)


def test_constrained_parameters_come_back_constrained():
    fit = vi.fit(latent_model, coefficients(), **OPTIONS)
    unconstrained = fit._trainer.program.parameters.unconstrained
    torch.testing.assert_close(fit.params["scale"], unconstrained["scale"].detach().exp())
    assert torch.equal(fit.params["loc"], unconstrained["loc"].detach())
