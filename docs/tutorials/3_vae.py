# %% [markdown]
# # A variational autoencoder on digits, from the formulas
#
# A variational autoencoder is a Pyro model and a guide like any other: the model draws a latent `z` and decodes it, the guide encodes an image into a
# distribution of `z`.
#
#     z ~ p(z) = Normal(0, I)        x ~ p(x | z) = Bernoulli(decoder(z))        q(z | x) = Normal(mu(x), sigma(x))

# %%
import pyro
import pyro.distributions as dist
import torch
from torch import nn

import vipack as vi

digits = vi.datasets.digits()
x = torch.bernoulli(torch.from_numpy(digits.rows), generator=torch.Generator().manual_seed(0))
train, held_out = x[:1500], x[1500:]
vi.plots.images(train[:10].reshape(-1, 8, 8), columns=10)[0].figure

# %% [markdown]
# ## The model is the generative process

# %%
torch.manual_seed(0)  # of the networks' first weights
decoder = nn.Sequential(nn.Linear(8, 128), nn.SiLU(), nn.Linear(128, 64))
encoder = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 16))


def model(x):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)


# %% [markdown]
# ## Why a guide is needed
#
# The probability of an image is an integral over all z, `p(x) = ∫ p(x | z) p(z) dz`. Averaging over draws of the prior is hopeless: next to none of them explain a given image.
# An encoder proposes those that do, and Jensen's inequality gives the lower bound that is maximised:
#
#     log p(x) >= E_q[ log p(x | z) ] - KL( q(z | x) || p(z) )     (the ELBO)
#
# A draw `z = mu + sigma * eps` with `eps ~ Normal(0, I)` is differentiable in `mu` and `sigma` (the *reparametrisation trick*); `pyro.sample` in a guide does that.


# %%
def guide(x):
    pyro.module("encoder", encoder)
    with pyro.plate("data", len(x)):
        mu, log_sigma = encoder(x).chunk(2, dim=-1)
        pyro.sample("z", dist.Normal(mu, log_sigma.exp()).to_event(1))


# %% [markdown]
# ## Train on minibatches, and watch held-out images

# %%
fit = vi.fit(
    model, guide, data=train, batch_size=100, steps=2_000, validation=held_out, stop=vi.EarlyStopping(), seed=0
)
fit.stopped

# %%
vi.plots.losses(fit).figure

# %% [markdown]
# ## How good is it?
#
# `log_evidence` estimates log p(x) of images that the fit has not seen, by importance sampling with the encoder. It is comparable between models; an ELBO is only a bound.

# %%
fit.log_evidence(200, data=held_out)

# %%
vi.vae.evaluate(fit, held_out, num_particles=100, generated=500)

# %% [markdown]
# ## See it: images, their reconstructions, and new ones

# %%
reconstructed = fit.reconstruct(held_out[:10])["x"].reshape(-1, 8, 8)
vi.plots.images(held_out[:10].reshape(-1, 8, 8), reconstructed, titles=("held out", "reconstructed"), columns=5)[
    0
].figure

# %% [markdown]
# New images take two steps: `z` from the prior, `x` from p(x | z). The encoder is not called.

# %%
fit.to_pyro()  # copies the trained weights into the networks
with torch.no_grad():
    expected = decoder(torch.randn(20, 8, generator=torch.Generator().manual_seed(1))).sigmoid()
vi.plots.images(expected.reshape(-1, 8, 8), columns=10)[0].figure

# %% [markdown]
# **Next:** [builders](../vae.md) make such pairs from networks, likelihoods, priors and posteriors; [judging](../vae-judging.md) has collapse, copies and annealed evidence;
# [formula by formula](../vae-formulas.md) puts a plain autoencoder beside it.
