"""Models and guides that do not fit together, or do not fit their data: none of them trains."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuideList, AutoMultivariateNormal, AutoNormal
from torch.distributions import constraints

from tests.bad_input.refusal import Case, assert_fit_is_refused
from vipack.errors import (
    GuideError,
    ModelError,
    NonFiniteError,
    PlateError,
    ShapeError,
    SignatureError,
    SiteError,
    SupportError,
    UsageError,
)

N = 20
X = torch.linspace(-1, 1, N)
Y = 2 * X + 0.1


def regression(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, s + 0.1), obs=y)


def draw_w(x=None, y=None, scale=0.1):
    loc = pyro.param("w_loc", torch.tensor(0.0))
    return pyro.sample("w", dist.Normal(loc, scale))


def draw_s(x=None, y=None):
    loc = pyro.param("s_loc", torch.tensor(0.0))
    return pyro.sample("s", dist.LogNormal(loc, 0.1))


def guide(x, y):
    draw_w(), draw_s()


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


def mixture_guide(x):
    pyro.sample("loc", dist.Normal(pyro.param("loc_q", torch.zeros(2)), 1.0).to_event(1))


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


def plate_of_ten(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 10):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def wrong_event(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.MultivariateNormal(w * torch.ones(3), torch.eye(3)), obs=x)


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


# --- minibatches


def no_plate(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(w * x, 1.0).to_event(1), obs=y)


def rows_in_the_event(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0), obs=x)
    pyro.sample("y", dist.Normal(w * x, 1.0).to_event(1), obs=y)


def factor_outside_the_plate(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    pyro.factor("penalty", -(w * y).sum())


def two_plates(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("one", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    with pyro.plate("two", len(x)):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)


def local(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def local_without_plate(x):
    pyro.sample("loc", dist.Normal(pyro.param("loc_q", torch.tensor(0.0)), 1.0))
    pyro.sample("z", dist.Normal(x + pyro.param("z_q", torch.tensor(0.0)), 1.0).to_event(1))


def local_in_another_plate(x):
    pyro.sample("loc", dist.Normal(pyro.param("loc_q", torch.tensor(0.0)), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x + pyro.param("z_q", torch.tensor(0.0)), 1.0))


def row_parameters(x):
    pyro.sample("loc", dist.Normal(pyro.param("loc_q", torch.tensor(0.0)), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("z_q", torch.zeros(N)), 1.0))


# --- programs that cannot be run


def takes_three(x, y, z):
    regression(x, y)


def raises(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ torch.ones(3) * w, 1.0), obs=y)


def raises_at_once(x, y):
    raise KeyError("no such column")


def stops_the_world(x, y):
    pyro.sample("w", dist.Normal(0.0, "1.0"))


def heavy(x):
    """No step can be finite: the latent's density is NaN everywhere but the guide's first draw."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(torch.sqrt(w - 1e4), 1.0), obs=x)


def guide_with_a_discrete_draw(x, y):
    draw_s()
    pyro.sample("w", dist.Poisson(pyro.param("rate", torch.tensor(1.0))))


class NotAGuide:
    def __init__(self, model):
        self.model = model


class Uncallable:
    pass


def broken_builder(model):
    raise ValueError("no good")


def two(**more):
    return {"data": (X, Y), **more}


