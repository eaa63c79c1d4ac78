import pytest
import scipy.stats
import torch

from vipack.errors import SupportError, UsageError
from vipack.vae.likelihoods import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial

DOUBLE = {"dtype": torch.float64}
LOG_RATE = torch.tensor([[0.3, -1.0, 2.0]], **DOUBLE)
GATE = torch.tensor([[0.4, -3.0, 1.0]], **DOUBLE)
CONCENTRATION = torch.tensor([0.7, 3.0, 20.0], **DOUBLE)


def with_concentration(likelihood):
    likelihood = likelihood.double()
    likelihood.log_concentration.data.copy_(CONCENTRATION.log())
    return likelihood


def reference(x, rate, gate=None):
    p = CONCENTRATION / (CONCENTRATION + rate)
    mass = scipy.stats.nbinom(CONCENTRATION.numpy(), p.numpy()).pmf(x.numpy())
    if gate is not None:
        share = gate.sigmoid().numpy()
        mass = (1 - share) * mass + share * (x == 0).numpy()
    return torch.as_tensor(mass).log().sum(-1)


def test_negative_binomial_density_is_that_of_scipy():
    x = torch.tensor([[0.0, 2.0, 11.0]], **DOUBLE)
    free = with_concentration(NegativeBinomial(3, library=False))
    torch.testing.assert_close(free(LOG_RATE[:, None], x).log_prob(x), reference(x, LOG_RATE.exp()))
    shared = with_concentration(NegativeBinomial(3))
    rate = 13 * LOG_RATE.softmax(-1)
    torch.testing.assert_close(shared(LOG_RATE[:, None], x).log_prob(x), reference(x, rate))


def test_zero_inflated_density_is_the_mixture():
    likelihood = with_concentration(ZeroInflatedNegativeBinomial(3))
    parameters = torch.stack([LOG_RATE, GATE], 1)
    for x in (torch.tensor([[0.0, 2.0, 11.0]], **DOUBLE), torch.tensor([[5.0, 0.0, 0.0]], **DOUBLE)):
        rate = x.sum() * LOG_RATE.softmax(-1)
        torch.testing.assert_close(likelihood(parameters, x).log_prob(x), reference(x, rate, GATE))


@pytest.mark.parametrize("kind", [Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial])
def test_probabilities_sum_to_one(kind):
    likelihood = kind(1, library=False).double()
    x = torch.arange(3_000.0, **DOUBLE)[:, None]
    p = likelihood(torch.full((3_000, *likelihood.parameter_shape), 1.2, **DOUBLE), x)
    assert float(p.log_prob(x).exp().sum().detach()) == pytest.approx(1, abs=1e-9)


def test_large_counts_keep_their_digits_in_float32():
    x = torch.tensor([[3e6, 2e6, 40.0]])
    single, double = NegativeBinomial(3, library=False), NegativeBinomial(3, library=False).double()
    log_rate = torch.tensor([[[14.9, 14.5, 3.7]]])
    found = single(log_rate, x).log_prob(x)
    expected = double(log_rate.double(), x.double()).log_prob(x.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0.0)


def test_a_library_size_is_the_observation_s_own_total():
    likelihood = NegativeBinomial(3)
    x = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [0.0, 0.0, 0.0]])
    mean = likelihood(torch.zeros(3, 1, 3), x).mean
    torch.testing.assert_close(mean.sum(-1), torch.tensor([6.0, 60.0, 1.0]))
    likelihood.initialize(x)
    torch.testing.assert_close(likelihood(torch.zeros(1, 1, 3)).mean.sum(-1), torch.tensor([6.0]))  # the median


def test_initialize_finds_shares_and_overdispersion():
    torch.manual_seed(0)
    shares, total = torch.tensor([0.5, 0.3, 0.2]), 1_000.0
    gamma = torch.distributions.Gamma(4.0, 4.0).sample((4_000, 3))
    x = torch.poisson(total * shares * gamma)
    likelihood = NegativeBinomial(3, library=False)
    parameters = likelihood.initialize(x)
    torch.testing.assert_close(parameters[0].exp(), total * shares, rtol=0.05, atol=1.0)
    torch.testing.assert_close(likelihood.log_concentration.exp(), torch.full((3,), 4.0), rtol=0.15, atol=0.0)


def test_what_is_no_count_is_refused():
    for bad in (0.5, -1.0):
        with pytest.raises(SupportError, match=rf"whole counts from 0 up, found \[{bad}\]; pass the raw counts"):
            NegativeBinomial(2).check(torch.tensor([[1.0, bad]]))
    with pytest.raises(UsageError, match="library=True shares the total"):
        NegativeBinomial((2, 3))
    assert NegativeBinomial((2, 3), library=False).shape == (2, 3)
