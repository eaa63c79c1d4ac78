"""Linear response of a fit: which fits have one, and what may be asked."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import RenyiELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoIAFNormal, AutoNormal

import vipack as vi
from tests.posterior.linear_response.known import X, gaussian, gaussian_fit
from vipack.errors import GuideError, ModelError, NonFiniteError, UsageError


def test_a_guide_with_a_network_is_refused():
    def model(x):
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    network = torch.nn.Linear(1, 1)

    def guide(x):
        pyro.module("network", network)
        with pyro.plate("row", len(x)):
            pyro.sample("z", dist.Normal(network(x[:, None])[:, 0], 0.7))

    fit = vi.fit(model, guide, data=torch.zeros(5), steps=1, progress=False)
    with pytest.raises(GuideError, match=r"'network.*' is a weight of a network in the guide"):
        fit.linear_response()


def test_a_discrete_draw_of_the_guide_is_named():
    def model(x):
        side = pyro.sample("side", dist.Bernoulli(0.5))
        z = pyro.sample("z", dist.Normal(side, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("side", dist.Bernoulli(pyro.param("p", torch.tensor(0.5), constraint=constraints.unit_interval)))
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    fit = vi.fit(model, guide, data=torch.tensor(0.3), steps=1, progress=False)
    with pytest.raises(GuideError, match="guide site 'side' draws from Bernoulli"):
        fit.linear_response()


def test_another_bound_than_the_elbo_is_refused():
    fit = vi.fit(gaussian, AutoNormal, data=X, steps=2, loss=RenyiELBO(num_particles=4), progress=False)
    with pytest.raises(UsageError, match=r"RenyiELBO.*Trace_ELBO"):
        fit.linear_response()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 7}, "even number, found 7"),
        ({"num_particles": 0}, "num_particles"),
        ({"tolerance": 0}, "tolerance"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"seed": -1}, "seed"),
        ({"function": "z"}, "function: expected a function"),
    ],
)
def test_options_out_of_their_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        gaussian_fit().linear_response(**options)


@pytest.mark.parametrize("guide", [AutoIAFNormal, vi.guides.Flow])
def test_a_flow_is_refused(guide):
    fit = vi.fit(gaussian, guide, data=X.float(), steps=1, progress=False)
    with pytest.raises(GuideError, match=f"the guide is a {guide.__name__} with weights of a network"):
        fit.linear_response()


def test_a_mixture_is_refused():
    mixture = functools.partial(vi.guides.Mixture, components=[AutoDiagonalNormal, AutoDiagonalNormal])
    fit = vi.fit(gaussian, mixture, data=X.float(), steps=1, progress=False)
    with pytest.raises(GuideError, match="the guide is a Mixture"):
        fit.linear_response()


@pytest.mark.parametrize(
    ("objective", "refused"),
    [
        (vi.objectives.BetaELBO(beta=0.5), True),
        (vi.objectives.BetaELBO(beta=1.0), False),
        (vi.objectives.ImportanceWeighted(num_particles=4), True),
        (vi.objectives.StickingTheLanding(num_particles=2), False),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore::vipack.errors.TrustWarning")
def test_only_the_optimum_of_the_elbo_will_do(objective, refused):
    fit = gaussian_fit(loss=objective)
    if refused:
        with pytest.raises(UsageError, match=type(objective).__name__):
            fit.linear_response()
    else:
        assert fit.linear_response().solved


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda z: (z["z"] > 0).double(), UsageError, "does not depend on the latents by a gradient"),
        (lambda z: z["z"].sum().item(), UsageError, "is a float; expected a tensor of floats"),
        (lambda z: {"label": z["z"].argmax()}, UsageError, r"'label' is a tensor of torch.int64"),
        (lambda z: None, UsageError, "is a NoneType"),
        (lambda z: (z["z"] - 100.0).log(), NonFiniteError, "NaN or infinite at some draws"),
        (lambda z: z["slope"], ModelError, "'slope'"),
    ],
)
def test_a_function_that_has_no_response_is_told(function, error, message):
    with pytest.raises(error, match=message):
        gaussian_fit().linear_response(function)


def test_too_many_elements_ask_for_a_function():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    fit = vi.fit(model, AutoNormal, data=torch.zeros(600), steps=1, progress=False)
    with pytest.raises(UsageError, match=r"601 elements, 600 of them of 'z'.*lambda z: z\['mu'\]"):
        fit.linear_response()


def test_a_fit_that_was_saved_has_the_same_response(tmp_path):
    fit = vi.fit(gaussian, AutoNormal, data=X, steps=300, progress=False)
    fit.save(tmp_path / "fit.pt")
    loaded = vi.load(tmp_path / "fit.pt", gaussian, AutoNormal)
    one, two = (each.linear_response(lambda z: z["z"][0]) for each in (fit, loaded))
    assert torch.equal(one.covariance, two.covariance)


def test_what_stands_around_the_call_does_not_matter():
    fit = gaussian_fit()
    with torch.no_grad(), torch.inference_mode(), pyro.poutine.trace():
        inside = fit.linear_response()
    assert torch.equal(inside.covariance, fit.linear_response().covariance)
