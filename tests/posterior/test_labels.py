"""Encodings of discrete latents are the probabilities of their classes."""

import pyro
import pyro.distributions as dist
import torch

import vipack as vi

X = torch.randn(30, generator=torch.Generator().manual_seed(0))


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        label = pyro.sample("label", dist.Categorical(torch.ones(3) / 3))
        pyro.sample("x", dist.Normal(z + label, 1.0), obs=x)


def guide(x, chained):
    scale = pyro.param("scale", torch.tensor(0.1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x, scale.abs()))
        by = z if chained else x
        pyro.sample("label", dist.Categorical(logits=torch.stack([-by, 0 * by, by], -1)))


def encoded(chained):
    fit = vi.fit(model, lambda x: guide(x, chained), data=X, steps=0)
    return fit.encode(X[:10])


def expected(by):
    return torch.stack([-by, 0 * by, by], -1).softmax(-1)


def test_they_are_exact_where_no_draw_is_read():
    encoding = encoded(chained=False)
    torch.testing.assert_close(encoding.mean["label"], expected(X[:10]))
    torch.testing.assert_close(encoding.sd["label"] ** 2, expected(X[:10]) * (1 - expected(X[:10])))
    assert encoding.exact == {"z", "label"}


def test_they_are_means_over_draws_elsewhere():
    encoding = encoded(chained=True)
    draws = X[:10] + 0.1 * torch.randn(20_000, 10)
    assert encoding.mean["label"].shape == (10, 3)
    torch.testing.assert_close(encoding.mean["label"].sum(-1), torch.ones(10))
    assert (encoding.mean["label"] - expected(draws).mean(0)).abs().max() < 4 * 0.5 / 200**0.5
    assert encoding.exact == {"z"}
