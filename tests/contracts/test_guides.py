"""What every guide must do, Pyro's own and ours: one test for all, one line of a table for each."""

import functools
import math
import warnings

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, autoguide
from pyro.infer.autoguide import init_to_median
from torch.distributions import biject_to, constraints

import vipack as vi
from tests.contracts.guides import GUIDES, POINTS, Y, flat, flat_data, model
from vipack.errors import GuideError

SUPPORTS = {
    "pair": constraints.real_vector,
    "width": constraints.positive,
    "share": constraints.unit_interval,
}
PROPER = {"AutoStructured", "Amortized", "AutoRegressiveMessenger"}  # made for the first model, or draws from the prior
NUM_DRAWS = 800
every = pytest.mark.parametrize("name", list(GUIDES))


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@functools.cache
def fitted(name, steps, program=model, data=Y, engine="eager", **options):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # AutoIAFNormal's about its own default
        return vi.fit(program, GUIDES[name](program), data=data, steps=steps, engine=engine, **options)


@pytest.mark.parametrize("name", [name for name in GUIDES if name not in POINTS])
def test_density_is_that_of_the_draws(name):
    """The mean of h / q over draws of q is one for every normalised h that q covers, on the unconstrained space."""
    draws = fitted(name, 3).posterior.draws(NUM_DRAWS)
    parts, log_dets = [], torch.zeros(NUM_DRAWS, dtype=torch.float64)
    for site, value in draws.latents.items():
        transform = biject_to(SUPPORTS[site])
        u = transform.inv(value)
        log_det = transform.log_abs_det_jacobian(u, value)
        log_dets = log_dets + log_det.reshape(NUM_DRAWS, -1).sum(-1)
        parts.append(u.reshape(NUM_DRAWS, -1))
    u = torch.cat(parts, -1)
    loc, sd = u.median(0).values, (u.quantile(0.75, 0) - u.quantile(0.25, 0)) / 1.35
    log_h = torch.distributions.Normal(loc, 0.6 * sd).log_prob(u).sum(-1)
    weights = (log_h - (draws.log_q + log_dets)).exp()
    se = weights.std().item() / math.sqrt(NUM_DRAWS)
    assert se < 0.35
    assert abs(weights.mean().item() - 1) < 4.5 * se


@every
def test_gradient_reaches_every_parameter(name):
    before, after = fitted(name, 0), fitted(name, 3)
    assert set(before.params) == set(after.params)
    still = [key for key, value in before.params.items() if torch.equal(value, after.params[key])]
    # Pyro keeps a second reference to one of the flow's own parameters, which nothing reads.
    assert [key for key in still if not key.endswith("_prototype_tensor")] == []


@pytest.mark.parametrize("engine", ["interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
@every
def test_faster_tiers_take_its_steps(name, engine):
    faster, eager = fitted(name, 12, engine=engine), fitted(name, 12)
    assert faster.engine.tier == engine, faster.engine.reason
    np.testing.assert_allclose(faster.losses, eager.losses, rtol=1e-9)
    for key, value in eager.params.items():
        torch.testing.assert_close(faster.params[key], value, rtol=1e-7, atol=1e-9)


@every
def test_draws_and_parameters_are_in_double_precision(name):
    fit = fitted(name, 3)
    assert {value.dtype for value in fit.params.values()} == {torch.float64}
    assert {value.dtype for value in fit.sample(3).values()} == {torch.float64}


@every
def test_a_file_brings_it_back(name, tmp_path):
    fit = fitted(name, 3)
    fit.save(tmp_path / "fit.pt")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = vi.load(tmp_path / "fit.pt", model, GUIDES[name](model))
    for site, value in fit.sample(5, seed=1).items():
        torch.testing.assert_close(again.sample(5, seed=1)[site], value, rtol=0, atol=0)


def svi_of(name, program):
    """In plain Pyro, all in double precision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guide = GUIDES[name](program)
        if not isinstance(guide, pyro.nn.PyroModule):
            guide = guide(program, init_loc_fn=init_to_median) if "Messenger" in name else guide(program)
    return SVI(program, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())


@every
def test_it_trains_in_plain_pyro(name, double):
    svi = svi_of(name, model)
    assert all(math.isfinite(svi.step(Y)) for _ in range(3))
    assert len(pyro.get_param_store()) >= 1


@pytest.mark.parametrize("name", [name for name in GUIDES if name not in PROPER])
def test_flat_priors_need_no_initial_values(name):
    fit = fitted(name, 3, flat, flat_data)
    draws = fit.sample(20)
    assert (draws["width"] > 0).all()
    assert (draws["cuts"].diff(dim=-1) > 0).all()


@pytest.mark.parametrize("name", ["Flow", "Flow of splines", "Mixture", "Structured", "Whitened", "Whitened flow"])
def test_flat_priors_need_no_initial_values_in_plain_pyro_for_ours(name, double):
    assert math.isfinite(svi_of(name, flat).step(*flat_data))


@pytest.mark.parametrize(("program", "data", "site"), [(model, Y, "width"), (flat, flat_data, "slope")])
def test_a_guide_that_needs_means_says_which_prior_has_none(program, data, site):
    with pytest.raises(GuideError, match=rf"site '{site}'.*hierarchical_sites="):
        vi.fit(program, autoguide.AutoHierarchicalNormalMessenger, data=data, steps=1)


def test_a_guide_that_draws_from_the_prior_says_which_one_is_flat():
    with pytest.raises(GuideError, match=r"site 'slope'.*flat prior"):
        vi.fit(flat, autoguide.AutoRegressiveMessenger, data=flat_data, steps=1)


@pytest.mark.parametrize("name", ["AutoNormal", "Amortized"])
def test_local_latents_take_minibatches(name):
    fit = fitted(name, 3, batch_size=2)
    assert fit.sample(4)["share"].shape == (4, 4)


@pytest.mark.parametrize("name", [name for name in GUIDES if name not in PROPER])
def test_global_latents_take_minibatches(name):
    fit = fitted(name, 2, flat, flat_data, batch_size=4)
    assert math.isfinite(fit.losses[-1])
