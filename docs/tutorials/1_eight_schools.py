# %% [markdown]
# # Eight schools: a first fit, from model to answer
#
# Eight schools measured what coaching does for test scores, each with a known standard error ([Rubin, 1981](https://doi.org/10.3102/10769986006004377)).
# How much do schools differ, and by how much can we tell? You will write the model in Pyro, fit it, ask whether to believe the answer, and use it.

# %%
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import vipack as vi

schools = vi.datasets.eight_schools()
schools.to_frame()

# %% [markdown]
# ## The model
#
# The effects `theta` of the schools scatter around a common mean `mu` with a spread `tau`, and each was observed with noise of known size:
#
#     mu ~ Normal(0, 5),  tau ~ HalfCauchy(5),  z ~ Normal(0, 1),  theta = mu + tau z,  y ~ Normal(theta, sigma)
#
# A `plate` says that schools are independent given `mu` and `tau`. The latents of the schools are standard normal numbers `z`, scaled and shifted
# afterwards (*non-centred*), which guides find easier than `theta ~ Normal(mu, tau)`.


# %%
def model(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


# %% [markdown]
# ## Look before you fit
#
# `vi.check` reads the model and lists its sites: which are latent, which observed, their shapes and plates. Most mistakes (a forgotten `obs=`, a
# missing `.to_event`) show here as an error with a cure.

# %%
vi.check(model, AutoMultivariateNormal, data=schools.columns)

# %% [markdown]
# ## Fit
#
# The guide is the family of distributions in which the posterior is looked for. A full-rank normal can follow correlations between latents.

# %%
fit = vi.fit(model, AutoMultivariateNormal, data=schools.columns, steps=2_000, seed=0)
fit

# %%
vi.plots.losses(fit).figure

# %% [markdown]
# A loss that has become flat says that training is done. It does not say that the answer is right: the best normal distribution may still be a bad one.
#
# ## Can we believe it?
#
# `diagnose` draws from the guide and compares its density with the model's, lets short chains run from the draws, and searches for other modes.

# %%
fit.diagnose()

# %% [markdown]
# CORRECTED: the guide's own draws are slightly off, but draws resampled by their importance weights can be believed. From now on every answer of the fit uses them,
# and says so.
#
# ## Use it

# %%
fit.summary().round(1)

# %%
vi.plots.posterior(fit, names=["mu", "tau", "theta"])[0].figure

# %%
theta = fit.sample(4_000)["theta"]
best = torch.bincount(theta.argmax(1), minlength=8) / len(theta)
print("probability that a school gains most:", [round(share, 2) for share in best.tolist()])

# %% [markdown]
# The school with the largest observed effect (28 points) is the best one with a probability of only about a fifth: *partial pooling* pulls it towards the others.
#
# Would the model produce data like those that were observed? Draw replications and look:

# %%
vi.plots.predictive(fit)[0].figure

# %% [markdown]
# ## Was the guide the right one?
#
# Compare it with a guide of independent latents. The ELBO (nats, higher is better) ranks them, with standard errors from draws that they share.

# %%
independent = vi.fit(model, AutoNormal, data=schools.columns, steps=2_000, seed=0)
table = vi.compare({"full rank": fit, "independent": independent})
table[["elbo", "elbo_diff", "diff_se", "khat", "verdict"]].round(2)

# %% [markdown]
# And to send it to a colleague, write a page that stands alone:

# %%
fit.report("eight_schools.html")

# %% [markdown]
# **Next:** [a hierarchical regression from a CSV file](2_regression.md), [comparing guides](5_comparing_guides.md), or [what to do when it says DISTRUST](../distrust.md).
