"""Every distribution may stand in the guide of a model that has it, and one that reaches further may not."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical
from torch.distributions.transforms import ExpTransform, SigmoidTransform

import vipack as vi
from vipack.errors import ProgramWarning, SupportError

zuko = pytest.importorskip("zuko")


class LogRelaxed(ExpRelaxedCategorical, TorchDistributionMixin):
    """Torch's, as a Pyro distribution."""


class LogitRelaxed(LogitRelaxedBernoulli, TorchDistributionMixin):
    """Torch's, as a Pyro distribution."""


class Unsaid(dist.Normal):
    """A distribution whose support is a property that raises."""

    @property
    def support(self):
        raise NotImplementedError


X = torch.randint(0, 2, (24, 5), generator=torch.Generator().manual_seed(0)).float()
HALF = torch.tensor(0.5)
PROBS = torch.tensor([0.2, 0.3, 0.5])
ONES, ZEROS, EYE = torch.ones(3), torch.zeros(3), torch.eye(3)
EVERY = {
    "AffineBeta": lambda: dist.AffineBeta(2.0, 3.0, 1.0, 4.0),
    "AsymmetricLaplace": lambda: dist.AsymmetricLaplace(0.0, 1.0, 2.0),
    "Bernoulli": lambda: dist.Bernoulli(0.3),
    "Beta": lambda: dist.Beta(2.0, 2.0),
    "BetaBinomial": lambda: dist.BetaBinomial(2.0, 2.0, 5),
    "Binomial": lambda: dist.Binomial(5, 0.3),
    "Categorical": lambda: dist.Categorical(PROBS),
    "Cauchy": lambda: dist.Cauchy(0.0, 1.0),
    "Chi2": lambda: dist.Chi2(3.0),
    "ContinuousBernoulli": lambda: dist.ContinuousBernoulli(0.3),
    "Delta": lambda: dist.Delta(HALF),
    "Dirichlet": lambda: dist.Dirichlet(ONES),
    "DirichletMultinomial": lambda: dist.DirichletMultinomial(ONES, 5),
    "Exponential": lambda: dist.Exponential(1.0),
    "FisherSnedecor": lambda: dist.FisherSnedecor(3.0, 4.0),
    "FoldedDistribution": lambda: dist.FoldedDistribution(dist.Normal(0.0, 1.0)),
    "Gamma": lambda: dist.Gamma(2.0, 1.0),
    "GammaPoisson": lambda: dist.GammaPoisson(2.0, 1.0),
    "Geometric": lambda: dist.Geometric(0.3),
    "Gumbel": lambda: dist.Gumbel(0.0, 1.0),
    "HalfCauchy": lambda: dist.HalfCauchy(1.0),
    "HalfNormal": lambda: dist.HalfNormal(1.0),
    "InverseGamma": lambda: dist.InverseGamma(2.0, 1.0),
    "Kumaraswamy": lambda: dist.Kumaraswamy(2.0, 2.0),
    "LKJ": lambda: dist.LKJ(3, 1.0),
    "LKJCholesky": lambda: dist.LKJCholesky(3, 1.0),
    "Laplace": lambda: dist.Laplace(0.0, 1.0),
    "LogNormal": lambda: dist.LogNormal(0.0, 1.0),
    "LogRelaxed": lambda: LogRelaxed(HALF, PROBS),
    "LogRelaxed, exponentiated": lambda: dist.TransformedDistribution(LogRelaxed(HALF, PROBS), [ExpTransform()]),
    "Logistic": lambda: dist.Logistic(0.0, 1.0),
    "LogisticNormal": lambda: dist.LogisticNormal(torch.zeros(2), torch.ones(2)),
    "LogitRelaxed": lambda: LogitRelaxed(HALF, torch.tensor(0.3)),
    "LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(ZEROS, torch.ones(3, 1), ONES),
    "MaskedDistribution": lambda: dist.Normal(0.0, 1.0).mask(True),
    "MixtureOfDiagNormals": lambda: dist.MixtureOfDiagNormals(torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2)),
    "MixtureSameFamily": lambda: dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0)),
    "Multinomial": lambda: dist.Multinomial(5, PROBS),
    "MultivariateNormal": lambda: dist.MultivariateNormal(ZEROS, EYE),
    "MultivariateStudentT": lambda: dist.MultivariateStudentT(torch.tensor(4.0), ZEROS, EYE),
    "NegativeBinomial": lambda: dist.NegativeBinomial(5, 0.3),
    "Normal": lambda: dist.Normal(0.0, 1.0),
    "OMTMultivariateNormal": lambda: dist.OMTMultivariateNormal(ZEROS, EYE),
    "OneHotCategorical": lambda: dist.OneHotCategorical(PROBS),
    "OneHotCategoricalStraightThrough": lambda: dist.OneHotCategoricalStraightThrough(PROBS),
    "OneOneMatching": lambda: dist.OneOneMatching(torch.zeros(3, 3)),
    "OneTwoMatching": lambda: dist.OneTwoMatching(torch.zeros(4, 2)),
    "OrderedLogistic": lambda: dist.OrderedLogistic(torch.tensor(0.0), torch.tensor([-1.0, 1.0])),
    "Pareto": lambda: dist.Pareto(1.0, 3.0),
    "Poisson": lambda: dist.Poisson(3.0),
    "ProjectedNormal": lambda: dist.ProjectedNormal(ONES),
    "RelaxedBernoulli": lambda: dist.RelaxedBernoulli(HALF, torch.tensor(0.3)),
    "RelaxedBernoulli, several": lambda: dist.RelaxedBernoulli(HALF, PROBS).to_event(1),
    "RelaxedBernoulliStraightThrough": lambda: dist.RelaxedBernoulliStraightThrough(HALF, torch.tensor(0.3)),
    "RelaxedOneHotCategorical": lambda: dist.RelaxedOneHotCategorical(HALF, PROBS),
    "RelaxedOneHotCategorical, several": lambda: dist.RelaxedOneHotCategorical(HALF, PROBS.expand(2, 3)).to_event(1),
    "RelaxedOneHotCategoricalStraightThrough": lambda: dist.RelaxedOneHotCategoricalStraightThrough(HALF, PROBS),
    "SineBivariateVonMises": lambda: dist.SineBivariateVonMises(0.0, 0.0, 1.0, 1.0, 0.1),
    "SkewLogistic": lambda: dist.SkewLogistic(0.0, 1.0),
    "SoftAsymmetricLaplace": lambda: dist.SoftAsymmetricLaplace(0.0, 1.0, 2.0),
    "SoftLaplace": lambda: dist.SoftLaplace(0.0, 1.0),
    "StableWithLogProb": lambda: dist.StableWithLogProb(1.5, 0.1),
    "StudentT": lambda: dist.StudentT(3.0),
    "TruncatedPolyaGamma": lambda: dist.TruncatedPolyaGamma(torch.tensor(1.0)),
    "Uniform": lambda: dist.Uniform(1.0, 2.0),
    "Unsaid": lambda: Unsaid(0.0, 1.0),
    "Unsaid, several": lambda: Unsaid(ZEROS, 1.0).to_event(1),
    "VonMises": lambda: dist.VonMises(0.0, 1.0),
    "Weibull": lambda: dist.Weibull(1.0, 2.0),
    "Wishart": lambda: dist.Wishart(torch.tensor(50.0), EYE),
    "ZeroInflatedNegativeBinomial": lambda: dist.ZeroInflatedNegativeBinomial(5.0, probs=HALF, gate=HALF),
    "ZeroInflatedPoisson": lambda: dist.ZeroInflatedPoisson(3.0, gate=HALF),
    "a flow of zuko's": lambda: ZukoToPyro(zuko.flows.MAF(3, hidden_features=(8,))()),
}  # fmt: skip
# Of the guide, of the model.
RIGHT = [
    ("RelaxedOneHotCategorical", "Dirichlet"), ("Dirichlet", "RelaxedOneHotCategorical"),
    ("LogRelaxed, exponentiated", "Dirichlet"), ("LogisticNormal", "Dirichlet"),
    ("RelaxedOneHotCategorical, several", "RelaxedOneHotCategorical, several"),
    ("RelaxedBernoulli", "Beta"), ("Beta", "RelaxedBernoulli"), ("LogitRelaxed", "Normal"), ("OneHotCategoricalStraightThrough", "OneHotCategorical"),
    ("a flow of zuko's", "MultivariateNormal"), ("MultivariateNormal", "a flow of zuko's"), ("Unsaid", "Normal"),
]  # fmt: skip
WRONG = [
    ("Normal", "HalfNormal"), ("Normal", "Beta"), ("LogNormal", "Uniform"), ("MultivariateNormal", "Dirichlet"),
    ("Poisson", "Bernoulli"), ("Categorical", "Bernoulli"), ("AffineBeta", "Beta"), ("Beta", "AffineBeta"),
    ("MixtureSameFamily", "HalfNormal"), ("LogRelaxed", "Dirichlet"), ("LogitRelaxed", "Beta"),
    ("RelaxedOneHotCategorical", "OneHotCategorical"), ("RelaxedBernoulli", "Bernoulli"), ("Normal", "Poisson"),
]  # fmt: skip


