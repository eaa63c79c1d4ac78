# %% [markdown]
# # Comparing guides
#
# The same model and data, four guides. Which of them can be believed, and what does a richer one cost?
#
# ## A posterior that is not normal
#
# Only `a + b²` is observed, so the posterior of `a` and `b` lies along a parabola.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import vipack as vi

y = 1.0 + torch.randn(20, generator=torch.Generator().manual_seed(0))


def model(y):
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(a + b.square(), 1.0), obs=y)


# %% [markdown]
# Two dimensions can be drawn. This is the exact posterior on a grid, before any guide:

# %%
a, b = torch.meshgrid(torch.linspace(-2, 2.5, 150), torch.linspace(-2.2, 2.2, 150), indexing="xy")
log_p = dist.Normal(0.0, 1.0).log_prob(a) + dist.Normal(0.0, 1.0).log_prob(b)
log_p = log_p + dist.Normal((a + b.square())[..., None], 1.0).log_prob(y).sum(-1)
density = (log_p - log_p.max()).exp()

# %% [markdown]
# ## Four guides
#
# Each is a class, or an instance made for the model.

# %%
guides = {
    "independent": AutoNormal,
    "full rank": AutoMultivariateNormal,
    "mixture": vi.guides.Mixture(model, [AutoMultivariateNormal] * 4),
    "flow": vi.guides.Flow,
}
loss = vi.objectives.StickingTheLanding(16)
fits = {name: vi.fit(model, guide, data=y, loss=loss, steps=1_500, seed=0) for name, guide in guides.items()}

# %%
table = vi.compare(fits)
table[["elbo", "elbo_diff", "diff_se", "khat", "seconds", "verdict"]].round(3)

# %% [markdown]
# - `elbo` is the lower bound of the log evidence (nats); `elbo_diff` and `diff_se` compare each guide with the best by the draws that they share.
# - `khat` says how heavy the tail of the importance weights is: above 0.7, a few draws have all the weight.
# - `verdict` says what may be believed.

# %%
vi.plots.compare(table).figure

# %% [markdown]
# ## See why
#
# Grey is the exact posterior, blue are draws of the guide. `resample=False` shows the guide's own draws, whatever the verdict.

# %%
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained", sharex=True, sharey=True)
for ax, (name, fit) in zip(axes, fits.items(), strict=True):
    draws = fit.sample(400, resample=False)
    ax.contourf(a, b, density, levels=np.linspace(0.05, 1, 6), cmap="Greys")
    ax.plot(draws["a"], draws["b"], ".", ms=2, color="tab:blue")
    ax.set(title=f"{name}: {fit.verdict.value}", xlabel="a", xlim=(-2, 2.5), ylim=(-2.2, 2.2))
    ax.title.set_size(9)

# %% [markdown]
# ## Or do not choose
#
# Without a guide, a ladder climbs from a Gaussian to a flow, and keeps a stage only for what it gains:

# %%
ladder = vi.fit(model, data=y, seed=0)
ladder.stages

# %%
ladder.diagnose()

# %% [markdown]
# **Next:** [choosing a guide](../choosing-a-guide.md), [guides](../guides.md), [the ladder](../ladder.md), [when it says DISTRUST](../distrust.md).