def one(**more):
    return {"data": X, **more}


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
    # supports of the data
    Case("negative counts", SupportError, ("'x'", "-1.0", "Poisson", "mend the data"),
         lambda: {"model": counts, "guide": AutoNormal, "data": torch.tensor([1.0, -1.0, 3.0])}),
    Case("fractional counts", SupportError, ("'x'", "0.5", "Poisson", "mend the data"),
         lambda: {"model": counts, "guide": AutoNormal, "data": torch.tensor([1.0, 0.5, 3.0])}),
    Case("label 2 of a coin", SupportError, ("'x'", "2.0", "Bernoulli", "mend the data"),
         lambda: {"model": coin, "guide": AutoNormal, "data": torch.tensor([1.0, 2.0, 0.0])}),
    Case("label 3 of three", SupportError, ("'x'", "3", "Categorical", "mend the data"),
         lambda: {"model": labels, "guide": AutoNormal, "data": torch.tensor([1, 2, 3])}),
    Case("shares that do not add to one", SupportError, ("'x'", "Dirichlet", "mend the data"),
         lambda: {"model": shares, "guide": AutoNormal, "data": torch.full((4, 3), 0.5)}),
    Case("negative lifetimes", SupportError, ("'x'", "-0.5", "Exponential", "mend the data"),
         lambda: {"model": lifetimes, "guide": AutoNormal, "data": torch.tensor([1.0, -0.5])}),
    Case("bad label in a later batch", SupportError, ("'x'", "2.0", "Bernoulli", "mend the data"),
         lambda: {"model": coin, "guide": AutoNormal, "data": torch.arange(40) // 39 * 2.0, "batch_size": 4}),
    # minibatches
    Case("minibatch without a plate", PlateError, ("observed site 'y'", "5 of 20 rows", "pyro.plate"),
         lambda: two(model=no_plate, guide=AutoNormal, batch_size=5)),
    Case("rows in the event", PlateError, ("observed site 'y'", "outside plate 'data'", ".to_event"),
         lambda: two(model=rows_in_the_event, guide=AutoNormal, batch_size=5)),
    Case("factor outside the plate", PlateError, ("'penalty'", "outside plate 'data'", "move it"),
         lambda: two(model=factor_outside_the_plate, guide=AutoNormal, batch_size=5)),
    Case("two plates of the data's size", PlateError, ("'one', 'two'", "batch_plate="),
         lambda: two(model=two_plates, guide=AutoNormal, batch_size=5)),
    Case("two plates and one of them named", PlateError, ("'y'", "outside plate 'one'", "move it"),
         lambda: two(model=two_plates, guide=AutoNormal, batch_size=5, batch_plate="one")),
    Case("batch_plate that is not there", PlateError, ("batch_plate='rows'", "'data'"),
         lambda: two(model=regression, guide=guide, batch_size=5, batch_plate="rows")),
    Case("batch_plate that is no string", UsageError, ("batch_plate", "name of a plate"),
         lambda: two(model=regression, guide=guide, batch_size=5, batch_plate=3)),
    Case("batch_plate that is not there, all rows", PlateError, ("batch_plate='rows'", "'data'"),
         lambda: two(model=regression, guide=guide, batch_plate="rows")),
    Case("plate of another size, minibatches", ShapeError, ("'y'", "'data' has 10", "len(x)"),
         lambda: two(model=plate_of_ten, guide=AutoNormal, batch_size=5)),
    Case("plate whose fixed size is the batch's, not the data's", ShapeError, ("'y'", "'data' has 10", "len(x)"),
         lambda: two(model=plate_of_ten, guide=AutoNormal, batch_size=10)),
    Case("local latent with a joint guide", PlateError, ("'z'", "AutoMultivariateNormal", "use AutoNormal"),
         lambda: one(model=local, guide=AutoMultivariateNormal, batch_size=5)),
    Case("local latent with no guide given", PlateError, ("'z'", "AutoMultivariateNormal", "use AutoNormal"),
         lambda: one(model=local, batch_size=5)),
    Case("local latent with a vector guide", PlateError, ("'z'", "AutoDiagonalNormal", "use AutoNormal"),
         lambda: one(model=local, guide=functools.partial(AutoDiagonalNormal, init_scale=0.1), batch_size=5)),
    Case("local latent outside the plate in the guide", ShapeError, ("'z'", "event_dim", "same plates"),
         lambda: one(model=local, guide=local_without_plate)),
    Case("local latent outside the plate in the guide, minibatches", ShapeError, ("'z'", "event_dim", "same plates"),
         lambda: one(model=local, guide=local_without_plate, batch_size=5)),
    Case("local latent in another plate in the guide", PlateError, ("'z'", "plate 'data'", "same plate in the guide"),
         lambda: one(model=local, guide=local_in_another_plate, batch_size=5)),
    Case("guide with a parameter a row", ShapeError, ("'z'", "20", "5", "amortise"),
         lambda: one(model=local, guide=row_parameters, batch_size=5)),
    # programs that cannot be run
    Case("model takes another number of arguments", SignatureError, ("model", "(x, y, z)", "tensor(20,)", "'z'"),
         lambda: two(model=takes_three, guide=guide)),
    Case("guide takes another number of arguments", SignatureError, ("guide", "(x)", "tensor(20,)"),
         lambda: two(model=regression, guide=mixture_guide)),
    Case("model takes other names", SignatureError, ("model takes (x, y)", "target=tensor(20,)", "'y'"),
         lambda: {"model": regression, "guide": guide, "data": {"x": X, "target": Y}}),
    Case("model raises", ModelError, ("after site 'w'", "x @ torch.ones(3)", "tensor(20,)", "by hand"),
         lambda: two(model=raises, guide=guide)),
    Case("model raises at once", ModelError, ("before its first site", "KeyError", "no such column", "by hand"),
         lambda: two(model=raises_at_once, guide=guide)),
    Case("guide raises", ModelError, ("guide raised", "before its first site", "no such column", "by hand"),
         lambda: two(model=regression, guide=raises_at_once)),
    Case("a distribution's argument is text", ModelError, ("dist.Normal(0.0, \"1.0\")", "by hand"),
         lambda: two(model=stops_the_world, guide=guide)),
    Case("model is no callable", UsageError, ("model: expected", "callable", "str"),
         lambda: two(model="regression", guide=guide)),
    Case("guide is text", GuideError, ("guide: expected", "'AutoNormal'", "pass the object itself"),
         lambda: two(model=regression, guide="AutoNormal")),
    Case("guide is some class", GuideError, ("NotAGuide", "not a guide", "AutoNormal"),
         lambda: two(model=regression, guide=NotAGuide)),
    Case("guide is a loss class", GuideError, ("Trace_ELBO", "not a guide"),
         lambda: two(model=regression, guide=Trace_ELBO)),
    Case("guide is an uncallable object", GuideError, ("guide: expected", "Uncallable", "pass the object itself"),
         lambda: two(model=regression, guide=Uncallable())),
    Case("automatic guide of another model", SiteError, ("guide site 'response'", "another model", "AutoNormal(model)"),
         lambda: two(model=regression, guide=AutoNormal(forgotten_obs_of_another_name))),
    Case("a list of guides with a part missing", SiteError, ("'s'", "missing in the guide"),
         lambda: two(model=regression, guide=only_w())),
]  # fmt: skip


def only_w():
    guides = AutoGuideList(regression)
    guides.append(AutoNormal(pyro.poutine.block(regression, expose=["w"])))
    return guides


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_trained_and_the_cure_is_said(case, monkeypatch, capfd):
    assert_fit_is_refused(case, monkeypatch, capfd)
