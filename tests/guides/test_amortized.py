"""Amortized guides: any batch of rows, globals beside locals, and the exact posterior where the network holds it."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import vipack as vi
from vipack.errors import GuideError, ShapeError
from vipack.guides import Amortized
from vipack.objectives import StickingTheLanding

ROWS = torch.randn(40, 2, generator=torch.Generator().manual_seed(2)) + 1.0


def model(x):
    """w is global; z_n ~ N(0, I) and x_n ~ N(z_n + w, I): given w, z_n ~ N((x_n - w) / 2, 1/2)."""
    w = pyro.sample("w", dist.Normal(0.0, 0.1).expand([2]).to_event(1))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z + w, 1.0).to_event(1), obs=x)


class Linear(nn.Module):
    def __init__(self, size=2):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(2, 2 * size)

    def forward(self, x):
        loc, raw = self.net(x).chunk(2, -1)
        return loc, raw.exp()


def test_it_learns_the_posterior_of_every_row_from_minibatches():
    guide = Amortized(model, Linear(), ["z"], global_guide=AutoNormal)
    fit = vi.fit(
        model,
        guide,
        data=ROWS,
        batch_size=10,
        steps=400,
        loss=Trace_ELBO(num_particles=4, vectorize_particles=True),
        optim=pyro.optim.ClippedAdam({"lr": 0.02, "lrd": 0.99}),  # one linear layer from afar
    )
    weight = next(value for name, value in fit.params.items() if name.endswith("net.weight"))
    torch.testing.assert_close(weight[:2], 0.5 * torch.eye(2), rtol=0, atol=0.1)
    z = fit.sample(500)["z"]
    assert z.shape == (500, 40, 2)
    torch.testing.assert_close(z.std(0).mean(), torch.tensor(0.5**0.5), rtol=0.1, atol=0)


def test_a_data_loader_need_not_say_which_rows_it_gives():
    loader = DataLoader(TensorDataset(ROWS), batch_size=8)
    fit = vi.fit(model, Amortized(model, Linear(), "z"), data=loader, steps=3)
    assert fit.steps == 3


def test_every_parameter_gets_a_gradient_and_steps_are_captured():
    fit = vi.fit(
        model, Amortized(model, Linear(), ["z"]), data=ROWS, loss=StickingTheLanding(4), steps=3, engine="traced"
    )
    assert fit.engine.tier == "traced"
    start = vi.fit(model, Amortized(model, Linear(), ["z"]), data=ROWS, steps=0)
    assert all(not torch.equal(fit.params[name], start.params[name]) for name in fit.params)
    assert len(fit.params) == 5


def test_it_works_in_plain_pyro_on_batches_of_several_sizes():
    guide = Amortized(model, Linear(), ["z"])
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    assert all(svi.step(ROWS[:size]) > 0 for size in (40, 10, 7))
    assert guide.median(ROWS[:5])["z"].shape == (5, 2)


def test_a_plate_that_subsamples_takes_its_rows_of_the_networks_output():
    seen = {}

    def subsampled(x):
        with pyro.plate("rows", len(x), subsample_size=6) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            seen["rows"], seen["z"] = rows, z
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[rows])

    class Still(nn.Module):
        def forward(self, x):
            return x, torch.full_like(x, 1e-6)

    guide = Amortized(subsampled, Still(), ["z"])
    trace = pyro.poutine.trace(guide).get_trace(ROWS)
    pyro.poutine.replay(subsampled, trace=trace)(ROWS)
    torch.testing.assert_close(seen["z"], ROWS[seen["rows"]], rtol=1e-4, atol=1e-4)


def test_supports_are_respected_and_a_dict_names_several():
    def positive(x):
        with pyro.plate("rows", len(x)):
            rate = pyro.sample("rate", dist.Gamma(2.0, 2.0))
            shares = pyro.sample("shares", dist.Dirichlet(torch.ones(3)))
            pyro.sample("x", dist.Normal(rate * shares[..., 0], 1.0), obs=x[:, 0])

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 6)

        def forward(self, x):
            found = self.net(x)
            return {
                "rate": (found[..., 0], found[..., 1].exp()),
                "shares": (found[..., 2:4], found[..., 4:6].exp()),
            }

    fit = vi.fit(positive, Amortized(positive, Both(), ["rate", "shares"]), data=ROWS, steps=3)
    draws = fit.sample(10)
    assert (draws["rate"] > 0).all()
    torch.testing.assert_close(draws["shares"].sum(-1), torch.ones(10, 40))


@pytest.mark.parametrize(
    ("network", "local", "error", "words"),
    [
        (Linear(), ["y"], GuideError, "'y' is not a latent"),
        (Linear(3), ["z"], ShapeError, "'z'"),
        (nn.Linear(2, 2), ["z"], GuideError, "pair"),
        (len, ["z"], GuideError, "Module"),
    ],
)
def test_mistakes_are_named(network, local, error, words):
    with pytest.raises(error, match=words):
        Amortized(model, network, local)(ROWS)
