"""Vectorized particles: a program that cannot take them is refused before it is trained wrongly."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import vipack as vi
from tests.training.programs import X, mixture, normal

TABLE = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
Y = TABLE.sum(1)
MANY = Trace_ELBO(num_particles=4, vectorize_particles=True)


def regression(predictor):
    def model(x, y):
        b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(predictor(x, b), 1.0), obs=y)

    return model


PAIRS = regression(lambda x, b: (x @ b.unsqueeze(-1)).squeeze(-1))  # (4, 1, 30): Pyro makes (4, 4, 30) of it
RAISING = regression(lambda x, b: x @ b)
RIGHT = regression(lambda x, b: (x * b).sum(-1))


def test_particles_that_would_be_paired_with_each_other_are_refused():
    """Trained so, the sds come out half as wide as they are: sqrt(1/4)."""
    with pytest.raises(
        vi.errors.ShapeError, match=r"model site 'y': with 4 vectorized particles .*\(4, 4, 30\).*broadcast"
    ):
        vi.fit(PAIRS, AutoMultivariateNormal, data=(TABLE, Y), loss=MANY, steps=1)


def test_a_model_that_raises_on_particles_says_why():
    with pytest.raises(
        vi.errors.ShapeError, match=r"vectorize_particles=True draws 4 particles at once.*after site 'b'.*leave"
    ):
        vi.fit(RAISING, AutoMultivariateNormal, data=(TABLE, Y), loss=MANY, steps=1)


def test_the_check_lists_it_beside_the_shape_table():
    found = vi.check(PAIRS, AutoMultivariateNormal, data=(TABLE, Y), loss=MANY)
    assert not found.ok
    assert found.table is not None
    assert "vectorized particles" in str(found)


@pytest.mark.parametrize("model", [PAIRS, RAISING], ids=["paired", "raising"])
@pytest.mark.parametrize(
    "loss", [Trace_ELBO(num_particles=4), Trace_ELBO(vectorize_particles=True)], ids=["loop", "one"]
)
def test_the_same_models_run_with_particles_one_by_one(model, loss):
    assert vi.fit(model, AutoMultivariateNormal, data=(TABLE, Y), loss=loss, steps=2).steps == 2


def test_programs_that_broadcast_pass():
    vi.fit(RIGHT, AutoMultivariateNormal, data=(TABLE, Y), loss=MANY, steps=2)
    vi.fit(RIGHT, AutoNormal, data=(TABLE, Y), batch_size=10, loss=MANY, steps=2)
    vi.fit(normal, AutoNormal, data=X, loss=MANY, steps=2)
    vi.fit(mixture, AutoNormal, data=X, loss=TraceEnum_ELBO(num_particles=4, vectorize_particles=True), steps=2)
