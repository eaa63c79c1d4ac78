"""Models and guides that do not fit together, or do not fit their data: none of them trains."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.infer.reparam import LocScaleReparam
from torch.distributions import constraints

from tests.bad_input.programs import X, Y, draw_s, draw_w, guide, mixture_guide, one, plate_of_ten, regression, two
from tests.bad_input.refusal import Case, assert_fit_is_refused
from vipack.errors import (
    GuideError,
    ModelError,
    NonFiniteError,
    PlateError,
    ShapeError,
    SiteError,
    SupportError,
)

# --- sites


def extra_guide_site(x, y):
    guide(x, y)
    pyro.sample("typo", dist.Normal(0.0, 1.0))


def guide_of_the_data(x, y):
    guide(x, y)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x, 1.0))


def guide_that_observes(x, y):
    draw_s()
    pyro.sample("w", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))


def forgotten_obs(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0))


def forgotten_obs_of_another_name(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("response", dist.Normal(w * x, 1.0))


def one_of_two_obs_forgotten(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)
        pyro.sample("y", dist.Normal(w, 1.0))


def amortised(x, y):
    draw_w()
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(y, 1.0))


def optional_response(x, y=None):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def same_name_twice(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    v = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x + v, 1.0), obs=y)


def guide_with_one_name_twice(x, y):
    guide(x, y)
    draw_w()


def no_sites(x, y):
    return x + y


def same_plate_twice(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)


# --- discrete latents


def mixture(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(2) / 2))
        pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x)


def mixture_guide_with_normal_labels(x):
    mixture_guide(x)
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Normal(pyro.param("k_q", torch.zeros(len(x))), 1.0))


# --- guides whose density goes wrong


def negative_scale(x, y):
    draw_s(), draw_w(scale=pyro.param("w_scale", torch.tensor(-1.0)))


def nan_scale(x, y):
    draw_s(), draw_w(scale=pyro.param("w_scale", torch.tensor(float("nan"))))


def zero_scale(x, y):
    draw_s(), draw_w(scale=torch.tensor(0.0))


def outside_its_constraint(x, y):
    scale = pyro.param("w_scale", torch.tensor(-1.0), constraint=constraints.positive)
    draw_s(), draw_w(scale=scale)


def too_wide(x, y):
    draw_w()
    pyro.sample("s", dist.Normal(pyro.param("s_loc", torch.tensor(1.0)), 1e-3))


def interval_too_wide(x):
    pyro.sample("p", dist.LogNormal(pyro.param("p_loc", torch.tensor(-3.0)), 1e-3))


def coin(x):
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(p), obs=x)


# --- shapes


def vector(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x)


def without_event(x):
    pyro.sample("z", dist.Normal(pyro.param("z_loc", torch.zeros(3)), 1.0))


def of_another_size(x):
    pyro.sample("z", dist.Normal(pyro.param("z_loc", torch.zeros(2)), 1.0).to_event(1))


def column_against_row(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal((x[:, None] * w), 1.0), obs=y)


def column_against_row_with_no_plate(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    pyro.sample("y", dist.Normal((x[:, None] * w), 1.0).to_event(1), obs=y)


def undeclared(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def undeclared_latent(x):
    z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x)


def wrong_event(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.MultivariateNormal(w * torch.ones(3), torch.eye(3)), obs=x)


# --- densities that count for every row, and rows of others


def broadcast_likelihood(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w, 1.0).expand([len(y)]).to_event(1), obs=y)
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def mean_in_a_plate(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y.mean())
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def summed_factor(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.factor("likelihood", dist.Normal(w * x, 1.0).log_prob(y).sum())


def summed_factor_in_the_guide(x, y):
    guide(x, y)
    with pyro.plate("data", len(x)):
        pyro.factor("jacobian", torch.zeros(()), has_rsample=True)


def rows_of_its_own(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    rows = torch.randperm(len(x))[:5]
    with pyro.plate("data", len(x), subsample=rows):
        z = pyro.sample("z", dist.Normal(w, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])


def part_of_a_plate(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 100, subsample_size=len(x)):
        z = pyro.sample("z", dist.Normal(w, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def local(x):
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        theta = pyro.sample("theta", dist.Normal(0.0, tau))
        pyro.sample("x", dist.Normal(theta, 1.0), obs=x)


def fixed_after_reparam():
    computed = pyro.poutine.reparam(local, config={"theta": LocScaleReparam(0.0)})
    return pyro.poutine.condition(computed, data={"theta": torch.zeros(20)})


@config_enumerate
def scales_that_differ(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.ones(2) / 2))
        with pyro.poutine.scale(scale=2.0):
            pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x)


# --- supports of the data


def counts(x):
    rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Poisson(rate), obs=x)


def shares(x):
    a = pyro.sample("a", dist.Gamma(torch.ones(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Dirichlet(a + 0.1), obs=x)


def labels(x):
    p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Categorical(p), obs=x)


def lifetimes(x):
    rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Exponential(rate), obs=x)


def heavy(x):
    """No step can be finite: the latent's density is NaN everywhere but the guide's first draw."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.sqrt(w - 1e4), 1.0), obs=x)


