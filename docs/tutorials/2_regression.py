# %% [markdown]
# # A hierarchical regression, from a CSV file to a report
#
# You have a table: forty clinics, some with many patients and some with few, a dose and a response. How does the response depend on the dose, how much do clinics
# differ, and what will a new patient's response be?
#
# ## The table
#
# Here the table is simulated, so that the truth is known at the end; yours comes from a file in the same way.

# %%
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch

import vipack as vi

rng = np.random.default_rng(0)
clinic = rng.choice(40, 600, p=rng.dirichlet(np.ones(40)))
dose = rng.uniform(0.0, 10.0, 600)
levels, slopes = rng.normal(20.0, 4.0, 40), rng.normal(1.5, 0.5, 40)
response = levels[clinic] + slopes[clinic] * dose + rng.normal(0.0, 3.0, 600)
pd.DataFrame({"clinic": clinic, "dose": dose.round(2), "response": response.round(1)}).to_csv(
    "clinics.csv", index=False
)

# %%
table = pd.read_csv("clinics.csv")
table.head()

# %% [markdown]
# ## From columns to arguments
#
# A model takes arrays. Codes from 0 index the clinics; numbers are best centred and scaled, so that priors of size one make sense.

# %%
codes, names = pd.factorize(table["clinic"])
dose_mean, dose_sd = table["dose"].mean(), table["dose"].std()
response_mean, response_sd = table["response"].mean(), table["response"].std()
data = {
    "clinic": torch.tensor(codes),
    "dose": torch.tensor(((table["dose"] - dose_mean) / dose_sd).to_numpy(), dtype=torch.float32),
    "response": torch.tensor(((table["response"] - response_mean) / response_sd).to_numpy(), dtype=torch.float32),
}
fixed = {"num_clinics": len(names)}

# %% [markdown]
# ## The model
#
# Every clinic has a level and a slope of its own. Those of all clinics scatter around common means, with spreads that the data decide: clinics with few patients
# borrow from the others. `data` has a row for each patient; `fixed` is passed as it is.


# %%
def model(clinic, dose, num_clinics, response=None):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))  # of level and slope
    spread = pyro.sample("spread", dist.HalfNormal(1.0).expand([2]).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("clinics", num_clinics):
        effect = pyro.sample("effect", dist.Normal(mean, spread).to_event(1))
    with pyro.plate("patients", len(dose)):
        expected = effect[clinic, 0] + effect[clinic, 1] * dose
        pyro.sample("response", dist.Normal(expected, noise), obs=response)


# %% [markdown]
# ## Fit
#
# `vi.guides.Structured` is made for hierarchies: its effects of clinics depend on the means and spreads. `StickingTheLanding` is an objective whose noise
# fades as the guide comes near the posterior. Leave `steps=` out, and the run ends when the loss no longer falls.

# %%
loss = vi.objectives.StickingTheLanding(16)
fit = vi.fit(model, vi.guides.Structured, data=data, fixed=fixed, loss=loss, seed=0)
fit

# %%
fit.diagnose()

# %% [markdown]
# TRUST for means and standard deviations, with its reservations about tails. (Clinics have 15 patients each on average. With two or three the same model would get
# DISTRUST, and would better be written with standard normal latents, as in [eight schools](1_eight_schools.md).)

# %%
fit.summary().loc[["mean[0]", "mean[1]", "spread[0]", "spread[1]", "noise"]].round(2)

# %% [markdown]
# ## In the table's own numbers

# %%
draws = fit.sample(4_000)
slope = draws["mean"][:, 1] * float(response_sd / dose_sd)
scatter = draws["spread"][:, 1] * float(response_sd / dose_sd)
print(f"points of response a unit of dose: {slope.mean():.2f} +- {slope.std():.2f}  (simulated with 1.5)")
print(f"sd of that among clinics:          {scatter.mean():.2f} +- {scatter.std():.2f}  (simulated with 0.5)")

# %% [markdown]
# How far did clinics borrow? Least squares for each clinic alone is wild where there are few patients; the hierarchical slopes are not.

# %%
import matplotlib.pyplot as plt

counts = np.bincount(codes, minlength=len(names))
alone = [
    np.polyfit(table["dose"][codes == k], table["response"][codes == k], 1)[0] if counts[k] > 2 else np.nan
    for k in range(len(names))
]
pooled = draws["effect"][:, :, 1].mean(0).numpy() * response_sd / dose_sd
truth = slopes[names]
figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.plot(counts, np.abs(alone - truth), "o", color="tab:gray", label="each clinic alone")
ax.plot(counts, np.abs(pooled - truth), "o", color="tab:blue", label="hierarchical")
ax.set(xscale="log", xlabel="patients of the clinic", ylabel="error of its slope", ylim=(0, 2))
_ = ax.legend()
# %% [markdown]
# ## Predict new patients
#
# Give what the model takes without the response. These two patients are in the first clinic, at doses 2 and 8.

# %%
new = {
    "clinic": torch.tensor([0, 0]),
    "dose": torch.tensor([(d - dose_mean) / dose_sd for d in (2.0, 8.0)], dtype=torch.float32),
}
predicted = fit.predict(2_000, data=new, fixed=fixed)["response"] * float(response_sd) + float(response_mean)
for d, row in zip((2, 8), predicted.T, strict=True):
    low, high = np.quantile(row.numpy(), [0.05, 0.95])
    print(f"dose {d}: {row.mean():.1f}, and 90% of such patients between {low:.1f} and {high:.1f}")

# %% [markdown]
# ## Write it up
#
# One page with the verdict, posterior, predictive check, model graph, training and code, which can be mailed as it is. `fit.save` keeps the fit itself.

# %%
fit.save("clinics.vipack")
page = fit.report("clinics.html", title="Forty clinics")
print(page, round(page.stat().st_size / 1000), "kB")

# %% [markdown]
# **Next:** [reports](../report.md), [saving](../saving.md), [the same from the command line](../cli.md).
