"""What a minibatch changes though the scale N/B takes it to be the same: warned of where it is there, and nowhere else."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn

import vipack as vi
from vipack.errors import PlateError, ProgramWarning

N = 20
X = torch.randn(N, generator=torch.Generator().manual_seed(0))
TABLE = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))


def plain(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def standardised(x):
    """By the mean and sd of whatever rows are at hand."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=(x - x.mean()) / x.std())


def prior_by_number(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(mu, float(len(x))))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def likelihood_by_number(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0 + len(x)), obs=x)


def softmax_over_rows(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(x)):
        pyro.factor("share", (mu * x).log_softmax(0))


def warnings_of(model, guide=AutoNormal, data=X, **options):
    return vi.check(model, guide, data=data, batch_size=6, **options).warnings


@pytest.mark.parametrize(
    ("model", "site"),
    [(standardised, "x"), (likelihood_by_number, "x"), (softmax_over_rows, "share")],
)
def test_a_row_that_depends_on_the_others_of_its_batch_is_pointed_out(model, site):
    (warning,) = warnings_of(model)
    assert isinstance(warning, ProgramWarning)
    for words in (f"site {site!r}", "plate 'row'", "other rows of its minibatch", "fixed="):
        assert words in str(warning)
    assert vi.check(model, AutoNormal, data=X).warnings == ()  # of all rows there is nothing to say


def test_a_prior_of_a_row_that_depends_on_the_others_is_refused():
    (error,) = vi.check(prior_by_number, AutoNormal, data=X, batch_size=6).errors
    assert isinstance(error, PlateError)
    assert "site 'z': the prior of a row in plate 'row' changes with the other rows" in str(error)
    assert vi.check(prior_by_number, AutoNormal, data=X).ok


def test_a_fit_says_it_too():
    with pytest.warns(ProgramWarning, match=r"site 'x': the density of a row in plate 'row' changes"):
        vi.fit(standardised, AutoNormal, data=X, batch_size=6, steps=1)


def test_a_guide_of_a_shared_latent_that_reads_the_batch_is_pointed_out():
    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("mu", dist.Normal(loc + x.mean(), 0.1))

    (warning,) = warnings_of(plain, guide)
    assert "guide site 'mu': its distribution changes with the minibatch" in str(warning)
    assert "plate 'row'" in str(warning)
    assert vi.check(plain, guide, data=X).warnings == ()


class Autoencoder(nn.Module):
    """BatchNorm and dropout couple rows in training, as they are meant to."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 4))
        self.decoder = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("row", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def test_modules_that_couple_rows_in_training_are_let_pass():
    module = Autoencoder()
    assert warnings_of(module.model, module.guide, TABLE) == ()


def noisy(x):
    """Draws random numbers of its own."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x + 0.1 * torch.randn_like(x))


@pytest.mark.parametrize("model", [plain, noisy])
def test_nothing_is_said_of_what_cannot_be_told_or_is_right(model):
    assert warnings_of(model) == ()


class Augmented(torch.utils.data.Dataset):
    def __len__(self):
        return N

    def __getitem__(self, row):
        return X[row] + 0.1 * torch.randn(())


@pytest.mark.parametrize(
    "data", [Augmented(), torch.utils.data.TensorDataset(X), torch.utils.data.DataLoader(X, batch_size=6)]
)
def test_data_that_change_from_one_look_to_the_next_are_let_pass(data):
    options = {} if isinstance(data, torch.utils.data.DataLoader) else {"batch_size": 6}
    assert vi.check(plain, AutoNormal, data=data, **options).warnings == ()
