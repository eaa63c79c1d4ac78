"""Linear response gives covariances that are known, and says where it cannot."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import RenyiELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch.autograd.function import once_differentiable

import vipack as vi
from tests.posterior.linear_response.known import COVARIANCE, MEAN, PRECISION, X, gaussian, gaussian_fit
from vipack.errors import GuideError, TrustWarning, UsageError
from vipack.posterior.linear_response.fixed_draws import block_of


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_covariances_of_a_gaussian_are_exact(dtype):
    response = gaussian_fit(dtype).linear_response()
    exact = 1e-7 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(response.covariance, COVARIANCE, rtol=exact, atol=exact)
    torch.testing.assert_close(response.sd["z"], COVARIANCE.diagonal().sqrt(), rtol=exact, atol=exact)
    torch.testing.assert_close(response.mean["z"], MEAN, rtol=exact, atol=exact)
    torch.testing.assert_close(response.mean_field_sd["z"], PRECISION.diagonal().rsqrt(), rtol=exact, atol=exact)
    assert response.products == "second derivatives"
    assert response.positive_definite
    assert response.solved
    assert response.relative_noise < exact
    assert response.newton_shift["z"].abs().max() < 10 * exact


def test_the_response_follows_a_function_by_the_chain_rule():
    a = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]], dtype=torch.float64)
    response = gaussian_fit().linear_response(lambda z: {"two": a @ z["z"], "norm": z["z"].square().sum()})
    assert response.names == ("two[0]", "two[1]", "norm")
    torch.testing.assert_close(response.covariance[:2, :2], a @ COVARIANCE @ a.T, rtol=1e-7, atol=1e-7)
    # Moments of normals: cov(z_i, |z|^2) = 2 C m, var(|z|^2) = 2 tr C^2 + 4 m' C m. The quadratic's variance is not that of the
    # linear parts alone, which are exact; the mean-field family knows no products z_i z_j.
    torch.testing.assert_close(response.covariance[:2, 2], a @ COVARIANCE @ (2 * MEAN), rtol=1e-6, atol=1e-6)
    correlation = response.correlation
    torch.testing.assert_close(correlation.diagonal(), torch.ones(3, dtype=torch.float64))
    assert correlation[0, 1] == pytest.approx(
        float(response.covariance[0, 1] / (response.covariance[0, 0] * response.covariance[1, 1]).sqrt())
    )


@pytest.mark.parametrize("guide", [AutoNormal, AutoDelta])
def test_covariances_of_a_regression_are_those_of_its_normal_equations(guide):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, generator=generator) + 2.0
    y = 1.5 * x - 1.0 + torch.randn(60, generator=generator)
    design = torch.stack([x, torch.ones(60)], 1).double()
    exact = (design.T @ design + torch.eye(2) / 25).inverse()

    def model(x, y):
        slope = pyro.sample("slope", dist.Normal(0.0, 5.0))
        intercept = pyro.sample("intercept", dist.Normal(0.0, 5.0))
        pyro.deterministic("at_two", intercept + 2 * slope)
        with pyro.plate("row", len(x)):
            pyro.sample("y", dist.Normal(intercept + slope * x, 1.0), obs=y)

    fit = vi.fit(model, guide, data=(x, y), steps=1_500, seed=0, progress=False)
    response = fit.linear_response()
    assert response.names == ("slope", "intercept", "at_two")
    torch.testing.assert_close(response.covariance[:2, :2], exact, rtol=2e-3, atol=1e-5)
    weights = torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert float(response.sd["at_two"]) == pytest.approx(float((weights @ exact @ weights).sqrt()), rel=2e-3)
    if guide is AutoNormal:
        assert response.mean_field_sd["slope"] < 0.6 * response.sd["slope"]


def test_a_full_covariance_gains_nothing():
    def full(x):
        tril = pyro.param("tril", torch.linalg.cholesky(COVARIANCE), constraint=constraints.lower_cholesky)
        pyro.sample("z", dist.MultivariateNormal(pyro.param("loc", MEAN), scale_tril=tril))

    response = gaussian_fit(guide=full).linear_response()
    torch.testing.assert_close(response.sd["z"], COVARIANCE.diagonal().sqrt(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(response.mean_field_sd["z"], COVARIANCE.diagonal().sqrt(), rtol=1e-6, atol=1e-6)


def groups(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
    with pyro.plate("row", 40, subsample_size=len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(theta, 2.0), obs=y)


def local_normals(y):
    """The mean-field optimum of `groups` but for its locations, which do not matter to a Gaussian's covariances."""
    pyro.sample("mu", dist.Normal(pyro.param("mu_loc", torch.tensor(0.0)), pyro.param("mu_scale", torch.tensor(0.158))))
    loc, scale = pyro.param("loc", torch.zeros(40)), pyro.param("scale", torch.full((40,), 0.894))
    with pyro.plate("row", 40, subsample_size=len(y)) as rows:
        pyro.sample("theta", dist.Normal(loc[rows], scale[rows]))


