"""log p(x, z) on R^D: the hand-computed density with its Jacobian, differentiable, vmappable and invertible."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import config_enumerate

from vipack.errors import GuideError, SupportError
from vipack.program import Arguments, LogJoint, Program, seeded

X = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
F64 = {"dtype": torch.float64}


def no_guide(*args):
    pass


def joint(model, *data):
    program = Program(model, no_guide, dtype=torch.float64, device=torch.device("cpu"))
    with seeded(0):
        return LogJoint(program, Arguments(data))


def points(log_joint, count=4):
    return torch.randn(count, log_joint.dim, generator=torch.Generator().manual_seed(1), **F64)


def N(loc, scale):
    return dist.Normal(torch.as_tensor(loc, **F64), torch.as_tensor(scale, **F64))


# --- models, and their log joint densities written out for unconstrained u


def scales(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, sigma), obs=x)


def scales_by_hand(u):
    mu, sigma = u[0], u[1].exp()
    half_normal = N(0, 1).log_prob(sigma) + torch.log(torch.tensor(2.0, **F64))
    return N(0, 2).log_prob(mu) + half_normal + N(mu, sigma).log_prob(X).sum() + u[1]


def bounded_by_another(x):
    a = pyro.sample("a", dist.LogNormal(0.0, 1.0))
    b = pyro.sample("b", dist.Uniform(0.0, a))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


def bounded_by_another_by_hand(u):
    a = u[0].exp()
    b = a * torch.sigmoid(u[1])
    log_normal = N(0, 1).log_prob(u[0]) - u[0]
    jacobian = u[0] + a.log() + torch.nn.functional.logsigmoid(u[1]) + torch.nn.functional.logsigmoid(-u[1])
    return log_normal - a.log() + N(b, 1).log_prob(X).sum() + jacobian


def rows(x):
    scale = pyro.sample("scale", dist.HalfCauchy(1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, scale))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def rows_by_hand(u):
    scale, z = u[0].exp(), u[1:]
    half_cauchy = torch.log(2 / (torch.pi * (1 + scale**2)))
    return half_cauchy + u[0] + N(0, scale).log_prob(z).sum() + N(z, 1).log_prob(X).sum()


def scaled_and_masked(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)), pyro.poutine.scale(scale=3.0), pyro.poutine.mask(mask=x > 0):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)
    pyro.factor("penalty", -(mu**2))


def scaled_and_masked_by_hand(u):
    return N(0, 2).log_prob(u[0]) + 3 * (N(u[0], 1).log_prob(X) * (X > 0)).sum() - u[0] ** 2


def flat(x):
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, sigma), obs=x)


def flat_by_hand(u):
    return N(u[0], u[1].exp()).log_prob(X).sum() + u[1]


def mixture(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7], **F64)), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x)


def mixture_by_hand(u):
    parts = torch.stack([N(u[k], 1).log_prob(X) + torch.log(torch.tensor(p, **F64)) for k, p in ((0, 0.3), (1, 0.7))])
    return N(0, 3).log_prob(u).sum() + parts.logsumexp(0).sum()


def shared_label(x):
    """One discrete latent for all rows, outside the plate."""
    loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    sign = pyro.sample("sign", dist.Bernoulli(torch.tensor(0.25, **F64)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc * (2 * sign - 1), 1.0), obs=x)


def shared_label_by_hand(u):
    plus, minus = N(u[0], 1).log_prob(X).sum(), N(-u[0], 1).log_prob(X).sum()
    weights = torch.tensor([0.25, 0.75], **F64).log()
    return N(0, 3).log_prob(u[0]) + torch.stack([plus + weights[0], minus + weights[1]]).logsumexp(0)


BY_HAND = [
    (scales, scales_by_hand),
    (bounded_by_another, bounded_by_another_by_hand),
    (rows, rows_by_hand),
    (scaled_and_masked, scaled_and_masked_by_hand),
    (flat, flat_by_hand),
    (mixture, mixture_by_hand),
    (config_enumerate(shared_label), shared_label_by_hand),
]
IDS = [by_hand.__name__.removesuffix("_by_hand") for _, by_hand in BY_HAND]


@pytest.mark.parametrize(("model", "by_hand"), BY_HAND, ids=IDS)
def test_it_equals_the_density_written_out(model, by_hand):
    log_joint = joint(model, X)
    for u in points(log_joint):
        torch.testing.assert_close(log_joint(u), by_hand(u))


@pytest.mark.parametrize(("model", "by_hand"), BY_HAND, ids=IDS)
def test_vmap_of_the_gradient_equals_a_loop_and_finite_differences(model, by_hand):
    log_joint = joint(model, X)
    batch = points(log_joint)
    values = torch.vmap(log_joint)(batch)
    gradients = torch.vmap(torch.func.grad(log_joint))(batch)
    torch.testing.assert_close(values, torch.stack([log_joint(u) for u in batch]))
    for u, gradient in zip(batch, gradients, strict=True):
        leaf = u.clone().requires_grad_(True)
        torch.testing.assert_close(torch.autograd.grad(log_joint(leaf), leaf)[0], gradient)
        step = 1e-6 * torch.eye(log_joint.dim, **F64)
        finite = torch.stack([(log_joint(u + h) - log_joint(u - h)) / 2e-6 for h in step])
        torch.testing.assert_close(gradient, finite, atol=1e-6, rtol=1e-6)


# --- constrain and unconstrain


def simplex(x):
    p = pyro.sample("p", dist.Dirichlet(torch.full((3,), 2.0, **F64)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(p[0] - p[1], 1.0), obs=x)


def ordered(x):
    cuts = pyro.sample("cuts", dist.ImproperUniform(constraints.ordered_vector, (), (4,)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(cuts.mean(), 1.0), obs=x)


def cholesky(x):
    factor = pyro.sample("factor", dist.LKJCholesky(3, torch.tensor(2.0, **F64)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(factor[1, 0], 1.0), obs=x)


def simplexes_in_a_plate(x):
    with pyro.plate("topics", 2):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3, **F64)))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(p[0, 0], 1.0), obs=x)


ROUND_TRIPS = [
    *[model for model, _ in BY_HAND],
    simplex,
    ordered,
    cholesky,
    simplexes_in_a_plate,
]


@pytest.mark.parametrize("model", ROUND_TRIPS, ids=lambda model: getattr(model, "__name__", "enumerated"))
def test_unconstrain_undoes_constrain(model):
    log_joint = joint(model, X)
    for u in points(log_joint):
        latents = log_joint.constrain(u)
        torch.testing.assert_close(log_joint.unconstrain(latents), u)


@pytest.mark.parametrize(
    ("model", "name", "dim", "support"),
    [
        (simplex, "p", 2, constraints.simplex),
        (ordered, "cuts", 4, constraints.ordered_vector),
        (cholesky, "factor", 3, constraints.corr_cholesky),
        (simplexes_in_a_plate, "p", 4, constraints.simplex),
    ],
)
def test_the_space_has_the_dimension_of_the_support(model, name, dim, support):
    log_joint = joint(model, X)
    assert log_joint.dim == dim
    for u in points(log_joint):
        assert support.check(log_joint.constrain(u)[name]).all()


def test_the_simplex_density_integrates_to_one():
    """On R^2 by the trapezoid rule: without its Jacobian the sum would be another."""

    def prior_only(x):
        pyro.sample("p", dist.Dirichlet(torch.tensor([2.0, 3.0, 4.0], **F64)))

    log_joint = joint(prior_only, X)
    grid = torch.linspace(-12, 12, 241, **F64)
    u = torch.cartesian_prod(grid, grid)
    total = torch.vmap(log_joint)(u).exp().sum() * (24 / 240) ** 2
    assert total.item() == pytest.approx(1.0, abs=1e-4)


def test_deterministic_sites_come_with_the_latents():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.deterministic("double", 2 * w)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    u = torch.tensor([0.3], **F64)
    assert {name: value.item() for name, value in joint(model, X).constrain(u).items()} == {"w": 0.3, "double": 0.6}


def test_pyros_subsampling_is_evaluated_on_all_rows():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), subsample_size=2) as rows:
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x[rows])

    u = torch.tensor([0.3], **F64)
    torch.testing.assert_close(joint(model, X)(u), N(0, 1).log_prob(u[0]) + N(u[0], 1).log_prob(X).sum())


def test_initial_points_lie_within_the_radius():
    log_joint = joint(rows, X)
    u = torch.stack([log_joint.initial(0.5) for _ in range(50)])
    assert u.shape == (50, 7)
    assert u.abs().max() <= 0.5


def test_a_value_outside_its_support_is_named():
    log_joint = joint(bounded_by_another, X)
    inside = {"a": torch.tensor(2.0, **F64), "b": torch.tensor(1.5, **F64)}
    torch.testing.assert_close(log_joint.constrain(log_joint.unconstrain(inside))["b"], inside["b"])
    with pytest.raises(SupportError, match=r"site 'b': value .*3.* outside its support .* give a value inside it"):
        log_joint.unconstrain({**inside, "b": torch.tensor(3.0, **F64)})


def test_a_discrete_latent_that_is_not_enumerated_is_named():
    with pytest.raises(GuideError, match=r"site 'sign' is a discrete latent \(Bernoulli\).*config_enumerate"):
        joint(shared_label, X)


def test_a_support_without_a_bijection_is_named():
    def model(x):
        factor = pyro.sample("factor", dist.ImproperUniform(constraints.lower_cholesky, (), (2, 2)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(factor[1, 0], factor[0, 0]), obs=x)

    with pytest.raises(GuideError, match=r"site 'factor': no bijection from R\^D .*LowerCholesky.*biject_to"):
        joint(model, X)


# --- many draws, and guides with parameters


@pytest.mark.parametrize("model", [scales, bounded_by_another, rows, flat, mixture])
def test_many_draws_are_unconstrained_as_one_is(model):
    log_joint = joint(model, X)
    u = points(log_joint)
    values = [log_joint.constrain(each) for each in u]
    latents = {name: torch.stack([value[name] for value in values]) for name in log_joint.shapes}
    torch.testing.assert_close(log_joint.unconstrain_many(latents), u)


def test_a_draw_outside_its_support_is_not_finite_among_many():
    log_joint = joint(scales, X)
    latents = {"mu": torch.zeros(3, **F64), "sigma": torch.tensor([1.0, -1.0, 0.0], **F64)}
    assert log_joint.unconstrain_many(latents).isfinite().all(1).tolist() == [True, False, False]


def test_it_can_be_mapped_and_differentiated_once_a_guide_has_parameters():
    def guide(x):
        pyro.sample("mu", dist.Normal(pyro.param("loc", torch.zeros((), **F64)), 1.0))
        pyro.sample("sigma", dist.HalfNormal(1.0))

    program = Program(scales, guide, dtype=torch.float64, device=torch.device("cpu"))
    with seeded(0):
        program.initialise(Arguments((X,)))
        log_joint = LogJoint(program, Arguments((X,)))
    u = points(log_joint)
    gradients, values = torch.vmap(torch.func.grad_and_value(log_joint))(u)
    torch.testing.assert_close(values, torch.stack([scales_by_hand(each) for each in u]))
    torch.testing.assert_close(gradients, torch.func.vmap(torch.func.grad(scales_by_hand))(u))
