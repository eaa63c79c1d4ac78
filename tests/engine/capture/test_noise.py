"""Draws are lifted in the order of the program, and whatever cannot be lifted stays where it is."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints

import vipack as vi
from tests.engine.capture.captured import captured
from vipack.engine.capture.capture import tensors_of
from vipack.engine.capture.noise import lift_draws
from vipack.engine.steps import training_step

Y = torch.tensor([0.3, -0.8, 1.9, 0.4])


def normal(y):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(a + b.sum(), 1.0), obs=y)


def rated(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(rate, 1.0), obs=y)


def rated_guide(y):
    shape = pyro.param("shape", torch.tensor(2.0), constraint=constraints.positive)
    pyro.sample("rate", dist.Gamma(shape, 1.0))


def mixed_guide(y):
    """A normal, a Gamma that depends on a parameter, and a normal again."""
    pyro.sample("before", dist.Normal(pyro.param("at", torch.tensor(0.0)), 1.0), infer={"is_auxiliary": True})
    rated_guide(y)
    pyro.sample("after", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})


def subsampled(y):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y), subsample_size=2) as rows:
        pyro.sample("y", dist.Normal(a, 1.0), obs=y[rows])


def lifted_and_whole(model, guide, seed=7):
    """One step by the lifted graph on its own draws, and by the captured graph, from the same generator."""
    found = captured(model, guide, Y)
    lifted = lift_draws(found.graph)
    inputs = [found.program.parameters.unconstrained[n].detach() for n in found.graph.layout.names]
    inputs += tensors_of(found.batch)[0]
    torch.manual_seed(seed)
    whole, end = found.graph.module(*inputs), torch.get_rng_state()
    torch.manual_seed(seed)
    draws = [draw() for draw in lifted.draws]
    parts = lifted.module(*draws, *inputs)
    assert torch.equal(torch.get_rng_state(), end)
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one, other)
    return lifted, draws


def test_normals_are_lifted():
    lifted, draws = lifted_and_whole(normal, AutoNormal)
    assert [draw.shape for draw in lifted.draws] == [(), (3,)]
    assert all(draw.standard_normal for draw in lifted.draws)
    assert lifted.random_inside == ()
    assert [tuple(value.shape) for value in draws] == [(), (3,)]


def test_a_draw_that_depends_on_a_parameter_stays():
    lifted, _ = lifted_and_whole(rated, rated_guide)
    assert lifted.draws == ()
    assert len(lifted.random_inside) == 1


def test_what_comes_after_a_draw_that_stays_stays_too():
    """Else the numbers would be drawn in another order."""
    lifted, _ = lifted_and_whole(rated, mixed_guide)
    assert len(lifted.draws) == 1
    assert len(lifted.random_inside) == 2


def test_the_rows_of_a_plate_are_lifted():
    lifted, draws = lifted_and_whole(subsampled, AutoNormal)
    assert lifted.random_inside == ()
    kinds = {draw.dtype for draw in lifted.draws}
    assert kinds == {torch.float32, torch.int64}
    assert any(sorted(value.tolist()) == [0, 1, 2, 3] for value in draws if value.dtype == torch.int64)


def test_normals_drawn_together_are_one_vector_cut_in_order():
    found = captured(normal, AutoNormal, Y)
    lifted = lift_draws(found.graph)
    (draw,) = lifted.together().draws
    vector = draw()
    assert (draw.shape, tuple(vector.shape), vector.dtype) == ((4,), (4,), torch.float32)
    inputs = [found.program.parameters.unconstrained[n].detach() for n in found.graph.layout.names]
    inputs += tensors_of(found.batch)[0]
    apart = lifted.module(vector[0], vector[1:4], *inputs)
    for one, other in zip(lifted.together().module(vector, *inputs), apart, strict=True):
        assert torch.equal(one, other)


def test_draws_of_other_kinds_stay_apart():
    lifted = lift_draws(captured(subsampled, AutoNormal, Y).graph)
    assert lifted.together() is lifted


def test_putting_a_step_together_draws_nothing_though_a_tracer_may_run_operators(monkeypatch):
    """On a GPU torch 2.11 runs those whose results it cannot foresee, as a gradient of a Gamma's."""
    trace = training_step.traced_without_values

    def drawing(step):
        torch.rand(3)
        return trace(step)

    def losses():
        return vi.fit(rated, rated_guide, data=Y, steps=8, engine="traced").losses.tolist()

    expected = losses()
    monkeypatch.setattr(training_step, "traced_without_values", drawing)
    assert losses() == expected


def dropping(y):
    """Masks of dropout, of numbers and of what is computed from them."""
    weight = pyro.param("weight", torch.ones(4))
    first = torch.nn.functional.dropout(weight, 0.5)
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    second = torch.nn.functional.dropout(torch.tanh(weight), 0.3)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(a * first + second, 1.0), obs=y)


def dropping_guide(y):
    pyro.sample("a", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))


def test_masks_of_dropout_are_lifted():
    lifted, _ = lifted_and_whole(dropping, dropping_guide)
    assert lifted.random_inside == ()
    assert [(draw.shape, draw.standard_normal) for draw in lifted.draws] == [((), True), ((4,), False), ((4,), False)]
