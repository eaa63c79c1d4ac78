"""Minibatches that no plate covers, programs that cannot be run and objects that are none: none of them trains."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuideList, AutoMultivariateNormal, AutoNormal

from tests.bad_input.programs import (
    N,
    X,
    Y,
    guide,
    local,
    mixture_guide,
    one,
    plate_of_ten,
    regression,
    two,
)
from tests.bad_input.refusal import Case, assert_fit_is_refused
from vipack.errors import (
    GuideError,
    ModelError,
    PlateError,
    ShapeError,
    SignatureError,
    SiteError,
    UsageError,
)
from vipack.program import seeded

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


def factor_of_the_mean(x, y):
    """One number for the batch, whatever its size."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    pyro.sample("y", dist.Normal(w, 1.0), obs=y.mean())


def prior_of_the_content(x, y):
    w = pyro.sample("w", dist.Normal(0.0, x.std()))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def prior_of_the_number(x, y):
    w = pyro.sample("w", dist.Normal(0.0, len(x) ** -0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def prior_further_down(x, y):
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    w = pyro.sample("w", dist.Normal(0.0, tau * x.std()))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def prior_of_a_row_by_the_number(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(w, float(len(x))))
        pyro.sample("y", dist.Normal(z * x, 1.0), obs=y)


def one_latent_for_each_row(x, y):
    """In a loop that no plate declares."""
    z = torch.stack([pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0)) for i in range(len(x))])
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(z * x, 1.0), obs=y)


def two_plates(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("one", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    with pyro.plate("two", len(x)):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)


def no_latents(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)


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


class NotAGuide:
    def __init__(self, model):
        self.model = model


class Uncallable:
    pass


CASES = [
    # minibatches
    Case("minibatch without a plate", PlateError, ("observed site 'y'", "5 of 20 rows", "pyro.plate"),
         lambda: two(model=no_plate, guide=AutoNormal, batch_size=5)),
    Case("rows in the event", PlateError, ("observed site 'y'", "outside plate 'data'", ".to_event"),
         lambda: two(model=rows_in_the_event, guide=AutoNormal, batch_size=5)),
    Case("factor outside the plate", PlateError, ("'penalty'", "outside plate 'data'", "move it"),
         lambda: two(model=factor_outside_the_plate, guide=AutoNormal, batch_size=5)),
    Case("mean of the batch observed outside the plate", PlateError, ("observed site 'y'", "outside plate 'data'"),
         lambda: two(model=factor_of_the_mean, guide=AutoNormal, batch_size=5)),
    Case("mean of an uneven batch observed outside the plate", PlateError, ("observed site 'y'", "outside plate 'data'"),
         lambda: two(model=factor_of_the_mean, guide=AutoNormal, batch_size=13)),
    Case("prior that depends on the batch's content", PlateError, ("latent site 'w'", "prior changes", "fixed="),
         lambda: two(model=prior_of_the_content, guide=AutoNormal, batch_size=5)),
    Case("prior that depends on the batch's size", PlateError, ("latent site 'w'", "prior changes", "fixed="),
         lambda: two(model=prior_of_the_number, guide=AutoNormal, batch_size=5)),
    Case("prior that depends on the batch further down", PlateError, ("latent site 'w'", "prior changes", "fixed="),
         lambda: two(model=prior_further_down, guide=AutoNormal, batch_size=5)),
    Case("prior of a row that depends on the batch's size", PlateError, ("site 'z'", "prior of a row", "plate 'data'", "fixed="),
         lambda: two(model=prior_of_a_row_by_the_number, guide=AutoNormal, batch_size=5)),
    Case("a latent for each row in no plate", PlateError, ("latent site 'z_4'", "comes and goes", "outside plate 'data'"),
         lambda: two(model=one_latent_for_each_row, guide=AutoNormal, batch_size=5)),
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
    Case("automatic guide of another model", SiteError, ("guide site 'loc'", "another model", "AutoNormal(model)"),
         lambda: two(model=regression, guide=AutoNormal(lambda x, y: local(x)))),
    Case("automatic guide set up on other data", GuideError, ("AutoNormal was set up on other data", "30", "'z'", "Pass the class"),
         lambda: one(model=local, guide=set_up_on_thirty_rows())),
    Case("automatic guide without a latent to draw", GuideError, ("no latent site", "guide=lambda", "maximise the likelihood"),
         lambda: one(model=no_latents)),
    Case("model is a class", UsageError, ("model: Linear is a class", "model=Linear()"),
         lambda: one(model=torch.nn.Linear, guide=guide)),
    Case("a list of guides with a part missing", SiteError, ("'s'", "missing in the guide"),
         lambda: two(model=regression, guide=only_w())),
]  # fmt: skip


def set_up_on_thirty_rows():
    made = AutoNormal(local)
    with pyro.get_param_store().scope(), seeded(0):
        made(torch.zeros(30))
    return made


def only_w():
    guides = AutoGuideList(regression)
    guides.append(AutoNormal(pyro.poutine.block(regression, expose=["w"])))
    return guides


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_trained_and_the_cure_is_said(case, monkeypatch, capfd):
    assert_fit_is_refused(case, monkeypatch, capfd)