def test_a_minibatched_fit_is_taken_in_blocks_of_rows(monkeypatch):
    y = torch.randn(40, generator=torch.Generator().manual_seed(1))
    fit = vi.fit(groups, local_normals, data=y - y.mean(), batch_size=10, steps=0, progress=False)
    exact = (1 / (1 / 9 + 40 / (1 + 4))) ** 0.5
    whole = fit.linear_response(lambda z: z["mu"], num_particles=16)
    monkeypatch.setattr("vipack.posterior.linear_response.fixed_draws.NUMBERS_AT_ONCE", 200)
    sizes = []
    monkeypatch.setattr(
        "vipack.posterior.linear_response.fixed_draws.block_of",
        lambda *call: sizes.append((len(call[0].arguments.args[0]), call[1], call[2])) or block_of(*call),
    )
    cut = fit.linear_response(lambda z: z["mu"], num_particles=16)
    assert float(whole.sd["function"]) == pytest.approx(exact, rel=1e-4)
    assert float(cut.sd["function"]) == pytest.approx(exact, rel=1e-4)
    assert float(whole.mean_field_sd["function"]) == pytest.approx(0.158, rel=1e-3)
    assert {rows for rows, _, _ in sizes} >= {16, 8}  # 40 rows in blocks of 16, 16 and 8
    assert max(number for rows, number, _ in sizes if rows < 40) < 16


def counts(x):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    with pyro.plate("row", len(x)):
        share = pyro.sample("share", dist.Gamma(3.0, 3.0))
        pyro.sample("x", dist.Poisson(rate * share), obs=x)


def gammas(x):
    """The mean-field optimum of `counts`, by coordinate ascent."""
    share, total = torch.ones_like(x), 2 + x.sum()
    for _ in range(100):
        inverse_scale = 1 + share.sum()
        share = (3 + x) / (3 + total / inverse_scale)
    positive = constraints.positive
    pyro.sample("rate", dist.Gamma(pyro.param("a", total, positive), pyro.param("b", inverse_scale, positive)))
    own = pyro.param("own", (3 + x) / share, positive)
    shape = pyro.param("shape", 3 + x, positive)
    with pyro.plate("row", len(x)):
        pyro.sample("share", dist.Gamma(shape, own))


def test_gamma_families_come_near_the_integral_over_a_grid():
    x = torch.tensor([4.0, 2.0, 7.0, 3.0, 5.0, 1.0], dtype=torch.float64)
    fit = vi.fit(counts, gammas, data=x, steps=0, progress=False)
    response = fit.linear_response(lambda z: z["rate"].log())
    log_rate = torch.linspace(-3.0, 4.0, 4_000, dtype=torch.float64)
    rate = log_rate.exp()
    log_p = 2 * log_rate - rate + sum(k * log_rate - (k + 3) * (rate + 3).log() for k in x.tolist())
    exact = moments(log_rate, log_p)[1]
    assert float(response.mean_field_sd["function"]) < 0.75 * exact
    assert float(response.sd["function"]) == pytest.approx(exact, rel=0.05)
    assert abs(float(response.newton_shift["function"])) < 0.05


def moments(grid, log_p):
    weights = (log_p - log_p.max()).exp() / (log_p - log_p.max()).exp().sum()
    mean = (weights * grid).sum()
    return float(mean), float((weights * (grid - mean).square()).sum().sqrt())