def guide_with_a_discrete_draw(x, y):
    draw_s()
    pyro.sample("w", dist.Poisson(pyro.param("rate", torch.tensor(1.0))))


CASES = [
    # sites
    Case("guide misses a latent", SiteError, ("latent site 's' (HalfNormal)", "missing in the guide", "add a pyro.sample"),
         lambda: two(model=regression, guide=draw_w)),
    Case("guide has a site too many", SiteError, ("guide site 'typo'", "not in the model", "'w', 's'", "rename"),
         lambda: two(model=regression, guide=extra_guide_site)),
    Case("guide draws the data", SiteError, ("guide site 'y'", "observed in the model", "remove it"),
         lambda: two(model=regression, guide=guide_of_the_data)),
    Case("guide is the model", SiteError, ("guide site 'y'", "observed", "remove it"),
         lambda: two(model=regression, guide=regression)),
    Case("guide observes a latent", SiteError, ("guide site 'w'", "obs=", "remove"),
         lambda: two(model=regression, guide=guide_that_observes)),
    Case("forgotten obs with AutoGuide", SiteError, ("'y'", "did you forget obs=y"),
         lambda: two(model=forgotten_obs, guide=AutoNormal)),
    Case("forgotten obs with no guide given", SiteError, ("'y'", "did you forget obs=y"),
         lambda: two(model=forgotten_obs)),
    Case("forgotten obs with a guide of the global latent", SiteError, ("'y'", "did you forget obs=y"),
         lambda: two(model=forgotten_obs, guide=draw_w)),
    Case("forgotten obs with an amortised guide", SiteError, ("'y'", "did you forget obs=y"),
         lambda: two(model=forgotten_obs, guide=amortised)),
    Case("forgotten obs, data by name", SiteError, ("'y'", "did you forget obs=y"),
         lambda: {"model": forgotten_obs, "guide": AutoNormal, "data": {"x": X, "y": Y}}),
    Case("forgotten obs of another name", SiteError, ("no site of the model is observed", "'response'", "obs="),
         lambda: two(model=forgotten_obs_of_another_name, guide=AutoNormal)),
    Case("forgotten obs in minibatches", SiteError, ("'y'", "did you forget obs=y"),
         lambda: two(model=forgotten_obs, guide=AutoNormal, batch_size=5)),
    Case("one of two obs forgotten", SiteError, ("'y'", "did you forget obs=y"),
         lambda: two(model=one_of_two_obs_forgotten, guide=AutoNormal)),
    Case("response left out of data", SiteError, ("no site of the model is observed", "'y'", "pass y in data"),
         lambda: one(model=optional_response, guide=AutoNormal)),
    Case("two model sites of one name", SiteError, ("'w'", "rename"),
         lambda: two(model=same_name_twice, guide=AutoNormal)),
    Case("two guide sites of one name", SiteError, ("'w'", "rename"),
         lambda: two(model=regression, guide=guide_with_one_name_twice)),
    Case("a plate inside itself", SiteError, ("'data'", "rename"),
         lambda: two(model=same_plate_twice, guide=AutoNormal)),
    Case("no sites at all", SiteError, ("no site of the model is observed", "pass obs="),
         lambda: two(model=no_sites, guide=draw_w)),
    # discrete latents
    Case("discrete latent with an automatic guide", GuideError, ("'k'", "discrete", "config_enumerate", "TraceEnum_ELBO"),
         lambda: one(model=mixture, guide=AutoNormal)),
    Case("discrete latent missing in the guide", SiteError, ("'k'", "missing in the guide", "config_enumerate"),
         lambda: one(model=mixture, guide=mixture_guide)),
    Case("discrete latent with a continuous guide", SupportError, ("'k'", "Normal", "support", "discrete"),
         lambda: one(model=mixture, guide=mixture_guide_with_normal_labels)),
    Case("continuous latent with a discrete guide", SupportError, ("'w'", "Poisson", "use a distribution"),
         lambda: two(model=regression, guide=guide_with_a_discrete_draw)),
    Case("enumeration with a loss that does not", SiteError, ("'k'", "enumeration", "TraceEnum_ELBO()"),
         lambda: one(model=config_enumerate(mixture), guide=mixture_guide, loss=Trace_ELBO())),
    Case("enumeration with an automatic guide and a loss that does not", GuideError, ("'k'", "TraceEnum_ELBO"),
         lambda: one(model=config_enumerate(mixture), guide=AutoNormal)),
    Case("unmarked discrete latent with TraceEnum_ELBO", GuideError, ("'k'", "config_enumerate"),
         lambda: one(model=mixture, guide=AutoNormal, loss=TraceEnum_ELBO())),
    # densities
    Case("negative guide scale", NonFiniteError, ("guide site 'w'", "scale", "-1.0", "constrain it"),
         lambda: two(model=regression, guide=negative_scale)),
    Case("NaN guide parameter", NonFiniteError, ("parameter 'w_scale'", "NaN", "finite initial value"),
         lambda: two(model=regression, guide=nan_scale)),
    Case("zero guide scale", NonFiniteError, ("guide site 'w'", "scale", "constrain it"),
         lambda: two(model=regression, guide=zero_scale)),
    Case("parameter outside its constraint", NonFiniteError, ("parameter 'w_scale'", "finite initial value"),
         lambda: two(model=regression, guide=outside_its_constraint)),
    Case("guide wider than a half line", SupportError, ("'s'", "Normal reaches outside", "biject_to"),
         lambda: two(model=regression, guide=too_wide)),
    Case("guide wider than an interval", SupportError, ("'p'", "LogNormal reaches outside", "biject_to"),
         lambda: {"model": coin, "guide": interval_too_wide, "data": torch.ones(5)}),
    Case("model is NaN at every draw", NonFiniteError, ("model site 'x'", "loc", "nan"),
         lambda: one(model=heavy, guide=AutoNormal)),
    # shapes
    Case("event_dim differs", ShapeError, ("'z'", "event_dim is 1 in the model and 0 in the guide", ".to_event(1)"),
         lambda: one(model=vector, guide=without_event)),
    Case("sizes differ", ShapeError, ("'z'", "(3,)", "(2,)", "guide"),
         lambda: one(model=vector, guide=of_another_size)),
    Case("a column against a row", ShapeError, ("'y'", "(20, 20)", "(N,) against (N, 1)"),
         lambda: two(model=column_against_row, guide=AutoNormal)),
    Case("a column against a row, no plate", ShapeError, ("'y'", "(N,) against (N, 1)"),
         lambda: two(model=column_against_row_with_no_plate, guide=AutoNormal)),
    Case("undeclared dimension of the data", ShapeError, ("'y'", "(20,)", ".to_event(1)", "plate"),
         lambda: two(model=undeclared, guide=AutoNormal)),
    Case("undeclared dimension of a latent", ShapeError, ("'z'", "(3,)", ".to_event(1)", "plate"),
         lambda: one(model=undeclared_latent, guide=without_event)),
    Case("plate of another size than the data", ShapeError, ("'y'", "data", "10", "20", "len("),
         lambda: two(model=plate_of_ten, guide=AutoNormal)),
    Case("event of another size than the data", ShapeError, ("'x'", "(3,)", "(20,)"),
         lambda: one(model=wrong_event, guide=AutoNormal)),
    # densities that count for every row, and rows of others
    Case("likelihood broadcast over a plate", PlateError, ("'y'", "(20,)", "plate 'data'", "counts 20 times", ".to_event()"),
         lambda: two(model=broadcast_likelihood, guide=AutoNormal)),
    Case("likelihood broadcast over a plate, no guide given", PlateError, ("'y'", "plate 'data'", "counts 20 times"),
         lambda: two(model=broadcast_likelihood)),
    Case("one number observed in a plate", PlateError, ("'y'", "shape ()", "counts 20 times", "poutine.scale"),
         lambda: two(model=mean_in_a_plate, guide=AutoNormal)),
    Case("factor summed in a plate", PlateError, ("model site 'likelihood'", "shape ()", "counts 20 times", "no .sum()"),
         lambda: two(model=summed_factor, guide=AutoNormal)),
    Case("factor summed in a plate, minibatches", PlateError, ("model site 'likelihood'", "counts 5 times"),
         lambda: two(model=summed_factor, guide=AutoNormal, batch_size=5)),
    Case("factor summed in a plate of the guide", PlateError, ("guide site 'jacobian'", "counts 20 times"),
         lambda: two(model=regression, guide=summed_factor_in_the_guide)),
    Case("rows drawn in the model", PlateError, ("'z'", "'data'", "subsample=", "data of other rows", "create_plates="),
         lambda: one(model=rows_of_its_own, guide=AutoNormal)),
    Case("random rows for data that stay", PlateError, ("'z'", "20 of 100 rows", "drawn anew", "batch_size="),
         lambda: one(model=part_of_a_plate, guide=AutoNormal)),
    Case("condition on what a reparametrisation computes", SiteError, ("'theta'", "is computed", "poutine.reparam(poutine.condition("),
         lambda: one(model=fixed_after_reparam(), guide=AutoNormal)),
    Case("scales that differ where a latent is summed out", ModelError, ("'k' is scaled by 1", "'x' by 2", "poutine.scale around both"),
         lambda: one(model=scales_that_differ, guide=AutoNormal, loss=TraceEnum_ELBO(max_plate_nesting=1))),
    # supports of the data
    Case("negative counts", SupportError, ("'x'", "[-1] (1 of 3, the first at index [1])", "Poisson", "correct the data"),
         lambda: {"model": counts, "guide": AutoNormal, "data": torch.tensor([1.0, -1.0, 3.0])}),
    Case("fractional counts", SupportError, ("'x'", "[0.5]", "Poisson", "whole numbers"),
         lambda: {"model": counts, "guide": AutoNormal, "data": torch.tensor([1.0, 0.5, 3.0])}),
    Case("label 2 of a coin", SupportError, ("'x'", "[2]", "Bernoulli", "correct the data"),
         lambda: {"model": coin, "guide": AutoNormal, "data": torch.tensor([1.0, 2.0, 0.0])}),
    Case("label 3 of three", SupportError, ("'x'", "[3]", "Categorical", "subtract 1", "correct the data"),
         lambda: {"model": labels, "guide": AutoNormal, "data": torch.tensor([1, 2, 3])}),
    Case("shares that do not add to one", SupportError, ("'x'", "Dirichlet", "correct the data"),
         lambda: {"model": shares, "guide": AutoNormal, "data": torch.full((4, 3), 0.5)}),
    Case("negative lifetimes", SupportError, ("'x'", "-0.5", "Exponential", "correct the data"),
         lambda: {"model": lifetimes, "guide": AutoNormal, "data": torch.tensor([1.0, -0.5])}),
    Case("bad label in a later batch", SupportError, ("'x'", "[2]", "Bernoulli", "correct the data"),
         lambda: {"model": coin, "guide": AutoNormal, "data": torch.arange(40) // 39 * 2.0, "batch_size": 4}),]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_trained_and_the_cure_is_said(case, monkeypatch, capfd):
    assert_fit_is_refused(case, monkeypatch, capfd)
