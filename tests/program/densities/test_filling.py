"""Values that a mask leaves out may be NaN, or padding: the fit is that of the model with any valid value in their place."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.utils.data import TensorDataset

import vipack as vi
from vipack.errors import DataError, NonFiniteError
from vipack.program.densities.filling import FilledData, _inside

N = 12
NAN = float("nan")
SEEN = torch.arange(N) % 4 > 0  # three are missing
FULL = torch.randn(N, generator=torch.Generator().manual_seed(0)) + 1.0
Y = torch.where(SEEN, FULL, NAN)


def prior():
    return pyro.sample("mu", dist.Normal(0.0, 1.0)), pyro.sample("s", dist.HalfNormal(1.0))


def by_handler(y, seen):
    mu, s = prior()
    with pyro.plate("row", len(y)), poutine.mask(mask=seen):
        pyro.sample("y", dist.Normal(mu, s), obs=y)


def by_distribution(y, seen):
    mu, s = prior()
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, s).mask(seen), obs=y)


def by_obs_mask(y, seen):
    mu, s = prior()
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, s), obs=y, obs_mask=seen)


def from_nan(y, seen):
    by_handler(y, ~y.isnan() & seen)


MODELS = [by_handler, by_distribution, by_obs_mask, from_nan]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_a_fit_is_the_one_with_finite_fillers(model, engine):
    found, expected = (vi.fit(model, AutoNormal, data=(y, SEEN), steps=40, engine=engine) for y in (Y, FULL))
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-6)
    for name, value in found.params.items():
        assert value.isfinite().all()
        torch.testing.assert_close(value, expected.params[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_batches_and_data_sets_may_have_missing_values(model):
    data = {"arrays": (Y, SEEN), "Dataset": TensorDataset(Y, SEEN)}
    for each in data.values():
        assert vi.check(model, AutoNormal, data=each, batch_size=5).ok
        fit = vi.fit(model, AutoNormal, data=each, batch_size=5, steps=20)
        assert all(value.isfinite().all() for value in fit.params.values())


@pytest.mark.parametrize("loss", [Trace_ELBO(2, vectorize_particles=True, max_plate_nesting=1), TraceMeanField_ELBO(),
                                  TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
                                  vi.objectives.StickingTheLanding(2), vi.objectives.ImportanceWeighted(2)],
                         ids=lambda loss: type(loss).__name__)  # fmt: skip
def test_every_loss_takes_missing_values(loss):
    found, expected = (vi.fit(by_handler, AutoNormal, data=(y, SEEN), steps=5, loss=loss) for y in (Y, FULL))
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-5)


@pytest.fixture(scope="module")
def fits():
    return [vi.fit(by_handler, AutoMultivariateNormal, data=(y, SEEN), steps=30) for y in (Y, FULL)]


def test_what_a_fit_answers_is_the_same(fits):
    found, expected = fits
    assert torch.equal(found.log_weights(50), expected.log_weights(50))
    assert torch.equal(found.predict(20)["y"], expected.predict(20)["y"])
    one, other = (vi.diagnostics.loo(fit, num_draws=200) for fit in fits)
    assert len(one.names) == int(SEEN.sum())
    assert one.elpds.tolist() == other.elpds.tolist()


def test_what_is_missing_has_no_likelihood_and_stays_missing(fits):
    found, expected = (fit.posterior for fit in fits)
    latents = found.draws(10).latents
    one, other = (each.log_likelihood(latents)["y"] for each in (found, expected))
    assert one[:, ~SEEN].isnan().all()
    assert torch.equal(one[:, SEEN], other[:, SEEN])
    assert found.observed["y"].isnan().tolist() == (~SEEN).tolist()


def test_the_export_has_the_others():
    counts = torch.where(SEEN, torch.arange(N) * 1.0, NAN)

    def model(x):
        with pyro.plate("row", len(x)), poutine.mask(mask=~x.isnan()):
            pyro.sample("x", dist.Poisson(pyro.sample("rate", dist.Gamma(1.0, 1.0))), obs=x)

    tree = vi.fit(model, AutoNormal, data=counts, steps=3).to_arviz(10)
    assert tree.observed_data["x"].values.tolist() == counts[SEEN].tolist()
    assert tree.observed_data["x"].dtype == tree.posterior_predictive["x"].dtype == "int64"


def test_a_ladder_takes_missing_values():
    fit = vi.fit(by_handler, data=(Y, SEEN), stop=vi.TimeLimit(5))
    assert fit.elbo(100).value < 0


def test_padding_outside_the_support_is_filled_too():
    words = torch.tensor([2, 0, 1, -1, -1])

    def model(words):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("word", len(words)), poutine.mask(mask=words >= 0):
            pyro.sample("words", dist.Categorical(p), obs=words)

    found, expected = (
        vi.fit(m, AutoNormal, data=data, steps=10)
        for m, data in ((model, words), (model, words[:3]))
    )  # fmt: skip
    assert found.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-5)


def test_values_inside_the_support_stay_what_they_are_under_a_mask():
    """Such as those held out, whose likelihood is asked for."""
    fit = vi.fit(by_handler, AutoNormal, data=(FULL, SEEN), steps=3)
    assert fit.posterior.log_likelihood(fit.posterior.draws(5).latents)["y"].isfinite().all()


@pytest.mark.parametrize(
    "fn",
    [
        dist.Normal(0.0, 1.0), dist.HalfCauchy(1.0), dist.Gamma(2.0, 3.0), dist.Beta(2.0, 3.0), dist.Pareto(2.0, 1.0),
        dist.Uniform(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])), dist.VonMises(0.0, 1.0), dist.Poisson(2.0),
        dist.Bernoulli(0.3), dist.Categorical(torch.ones(3) / 3), dist.Binomial(5, 0.3), dist.BetaBinomial(2.0, 3.0, 5),
        dist.Geometric(0.3), dist.NegativeBinomial(3.0, 0.5), dist.ZeroInflatedPoisson(2.0, gate=torch.tensor(0.3)),
        dist.OneHotCategorical(torch.ones(3) / 3), dist.Multinomial(4, torch.ones(3) / 3), dist.Dirichlet(torch.ones(3)),
        dist.DirichletMultinomial(torch.ones(3), 4), dist.MultivariateNormal(torch.zeros(3), torch.eye(3)),
        dist.Poisson(torch.ones(4, 3)).to_event(1), dist.Bernoulli(torch.full((4, 3), 0.2)).to_event(1),
        dist.LKJCholesky(3, 1.0), dist.Wishart(torch.tensor(4.0), torch.eye(3)),
        dist.OrderedLogistic(torch.tensor(0.0), torch.tensor([-1.0, 1.0])), dist.LogNormal(0.0, 1.0).mask(False),
        dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0)),
    ],
    ids=lambda fn: type(fn).__name__,
)  # fmt: skip
def test_a_filler_lies_inside_the_support(fn):
    value = torch.full_like(fn.sample() * 1.0, NAN)
    filled = FilledData(fn, torch.tensor(False), _inside(fn.support, value))
    assert filled.missing(value).all()
    assert filled.log_prob(value).isfinite().all()
    assert filled.log_prob(value).shape == fn.batch_shape


def test_a_program_goes_on_with_the_value_that_it_was_given():
    """A time series whose next mean is the missing value: filling it would be another model, without a word."""

    def model(y, seen):
        mu, before = pyro.sample("mu", dist.Normal(0.0, 1.0)), torch.zeros(())
        for i in range(len(y)):
            with poutine.mask(mask=seen[i]):
                before = pyro.sample(f"y_{i}", dist.Normal(mu * before, 1.0), obs=y[i])

    with pytest.raises(DataError, match=r"'y' has 3 NaN or infinite value\(s\), which reach model site 'y_1'"):
        vi.fit(model, AutoNormal, data=(Y, SEEN), steps=3)


def test_nan_in_covariates_under_a_mask_is_named_with_the_cure():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)), poutine.mask(mask=x.isfinite()):
            pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    check = vi.check(model, AutoNormal, data=(Y, FULL))
    assert type(check.errors[0]) is DataError
    for words in ("argument 'x' has 3 NaN", "site 'y'", "0 * NaN is NaN", "fill them with any finite value"):
        assert words in str(check.errors[0])


def test_a_density_that_is_nan_under_a_mask_without_nan_in_the_data_is_named():
    def model(y, seen):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)), poutine.mask(mask=seen):
            pyro.sample("y", dist.Normal(w * torch.where(seen, 1.0, -1.0).sqrt(), 1.0), obs=y)

    check = vi.check(model, AutoNormal, data=(FULL, SEEN))
    assert type(check.errors[0]) is NonFiniteError
    assert "observed site 'y'" in str(check.errors[0])


@pytest.mark.parametrize("model", [by_handler, by_distribution, by_obs_mask])
def test_missing_values_that_no_mask_leaves_out_are_counted(model):
    seen = SEEN.clone()
    seen[0] = True
    check = vi.check(model, AutoNormal, data=(Y, seen))
    assert type(check.errors[0]) is DataError
    for words in ("argument 'y' has 3 NaN", "site 'y", "1 of its 12 element(s) under no mask", "obs_mask="):
        assert words in str(check.errors[0])


@pytest.mark.parametrize("model", [by_handler, by_obs_mask])
def test_the_drop_in_does_as_pyro_does_and_names_the_cure(model):
    said = []
    for kind in (pyro.infer.SVI, vi.SVI):
        pyro.clear_param_store()
        svi = kind(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
        with pyro.validation_enabled(True), pytest.raises(ValueError, match="within the support") as caught:
            svi.step(Y, SEEN)
        said.append(caught.value)
    assert type(said[0]) is type(said[1])
    assert str(said[0]) == str(said[1])
    assert "torch.where" in said[1].__notes__[0]
    pyro.clear_param_store()