def checked(guide_fn, model_fn):
    def model(x):
        pyro.sample("z", model_fn())
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Bernoulli(0.5).expand([5]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("z", guide_fn())

    return vi.check(model, guide, data=X)


@pytest.mark.parametrize("name", EVERY)
def test_no_distribution_is_refused_for_itself(name):
    assert checked(EVERY[name], EVERY[name]).errors == ()


@pytest.mark.parametrize(("of_guide", "of_model"), RIGHT)
def test_one_on_the_same_support_is_not_refused(of_guide, of_model):
    assert checked(EVERY[of_guide], EVERY[of_model]).errors == ()


@pytest.mark.parametrize(("of_guide", "of_model"), WRONG)
def test_one_that_reaches_further_is_refused(of_guide, of_model):
    found = checked(EVERY[of_guide], EVERY[of_model])
    assert [type(error) for error in found.errors] == [SupportError]


def test_a_transform_does_not_hide_what_reaches_further():
    def log_scale():
        return dist.TransformedDistribution(LogRelaxed(HALF, PROBS), [SigmoidTransform()])

    assert isinstance(checked(log_scale, EVERY["Dirichlet"]).errors[0], SupportError)


def test_a_relaxed_guide_of_a_discrete_site_is_told_what_goes_together():
    message = str(checked(EVERY["RelaxedOneHotCategorical"], EVERY["OneHotCategorical"]).errors[0])
    assert "give the site RelaxedOneHotCategorical as its prior in the model too" in message
    assert "OneHotCategoricalStraightThrough" in message


@pytest.mark.parametrize(
    ("of_guide", "of_model", "words"),
    [
        ("RelaxedOneHotCategoricalStraightThrough", "OneHotCategorical", "no bound on the evidence"),
        ("RelaxedBernoulliStraightThrough", "Bernoulli", "no bound on the evidence"),
        ("RelaxedOneHotCategoricalStraightThrough", "RelaxedOneHotCategoricalStraightThrough", "fit.elbo, diagnose"),
    ],
)
def test_rounded_draws_are_let_through_with_a_warning(of_guide, of_model, words):
    found = checked(EVERY[of_guide], EVERY[of_model])
    assert found.errors == ()
    assert [type(warning) for warning in found.warnings] == [ProgramWarning]
    assert words in str(found.warnings[0])


def amortised(prior, posterior, size=3):
    """A VAE whose latent has this prior, and in the guide what `posterior` makes of the encoder's outputs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = nn.Linear(5, 4), nn.Linear(size, 5)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", prior())
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", posterior(encoder(x)))

    return model, guide


def of_zuko():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = zuko.flows.MAF(3, context=4, hidden_features=(8,))
        prior = zuko.flows.MAF(3, hidden_features=(8,))

    def registered(name, module):
        pyro.module(name, module)
        return module

    return amortised(
        lambda: ZukoToPyro(registered("prior", prior)()), lambda h: ZukoToPyro(registered("flow", flow)(h))
    )


PAIRS = {
    "Gumbel-softmax": lambda: amortised(
        lambda: dist.RelaxedOneHotCategorical(HALF, logits=ZEROS),
        lambda h: dist.RelaxedOneHotCategorical(HALF, logits=h[:, :3]),
    ),
    "relaxed Bernoulli": lambda: amortised(
        lambda: dist.RelaxedBernoulli(HALF, logits=ZEROS).to_event(1),
        lambda h: dist.RelaxedBernoulli(HALF, logits=h[:, :3]).to_event(1),
    ),
    "flows of zuko's": of_zuko,
}


@pytest.mark.parametrize("name", PAIRS)
def test_it_is_trained_and_judged(name):
    fits = [
        vi.fit(*PAIRS[name](), data=X, batch_size=8, steps=20, engine=engine, progress=False)
        for engine in ("eager", "traced")
    ]
    torch.testing.assert_close(fits[0].params, fits[1].params, rtol=1e-3, atol=1e-4)
    assert fits[1].engine.tier == "traced"
    bound = fits[0].elbo(200)
    loss = fits[0].losses[-10:].mean()
    assert abs(bound.value + loss) < 0.1 * loss  # the losses of batches scatter about it


@pytest.mark.parametrize("name", ["RelaxedOneHotCategoricalStraightThrough", "RelaxedBernoulliStraightThrough"])
def test_rounded_draws_are_trained_in_minibatches(name):
    made = getattr(dist, name)
    extra = 0 if "OneHot" in name else 1
    pair = amortised(
        lambda: made(HALF, logits=ZEROS).to_event(extra), lambda h: made(HALF, logits=h[:, :3]).to_event(extra)
    )
    with pytest.warns(ProgramWarning, match="rounds its draws"):
        fit = vi.fit(*pair, data=X, batch_size=8, steps=10, progress=False)
    assert torch.tensor(fit.losses).isfinite().all()
