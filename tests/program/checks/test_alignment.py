"""Each row of a plate counts once, with its own data; what only looks like a mistake is let pass."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal, AutoStructured
from pyro.infer.reparam import LocScaleReparam

import vipack as vi
from vipack.errors import PlateError, ProgramWarning, SiteError

GENERATOR = torch.Generator().manual_seed(0)
N = 8
X = torch.randn(N, generator=GENERATOR)
TABLE = torch.randn(N, 3, generator=GENERATOR)


def normal():
    return pyro.sample("mu", dist.Normal(0.0, 1.0))


# --- densities that have a dimension for their plates


def scalar_parameters(x):
    normal()
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def expanded_latents(x):
    mu = normal()
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(mu + z, 1.0), obs=x)


def events_of_rows(x):
    mu = normal()
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0).expand([3]).to_event(1), obs=x)


def nested_plates(x):
    mu = normal()
    with pyro.plate("column", 3, dim=-1), pyro.plate("row", len(x), dim=-2):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def one_value_for_several_locations(x):
    """A soft constraint on every row: the distribution varies, though the value does not."""
    mu = normal()
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("near", dist.Normal(z, 0.1), obs=torch.tensor(0.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def a_row_of_several_particles(x):
    mu = normal()
    with pyro.plate("copy", 2, dim=-2):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(x), dim=-1):
            pyro.sample("x", dist.Normal(mu + shift, 1.0), obs=x)


def a_constant_for_each_row(x):
    mu = normal()
    with pyro.plate("row", len(x)):
        pyro.factor("constant", (-mu.exp()).expand(len(x)))
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def a_plate_of_one_row(x):
    mu = normal()
    with pyro.plate("one", 1):
        pyro.sample("x", dist.Normal(mu, 1.0).expand([len(x)]).to_event(1), obs=x)


def nothing_that_counts(x):
    mu = normal()
    with pyro.plate("row", len(x)):
        with poutine.mask(mask=False):
            pyro.sample("total", dist.Normal(mu, 1.0), obs=torch.tensor(1.0))
        pyro.deterministic("mean", mu)
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def rows_that_a_mask_keeps(x):
    mu = normal()
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0).mask(x > 0), obs=x)


LET_PASS = [
    (scalar_parameters, X),
    (expanded_latents, X),
    (events_of_rows, TABLE),
    (nested_plates, TABLE),
    (one_value_for_several_locations, X),
    (a_row_of_several_particles, X),
    (a_constant_for_each_row, X),
    (nothing_that_counts, X),
    (rows_that_a_mask_keeps, X),
]


@pytest.mark.parametrize(("model", "data"), LET_PASS, ids=[model.__name__ for model, _ in LET_PASS])
@pytest.mark.parametrize("options", [{}, {"batch_size": 4}], ids=["all rows", "minibatches"])
def test_a_density_with_its_own_dimension_or_a_value_with_one_is_let_pass(model, data, options):
    found = vi.check(model, AutoNormal, data=data, **options)
    assert found.ok, str(found)
    assert found.warnings == ()


def test_a_plate_of_one_row_is_let_pass():
    assert vi.check(a_plate_of_one_row, AutoNormal, data=X).ok


def broadcast_rows(x):
    mu = normal()
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0).expand([len(x)]).to_event(1), obs=x)


def test_the_likelihood_that_would_count_for_every_row_is_named_with_its_plate():
    with pytest.raises(PlateError) as caught:
        vi.fit(broadcast_rows, AutoNormal, data=X, steps=1)
    for words in ("'x'", "shape (8,)", "plate 'row' (size 8 at dim -1)", "counts 8 times", "Leave out .to_event()"):
        assert words in str(caught.value)


def test_a_ladder_does_not_climb_it_either():
    with pytest.raises(PlateError, match=r"model site 'x'.*counts 8 times"):
        vi.fit(broadcast_rows, data=X)


@pytest.mark.parametrize("where", ["model", "guide"])
def test_a_factor_that_was_summed_is_found_in_model_and_guide(where):
    def model(x):
        mu = normal()
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)
            if where == "model":
                pyro.factor("penalty", -(mu * x).sum())

    def guide(x):
        mu = pyro.sample("mu", dist.Normal(pyro.param("at", torch.tensor(0.0)), 1.0))
        with pyro.plate("row", len(x)):
            if where == "guide":
                pyro.factor("penalty", -(mu * x).sum(), has_rsample=True)

    found = vi.check(model, guide, data=X).errors
    assert [type(error) for error in found] == [PlateError]
    assert f"{where} site 'penalty': the factor has shape ()" in str(found[0])
    assert "expand it to 8" in str(found[0])


def test_the_outer_of_two_plates_is_named_where_its_dimension_is_missing():
    def model(x):
        mu = normal()
        with pyro.plate("row", len(x), dim=-1), pyro.plate("again", 5, dim=-2):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    (error,) = vi.check(model, AutoNormal, data=X).errors
    assert "plate 'again' (size 5 at dim -2)" in str(error)
    assert "counts 5 times" in str(error)


def test_one_value_for_a_plate_is_found_whatever_its_event():
    def model(x):
        mu = normal()
        with pyro.plate("row", 4):
            pyro.sample("x", dist.MultivariateNormal(mu * torch.ones(N), torch.eye(N)), obs=x)

    (error,) = vi.check(model, AutoNormal, data=X).errors
    assert "of which (8,) is one draw of MultivariateNormal" in str(error)


# --- rows that model and guide hold


def own_rows(x):
    mu = normal()
    rows = torch.randperm(len(x))[:3]
    with pyro.plate("row", len(x), subsample=rows):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 0.1), obs=x[rows])


def test_a_model_that_chooses_rows_which_its_guide_does_not_know_is_refused():
    with pytest.raises(PlateError) as caught:
        vi.fit(own_rows, AutoNormal, data=X, steps=1)
    for words in (
        "latent site 'z'",
        "plate 'row'",
        "subsample=",
        "data of other rows",
        "subsample_size=B",
        "create_plates=",
    ):
        assert words in str(caught.value)


def given_rows(x, rows):
    mu = normal()
    with pyro.plate("row", N, subsample=rows):
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        pyro.sample("x", dist.Normal(z, 0.1), obs=x)


ROWS = torch.tensor([5, 0, 2])


def test_rows_that_are_data_must_reach_the_guide_too():
    assert not vi.check(given_rows, AutoNormal, data=(X[ROWS], ROWS)).ok
    guide = AutoNormal(given_rows, create_plates=lambda x, rows: pyro.plate("row", N, subsample=rows))
    assert vi.check(given_rows, guide, data=(X[ROWS], ROWS)).ok

    def by_hand(x, rows):
        pyro.sample("mu", dist.Normal(pyro.param("at", torch.tensor(0.0)), 1.0))
        with pyro.plate("row", N, subsample=rows):
            pyro.sample("z", dist.Normal(x, 0.1))

    assert vi.check(given_rows, by_hand, data=(X[ROWS], ROWS)).ok


def test_rows_that_the_plate_chooses_are_the_same_in_model_and_guide():
    def model(x):
        mu = normal()
        with pyro.plate("row", len(x), subsample_size=3) as rows:
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 0.1), obs=x[rows])

    assert vi.check(model, AutoNormal, data=X).ok


@pytest.mark.parametrize("guide", [AutoMultivariateNormal, vi.guides.Flow, AutoStructured])
def test_a_guide_that_draws_some_rows_as_one_vector_is_refused(guide):
    def model(x):
        mu = normal()
        with pyro.plate("row", len(x), subsample_size=3) as rows:
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 0.1), obs=x[rows])

    (error,) = vi.check(model, guide, data=X).errors
    for words in ("'z'", "3 of 8 rows of plate 'row'", guide.__name__, "use AutoNormal"):
        assert words in str(error)


def test_random_rows_of_a_plate_for_data_that_stay_the_same_are_refused():
    """plate(N, subsample_size=len(x)) with a part of the data, and a latent for each row."""

    def model(x):
        mu = normal()
        with pyro.plate("row", 10 * N, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z, 0.1), obs=x)

    (error,) = vi.check(model, AutoNormal, data=X).errors
    for words in ("latent site 'z'", "plate 'row' holds 8 of 80 rows", "batch_size="):
        assert words in str(error)


def test_rows_that_only_the_model_draws_cannot_be_evaluated_and_it_is_said():
    def model(x):
        mu = normal()
        rows = torch.randperm(len(x))[:3]
        with pyro.plate("row", len(x), subsample=rows):
            pyro.sample("x", dist.Normal(mu, 0.1), obs=x[rows])

    found = vi.check(model, AutoNormal, data=X)
    assert found.ok
    (warning,) = found.warnings
    assert isinstance(warning, ProgramWarning)
    assert "plate 'row': the model draws the 3 of 8 rows itself" in str(warning)
    assert "subsample_size=3" in str(warning)


def test_fixed_rows_of_a_model_without_local_latents_are_let_pass():
    def model(x, rows):
        mu = normal()
        with pyro.plate("row", N, subsample=rows):
            pyro.sample("x", dist.Normal(mu, 0.1), obs=x[rows])

    assert vi.check(model, AutoNormal, data=(X, ROWS)).warnings == ()


# --- computed sites


def hierarchy(x):
    tau = pyro.sample("tau", dist.HalfNormal(1.0))
    with pyro.plate("row", len(x)):
        theta = pyro.sample("theta", dist.Normal(0.0, tau))
        pyro.sample("x", dist.Normal(theta, 1.0), obs=x)


def test_a_condition_on_what_a_reparametrisation_computes_is_refused():
    config = {"theta": LocScaleReparam(0.0)}
    fixed = {"theta": torch.zeros(N)}
    outside = poutine.condition(poutine.reparam(hierarchy, config=config), fixed)
    (error,) = vi.check(outside, AutoNormal, data=X).errors
    assert isinstance(error, SiteError)
    assert "site 'theta' is computed" in str(error)
    assert "poutine.reparam(poutine.condition(model, data), config)" in str(error)
    inside = poutine.reparam(poutine.condition(hierarchy, fixed), config=config)
    assert vi.check(inside, AutoNormal, data=X).ok
