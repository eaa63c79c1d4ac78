# %% [markdown]
# # Scale: many rows, data in files, many steps
#
# Three things change when data grow: a step sees a minibatch, rows may not fit into memory, and a long run should survive a kill. The model does not change.

# %%
import time

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal

import vipack as vi

rng = np.random.default_rng(0)
num_rows = 200_000
x = rng.normal(size=(num_rows, 5)).astype(np.float32)
weights = np.array([1.0, -2.0, 0.5, 0.0, 1.5], dtype=np.float32)
y = (rng.random(num_rows) < 1 / (1 + np.exp(-x @ weights))).astype(np.float32)


def model(x, y=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(5), 2.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


# %% [markdown]
# ## Minibatches
#
# `batch_size` is all that is needed: the likelihood of a batch is scaled by `num_rows / batch_size`, and a model that could not be scaled is refused. A loop over
# minibatches in Pyro that forgets the scale gives posterior sds that are far too large, without a word.

# %%
fit = vi.fit(model, AutoMultivariateNormal, data=(x, y), batch_size=1_000, steps=4_000, seed=0)
draws = fit.sample(2_000)["w"]
print("means", draws.mean(0).numpy().round(3), "sds", draws.std(0).numpy().round(4))
fit

# %% [markdown]
# Are the sds right? With so many rows the posterior is normal, and its covariance is the inverse of the Fisher information:

# %%
p = 1 / (1 + np.exp(-x @ weights))
print("exact sds, nearly:", np.sqrt(np.diag(np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x))).round(4))

# %% [markdown]
# ## How fast is a step?
#
# Pyro runs the program in Python at every step. vipack captures it once and runs it as compiled code; `fit.engine` says which tier ran, and why no faster one.

# %%
pyro.clear_param_store()
svi = SVI(model, AutoMultivariateNormal(model), pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
batch = (torch.from_numpy(x[:1_000]), torch.from_numpy(y[:1_000]))
svi.step(*batch)
start = time.perf_counter()
for _ in range(200):
    svi.step(*batch)
pyro_step = (time.perf_counter() - start) / 200
print(
    f"a step takes {1e6 * pyro_step:.0f} us in Pyro and {1e6 * fit.seconds / fit.steps:.0f} us in this fit, preparation included"
)
fit.engine

# %% [markdown]
# ## Rows in files
#
# `vi.stream` stands in place of an array. Rows are read in blocks as the fit goes, shuffled in windows, and each is seen once an epoch.

# %%
np.save("x.npy", x)
np.save("y.npy", y)
streamed = vi.fit(
    model, AutoMultivariateNormal, data=(vi.stream("x.npy"), vi.stream("y.npy")), batch_size=1_000, steps=2_000, seed=0
)
print("means", streamed.sample(2_000)["w"].mean(0).numpy().round(3))

# %% [markdown]
# ## Survive a kill
#
# With `checkpoint=` a run writes its state as it goes. The same call after a kill reads the file and goes on, to the very parameters of a run that nothing happened to.

# %%
checkpoint = vi.Checkpoint("run.vipack", every_steps=500)
first = vi.fit(model, AutoMultivariateNormal, data=(x, y), batch_size=1_000, steps=1_000, seed=0, checkpoint=checkpoint)
again = vi.load("run.vipack", model, AutoMultivariateNormal, data=(x, y))
print("steps in the file:", again.steps)

# %% [markdown]
# ## Several processes
#
# `vi.fit(..., distributed=True)` in a script that torchrun starts deals the rows out to processes:
#
#     torchrun --standalone --nproc-per-node 2 script.py
#
# **Next:** [data larger than memory](../streams.md), [many processes](../scale.md), [the engine](../engine.md), [saving](../saving.md).