def test_a_dirichlet_responds_by_its_fisher_information():
    """Where the family holds the posterior, H is the Fisher information, and logarithms have their own covariance."""
    x = torch.tensor([3.0, 7.0, 1.0], dtype=torch.float64)
    a = x + 1

    def model(x):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3, dtype=x.dtype)))
        pyro.sample("x", dist.Multinomial(11, p), obs=x)

    def guide(x):
        pyro.sample("p", dist.Dirichlet(pyro.param("a", a, constraint=constraints.positive)))

    fit = vi.fit(model, guide, data=x, steps=0)
    response = fit.linear_response(lambda z: {"log": z["p"].log(), "p": z["p"]}, num_particles=1_024)
    fisher = torch.polygamma(1, a).diag() - torch.polygamma(1, a.sum())
    jacobian = torch.eye(3) / a.sum() - a[:, None] / a.sum() ** 2
    torch.testing.assert_close(response.covariance[:3, :3], fisher, rtol=0.03, atol=0.003)
    torch.testing.assert_close(
        response.covariance[3:, 3:], jacobian @ fisher.inverse() @ jacobian.T, rtol=0.03, atol=2e-4
    )


def test_a_beta_responds_by_its_fisher_information():
    x = torch.tensor([1.0] * 8 + [0.0] * 3, dtype=torch.float64)

    def model(x):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        with pyro.plate("toss", len(x)):
            pyro.sample("x", dist.Bernoulli(p), obs=x)

    def guide(x):
        a = pyro.param("a", torch.tensor(10.0, dtype=x.dtype), constraint=constraints.positive)
        b = pyro.param("b", torch.tensor(5.0, dtype=x.dtype), constraint=constraints.positive)
        pyro.sample("p", dist.Beta(a, b))

    response = vi.fit(model, guide, data=x, steps=0).linear_response(lambda z: z["p"].logit(), num_particles=512)
    exact = torch.polygamma(1, torch.tensor([10.0, 5.0])).sum().sqrt()
    assert float(response.sd["function"]) == pytest.approx(float(exact), rel=0.02)


def test_discrete_latents_that_are_summed_out_are_differentiated_through():
    x = torch.tensor([-2.1, -1.9, -2.0, 2.2, 1.8, 2.0, 2.1], dtype=torch.float64)

    def model(x):
        centre = pyro.sample("centre", dist.Normal(1.0, 2.0))
        with pyro.plate("row", len(x)):
            side = pyro.sample("side", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal((2 * side - 1) * centre, 1.0), obs=x)

    grid = torch.linspace(0, 6, 3_001, dtype=torch.float64)  # of the mode where the guide stands
    log_p = dist.Normal(1.0, 2.0).log_prob(grid)
    for value in x:
        log_p = log_p + torch.stack([dist.Normal(s * grid, 1.0).log_prob(value) for s in (-1.0, 1.0)]).logsumexp(0)
    mean, exact = moments(grid, log_p)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(exact, dtype=x.dtype), constraint=constraints.positive)
        pyro.sample("centre", dist.Normal(pyro.param("loc", torch.tensor(mean, dtype=x.dtype)), scale))

    fit = vi.fit(model, guide, data=x, loss=TraceEnum_ELBO(), steps=0, progress=False)
    response = fit.linear_response()
    assert float(response.sd["centre"]) == pytest.approx(exact, rel=0.02)


