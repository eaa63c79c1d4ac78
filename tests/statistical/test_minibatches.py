"""Minibatches give the posterior of all the data, however the plate is written and wherever the batches come from."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoMultivariateNormal, AutoNormal
from pyro.poutine import block
from torch.utils.data import DataLoader, TensorDataset

import vipack as vi

N, B = 400, 40
X = 3.0 + torch.randn(N, generator=torch.Generator().manual_seed(0))
EXACT_SD = (N + 1 / 100) ** -0.5
EXACT_MEAN = float(X.double().sum()) * EXACT_SD**2


def sized_by_the_batch(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def subsampled_to_the_batch(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", N, subsample_size=len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def sized_by_all_rows(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", N):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def subsampled_in_the_model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", N, subsample_size=B) as rows:
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x[rows])


def normal_by_hand(x):
    scale = pyro.param("scale", torch.tensor(0.3), constraint=dist.constraints.positive)
    pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale))


def fit_mu(model, guide=AutoNormal, data=X, **options):
    loss = Trace_ELBO(num_particles=50, vectorize_particles=True, max_plate_nesting=1)
    return vi.fit(model, guide, data=data, loss=loss, steps=1_000, **options)


def mean_and_sd(fit, name="mu"):
    draws = fit.sample(40_000)[name].double()
    return draws.mean(0).numpy(), draws.std(0).numpy()


WRITTEN = {
    "plate(len(x))": (sized_by_the_batch, {"batch_size": B}),
    "plate(N, subsample_size=len(x))": (subsampled_to_the_batch, {"batch_size": B}),
    "plate(N)": (sized_by_all_rows, {"batch_size": B}),
    "plate(N, subsample_size=B) in the model": (subsampled_in_the_model, {}),
    "a last batch that is smaller": (sized_by_the_batch, {"batch_size": 150}),
    "a guide by hand": (sized_by_the_batch, {"batch_size": B, "guide": normal_by_hand}),
    "a DataLoader": (sized_by_the_batch, {"data": DataLoader(TensorDataset(X), batch_size=B, shuffle=True)}),
    "a Dataset": (sized_by_the_batch, {"batch_size": B, "data": TensorDataset(X)}),
    "a dict": (sized_by_the_batch, {"batch_size": B, "data": {"x": X}}),
}
SAME = [
    "plate(N, subsample_size=len(x))",
    "plate(N)",
    "a Dataset",
    "a dict",
]  # step for step, as plate(len(x)) of arrays


@pytest.fixture(scope="module")
def full_batch():
    return mean_and_sd(fit_mu(sized_by_the_batch))


@pytest.mark.parametrize("written", [name for name in WRITTEN if name not in SAME])
def test_a_global_latent_has_the_full_batch_posterior(written, full_batch):
    model, options = WRITTEN[written]
    mean, sd = mean_and_sd(fit_mu(model, **options))
    assert sd == pytest.approx(full_batch[1], rel=0.05)
    assert sd == pytest.approx(EXACT_SD, rel=0.05)
    # Epochs visit every row, so their noise cancels; rows drawn anew in each step leave the mean more of it.
    assert abs(mean - EXACT_MEAN) < (0.5 if "in the model" in written else 0.1) * EXACT_SD


@pytest.mark.parametrize("written", SAME)
def test_ways_of_writing_the_plate_and_of_passing_the_data_give_the_same_steps(written):
    one = vi.fit(sized_by_the_batch, AutoNormal, data=X, batch_size=B, steps=25)
    model, options = WRITTEN[written]
    other = vi.fit(model, AutoNormal, steps=25, **{"data": X, **options})
    np.testing.assert_array_equal(one.losses, other.losses)
    assert all(torch.equal(value, other.params[name]) for name, value in one.params.items())


def test_the_elbo_is_that_of_all_rows_whatever_the_batches():
    """It is estimated on all data, so at equal parameters it is equal."""
    whole = vi.fit(sized_by_the_batch, normal_by_hand, data=X, steps=0)
    for model, options in WRITTEN.values():
        if options.get("data") is None:
            fit = vi.fit(model, normal_by_hand, data=X, steps=0, **{k: v for k, v in options.items() if k != "guide"})
            torch.testing.assert_close(fit.log_weights(50), whole.log_weights(50), rtol=1e-6, atol=1e-3)


def test_the_loss_of_a_batch_estimates_the_loss_of_all_rows():
    """A point guide has no noise of its own, so the mean over an epoch of equal batches is the full loss."""
    point = AutoDelta(sized_by_the_batch)
    frozen = {"optim": pyro.optim.SGD({"lr": 0.0})}
    whole = vi.fit(sized_by_the_batch, point, data=X, steps=1, **frozen).losses
    epoch = vi.fit(sized_by_the_batch, point, data=X, batch_size=B, epochs=1, **frozen).losses
    assert len(epoch) == N // B
    assert epoch.mean() == pytest.approx(whole[0], rel=1e-6)
    assert epoch.std() > 1.0


# --- latents of the rows themselves

ROWS = 60
Y = torch.randn(ROWS, generator=torch.Generator().manual_seed(1)) * 1.5 + 2.0


def with_local_latents(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)


def mean_field_answer():
    """The posterior is Gaussian: its best mean-field guide has its means and 1/sqrt of its precision's diagonal."""
    precision = np.zeros((ROWS + 1, ROWS + 1))
    precision[0, 0] = 1 / 25 + ROWS
    precision[0, 1:] = precision[1:, 0] = -1.0
    precision[np.arange(1, ROWS + 1), np.arange(1, ROWS + 1)] = 1.0 + 4.0
    mean = np.linalg.solve(precision, np.concatenate([[0.0], 4.0 * Y.double().numpy()]))
    return mean, 1 / np.sqrt(np.diag(precision))


