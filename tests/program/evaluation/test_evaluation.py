"""One place for densities and answers: held to Pyro's own ELBOs and Predictive over random programs with every handler."""

import contextlib
import dataclasses
import warnings

import pyro
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch.distributions import biject_to

import vipack as vi
from tests.program.random_programs import Drawn, Program, Spec, specs
from vipack.objectives.particles import particles_of
from vipack.program import LogJoint, seeded

DRAWS = 3
NESTING = 2

# Found by the search, or by thinking, and kept.
ALWAYS = [
    Spec(),
    Spec(rows=1, labels="row", observed="sample"),
    Spec(cols=3, columns="chain", labels="row", label_mask="poutine"),
    Spec(cols=2, columns="chain", labels="row", label_mask="fn", seed=3),
    Spec(labels="row", scale=3.0),
    Spec(labels="row", label="OneHotCategorical", label_mask="fn", cols=2),
    Spec(labels="global and row", label="Bernoulli", expand=True, seed=5),
    Spec(local="masked", simplex=True, observed="poutine.mask"),
    Spec(labels="global", wrappers=("scale",), cols=2),
    Spec(labels="group", groups=2, wrappers=("reparam", "scale")),
    Spec(observed="obs_mask", cols=2, columns="event"),
    Spec(observed="poutine.mask", local="masked"),
    Spec(sequential=True, local="masked", observed="fn.mask", labels="row"),
    Spec(subsample=True, local="plain", observed="obs_mask"),
    Spec(subsample=True, rows=4, observed="obs_mask"),
    Spec(wrappers=("condition", "do", "reparam", "replay")),
    Spec(wrappers=("split", "haar", "scale"), labels="row"),
    Spec(wrappers=("block", "mask", "scale"), guide=frozenset({"auxiliary", "factor", "deterministic", "observed"})),
]


@contextlib.contextmanager
def in_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with pyro.get_param_store().scope(), torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


def stock_loss(program):
    return TraceEnum_ELBO(max_plate_nesting=NESTING) if program.spec.enumerates else Trace_ELBO()