class Square(torch.autograd.Function):
    """Without a second derivative, nor a rule for vmap."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


@pytest.mark.filterwarnings("ignore:.*require grad reach the loss")  # the check takes what Square saves for one
@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-6), (torch.float32, 5e-3)])
def test_without_second_derivatives_gradients_are_subtracted(dtype, exact):
    tril = torch.linalg.cholesky(PRECISION).to(dtype)

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(3, dtype=dtype), 1e4).to_event(1))
        pyro.sample("x", dist.Normal(z, 1e4).to_event(1), obs=x)
        pyro.factor("squares", -0.5 * Square.apply((z - MEAN.to(dtype)) @ tril).sum())

    response = gaussian_fit(dtype, model=model).linear_response(num_particles=16)
    assert response.products == "differences of gradients"
    torch.testing.assert_close(response.covariance, COVARIANCE, rtol=exact, atol=exact)


def test_a_fit_far_from_its_optimum_is_told_to_train_further():
    def away(x):
        loc = pyro.param("loc", MEAN + 1.0)
        scale = pyro.param("scale", PRECISION.diagonal().rsqrt(), constraint=constraints.positive)
        pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    with pytest.warns(TrustWarning, match=r"Newton step .* train it further"):
        response = gaussian_fit(guide=away).linear_response()
    # For a Gaussian the Newton step leads to the mean.
    torch.testing.assert_close(
        response.mean["z"] + response.newton_shift["z"] * response.sd["z"], MEAN, rtol=1e-6, atol=1e-6
    )


def test_a_saddle_has_no_covariances():
    """Between two modes the negative ELBO bends down."""

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 3.0))
        pyro.sample("x", dist.Normal(z**2, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0, dtype=x.dtype))
        scale = pyro.param("scale", torch.tensor(0.2, dtype=x.dtype), constraint=constraints.positive)
        pyro.sample("z", dist.Normal(loc, scale))

    fit = vi.fit(model, guide, data=torch.tensor(4.0, dtype=torch.float64), steps=0)
    with pytest.warns(TrustWarning, match=r"bends down .* 'loc'.* train it further"):
        response = fit.linear_response()
    assert not response.positive_definite
    assert response.curvature < 0
    assert response.direction == "loc"
    assert response.sd["z"].isnan().all()
    assert response.covariance.isnan().all()
    assert "no covariances" in str(response)


def test_iterations_that_do_not_suffice_are_told():
    with pytest.warns(TrustWarning, match="max_iterations"):
        response = gaussian_fit().linear_response(max_iterations=1)
    assert not response.solved
    assert response.residual > 1e-3


def test_variance_that_linear_response_misses_is_told():
    """Of exp(z) with sd 1.5 it gives the linear and the quadratic part, and the guide's draws show more."""

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.5))
        pyro.sample("x", dist.Normal(z, 1e6), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0, dtype=x.dtype))
        scale = pyro.param("scale", torch.tensor(1.5, dtype=x.dtype), constraint=constraints.positive)
        pyro.sample("z", dist.Normal(loc, scale))

    fit = vi.fit(model, guide, data=torch.tensor(0.0, dtype=torch.float64), steps=0)
    with pytest.warns(TrustWarning, match="sd of function is too small"):
        response = fit.linear_response(lambda z: z["z"].exp(), num_particles=2_048)
    assert response.missed == ["function"]
    # of exp(z), var (s^2 + s^4 / 2) / (exp(s^2) - 1)
    assert float(response.share["function"]) == pytest.approx((2.25 + 2.25**2 / 2) / (math.exp(2.25) - 1), rel=0.3)


def test_the_same_seed_gives_the_same_and_another_one_others():
    fit = gaussian_fit()

    def bent(z):
        return (z["z"].sum() / 2).exp()

    one, again, other = (fit.linear_response(bent, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.covariance, again.covariance)
    assert not torch.equal(one.covariance, other.covariance)
    before = torch.get_rng_state()
    fit.linear_response(bent)
    assert torch.equal(before, torch.get_rng_state())


def test_more_draws_leave_less_noise():
    fit = gaussian_fit()

    def bent(z):
        return (z["z"].sum() / 2).exp()

    few, many = (fit.linear_response(bent, num_particles=n, seed=1).relative_noise for n in (8, 1_024))
    assert many < few / 2


def test_the_parameters_of_the_fit_stay_as_they_are():
    fit = gaussian_fit()
    before = fit.params
    fit.linear_response()
    assert all(torch.equal(before[name], value) for name, value in fit.params.items())
    assert all(value.grad is None for value in fit._trainer.program.parameters.tensors())


def test_a_summary_has_a_line_for_each_element_and_says_what_is_mended():
    response = gaussian_fit().linear_response()
    table = response.summary()
    assert list(table.index) == ["z[0]", "z[1]", "z[2]"]
    assert list(table.columns) == ["mean", "sd", "mean-field sd", "noise", "share", "newton shift"]
    assert table["sd"].tolist() == pytest.approx(COVARIANCE.diagonal().sqrt().tolist())
    assert "mends no wrong mean" in table.attrs["scope"]
    assert "no negative curvature met" in str(response)
    assert "mends no wrong mean" in str(response)


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
        ({"function": "z"}, "function: expected a function"),
    ],
)
def test_options_out_of_their_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        gaussian_fit().linear_response(**options)