def local_by_hand(y):
    loc, scale = pyro.param("mu_loc", torch.tensor(0.0)), pyro.param("mu_scale", torch.tensor(0.3))
    pyro.sample("mu", dist.Normal(loc, scale.abs()))
    with pyro.plate("rows", ROWS):  # takes the rows of the batch from parameters that say their event_dim
        locs = pyro.param("locs", lambda: torch.zeros(ROWS), event_dim=0)
        scales = pyro.param("scales", lambda: torch.ones(ROWS), constraint=dist.constraints.positive, event_dim=0)
        pyro.sample("z", dist.Normal(locs, scales))


@pytest.mark.parametrize("guide", [AutoNormal, local_by_hand], ids=lambda guide: guide.__name__)
def test_each_row_keeps_the_latent_of_its_own(guide):
    loss = Trace_ELBO(num_particles=10, vectorize_particles=True, max_plate_nesting=1)
    fit = vi.fit(with_local_latents, guide, data=Y, batch_size=20, loss=loss, steps=1_500)
    exact_mean, exact_sd = mean_field_answer()
    mean, sd = mean_and_sd(fit, "z")
    assert mean.shape == (ROWS,)
    assert np.abs((mean - exact_mean[1:]) / exact_sd[1:]).max() < 0.15
    np.testing.assert_allclose(sd, exact_sd[1:], rtol=0.08)
    mean, sd = mean_and_sd(fit)
    assert abs(mean - exact_mean[0]) < 0.2 * exact_sd[0]
    assert sd == pytest.approx(exact_sd[0], rel=0.05)


def test_rows_of_a_dataset_are_those_of_the_array():
    one = vi.fit(with_local_latents, AutoNormal, data=Y, batch_size=20, steps=25)
    other = vi.fit(with_local_latents, AutoNormal, data=TensorDataset(Y), batch_size=20, steps=25)
    assert all(torch.equal(value, other.params[name]) for name, value in one.params.items())


def test_a_step_changes_the_rows_of_its_batch_alone():
    fit = vi.fit(with_local_latents, AutoNormal, data=torch.arange(6.0) * 10, batch_size=2, steps=0)
    name = "AutoNormal.locs.z"
    for _ in range(3):
        before = fit.params[name]
        fit.resume(1)
        changed = (fit.params[name] != before).nonzero().flatten()
        assert len(changed) >= 2
    # After one epoch every row has moved towards its own observation, and the larger ones are not mixed up with the small.
    assert (fit.params[name][2:] > 0).all()


# --- what no plate covers


def without_a_plate(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    pyro.sample("x", dist.Normal(mu, 1.0).expand([len(x)]).to_event(1), obs=x)


def beside_its_plate(x, y):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)
    pyro.sample("y", dist.Normal(mu, 1.0).expand([len(y)]).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("model", "data", "site"),
    [(without_a_plate, X, "'x'"), (beside_its_plate, (X, X + 1), "'y'")],
    ids=["none", "one of two"],
)
def test_a_batch_that_no_plate_covers_is_an_error_naming_the_site(model, data, site):
    with pytest.raises(vi.errors.PlateError, match=site):
        vi.fit(model, AutoNormal, data=data, batch_size=B, steps=1)
    vi.fit(model, AutoNormal, data=data, steps=1)  # all rows at once need no plate


def test_a_joint_guide_of_local_latents_is_refused_by_name():
    with pytest.raises(vi.errors.PlateError, match=r"'z'.*AutoMultivariateNormal"):
        vi.fit(with_local_latents, AutoMultivariateNormal, data=Y, batch_size=20, steps=1)


def test_a_joint_guide_of_global_latents_beside_a_local_one_works():
    def guide_of(model):
        parts = AutoGuideList(model)
        parts.append(AutoMultivariateNormal(block(model, expose=["mu"])))
        parts.append(AutoNormal(block(model, hide=["mu"])))
        return parts

    fit = vi.fit(with_local_latents, guide_of(with_local_latents), data=Y, batch_size=20, steps=50)
    assert fit.sample(5)["z"].shape == (5, ROWS)
    assert math.isfinite(fit.elbo(20).value)