def fitted(program, guide=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a mask that leaves out all data, and the like
        own = program.guide if guide is None else guide
        return vi.fit(program.model, own, data=program.data(), loss=stock_loss(program), steps=0)


def drawn_guide(program, latents):
    def guide(*args):
        with Drawn(latents):
            program.guide(*args)

    return guide


def stock_elbo(program, latents, seed=0):
    """log p - log q at one draw, by Pyro: where `latents` are given, and else drawn from `seed`."""
    twin = Program(program.spec, twin=True)
    with in_dtype(program.spec.dtype), seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return -stock_loss(program).loss(twin.model, drawn_guide(twin, latents), *twin.data())


def of_draw(values, i):
    return {name: value[i] for name, value in values.items()}


def exactness(spec):
    return {"rel": 1e-9, "abs": 1e-9} if spec.dtype == torch.float64 else {"rel": 1e-5, "abs": 1e-5}


# --- log p - log q


def weights_are_those_of_pyros_elbo(spec):
    program = Program(spec)
    posterior = fitted(program).posterior
    if "auxiliary" in spec.guide:  # whose draws are not told: one run each, from the same random numbers
        posterior.vectorizer.allowed = ("loop",)
        draws = [posterior.draws(1, seed=seed, enumerated=False) for seed in range(DRAWS)]
        found = [float(one.log_weights) for one in draws]
        expected = [stock_elbo(program, {}, seed=seed) for seed in range(DRAWS)]
    else:
        draws = posterior.draws(DRAWS, enumerated=False)
        found = draws.log_weights.tolist()
        expected = [stock_elbo(program, of_draw(draws.latents, i)) for i in range(DRAWS)]
    assert found == pytest.approx(expected, **exactness(spec))


def automatic_guides_are_weighed_alike(spec):
    """From the same random numbers, by the guide in plain Pyro."""
    simpler = {"local": "" if spec.sequential or spec.local == "masked" else spec.local}
    simpler["observed"] = "sample" if spec.observed == "obs_mask" else spec.observed
    program = Program(dataclasses.replace(spec, **simpler))
    twin = Program(program.spec, twin=True)
    joint = () if program.spec.subsample and program.spec.local else (AutoMultivariateNormal,)
    guides = (AutoNormal, AutoDelta, *joint)
    fit = fitted(program, guides[spec.seed % len(guides)])
    fit.posterior.vectorizer.allowed = ("loop",)
    found = [float(fit.posterior.draws(1, seed=seed, enumerated=False).log_weights) for seed in range(DRAWS)]
    expected = []
    for seed in range(DRAWS):
        with in_dtype(spec.dtype), seeded(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected.append(-stock_loss(program).loss(twin.model, fit.guide, *twin.data()))
    assert found == pytest.approx(expected, **exactness(spec))


# --- the same in the coordinates of the log joint, and for objectives


def the_log_joint_is_the_same_density(spec):
    program = Program(spec)
    posterior = fitted(program).posterior
    draws = posterior.draws(DRAWS, enumerated=False)
    joint = LogJoint(posterior.program, posterior.arguments)
    for i in range(DRAWS):
        latents = of_draw(draws.latents, i)
        u = joint.unconstrain(latents)
        gain = gain_on_the_unconstrained_space(posterior.table, joint, u, latents, draws.counted)
        assert float(joint(u)) == pytest.approx(float(draws.log_joint[i]) + gain, **exactness(spec))


def gain_on_the_unconstrained_space(table, joint, u, latents, counted):
    """Jacobians, and standard normal densities of elements that are in neither density of a guide that knows each."""
    total = 0.0
    parts = u.split([shape.numel() for shape in joint.shapes.values()])
    for (name, shape), part in zip(joint.shapes.items(), parts, strict=True):
        part = part.reshape(shape)
        gain = biject_to(table[name].support).log_abs_det_jacobian(part, latents[name])
        if name in counted:
            normal = torch.distributions.Normal(0.0, 1.0).log_prob(part)
            events = len(table[name].event_shape)
            gain = torch.where(
                counted[name].flatten(-events)[..., 0] if events else counted[name],
                gain,
                normal.flatten(-events).sum(-1) if events else normal,
            )
        total += float(gain.sum())
    return total


def objectives_weigh_particles_alike(spec):
    program = Program(dataclasses.replace(spec, subsample=False))
    posterior = fitted(program).posterior
    call = (posterior.arguments.args, posterior.arguments.kwargs)
    with posterior.program.bound(posterior.arguments, training=False):
        particles = particles_of(program.model, program.guide, call)
        drawn, latents, _ = particles.draw(DRAWS, call, antithetic=False)
        weights = particles.log_p(latents, call) - particles.log_q(drawn, latents, call)
    values = {name: value.detach() for name, value in latents.items()}
    expected = [stock_elbo(program, of_draw(values, i)) for i in range(DRAWS)]
    assert weights.tolist() == pytest.approx(expected, **exactness(spec))


# --- answers


def answers_are_those_of_predictive(spec):
    """Observations without noise, so that what is predicted is known: their location at each draw."""
    program = Program(dataclasses.replace(spec, noise=1e-7))
    posterior = fitted(program).posterior
    draws, predicted = posterior.draws(DRAWS, seed=1), posterior.predictive(DRAWS, seed=1)
    expected = by_predictive(program, {**draws.latents, **draws.enumerated}, *program.data()[:1])
    close = {"rtol": 1e-4, "atol": 1e-4}
    expected.pop("votes", None)  # a factor
    if spec.observed == "obs_mask":  # of which plain Pyro sees one site, where there are no observations
        expected["y_observed"] = expected.pop("y")
        predicted.pop("y"), draws.deterministic.pop("y")
    if spec.observed == "factor":
        predicted.update({n: expected[n] for n in set(expected) - set(predicted) if n.startswith("y")})
    assert set(expected) == set(predicted)
    for name, value in predicted.items():
        torch.testing.assert_close(value, expected[name].reshape(value.shape), **close)
    for name, value in draws.deterministic.items():
        torch.testing.assert_close(value, expected[name].reshape(value.shape), **close)


def by_predictive(program, values, x):
    """What plain Pyro returns where the observations are not passed."""
    twin = Program(program.spec, twin=True)
    with in_dtype(program.spec.dtype), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Predictive(twin.model, posterior_samples=values)(x)


def log_likelihoods_are_those_of_single_rows(spec):
    program = Program(spec)
    posterior = fitted(program).posterior
    draws = posterior.draws(DRAWS)
    found = posterior.log_likelihood(draws.latents)
    twin = Program(spec, twin=True)
    for i in range(DRAWS):
        with in_dtype(spec.dtype), Drawn(of_draw(draws.latents, i)):
            trace = poutine.trace(twin.model).get_trace(*twin.data())
            trace.compute_log_prob()
        for name, value in found.items():
            torch.testing.assert_close(value[i], trace.nodes[name]["unscaled_log_prob"], rtol=1e-5, atol=1e-5)
    assert bool(found) != spec.enumerates or spec.observed == "factor"


# --- the search

PROPERTIES = [
    weights_are_those_of_pyros_elbo,
    automatic_guides_are_weighed_alike,
    the_log_joint_is_the_same_density,
    objectives_weigh_particles_alike,
    answers_are_those_of_predictive,
    log_likelihoods_are_those_of_single_rows,
]


def search(holds, max_examples):
    """Hold a property to so many random programs, always the same ones."""
    quiet = settings(
        max_examples=max_examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )

    @quiet
    @given(specs())
    def run(spec):
        holds(spec)

    run()


@pytest.mark.parametrize("spec", ALWAYS, ids=range(len(ALWAYS)))
@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_it_holds_of_programs_found_before(holds, spec):
    holds(spec)


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_it_holds_of_random_programs(holds):
    search(holds, 10)


@pytest.mark.slow
@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_it_holds_of_many_random_programs(holds):
    search(holds, 500)
