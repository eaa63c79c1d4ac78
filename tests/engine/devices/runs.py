"""Runs of programs on the host and on a device: ``python -m tests.engine.devices.runs DEVICE OUT PART ...``.

DEVICE is "cuda", or the compiled pretend device; a PART is "journey", "ladder" or "tiers", the last also as
"tiers=CASE;CASE" for some programs only. Results are written as JSON; a run that raised leaves its traceback there.
"""

from __future__ import annotations

import functools
import json
import sys
import traceback
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoLowRankMultivariateNormal, AutoMultivariateNormal, AutoNormal
from torch import nn
from torch.distributions import constraints
from torch.utils.data import DataLoader, TensorDataset

import vipack as vi

STEPS = 16
Y = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18])
X = torch.randn(120, 3, generator=torch.Generator().manual_seed(0))
CLASS = (X.sum(1) > 0).float()
SLOW_SGD = functools.partial(torch.optim.SGD, lr=3e-3)
HELD = torch.ones(8)


def schools(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.LogNormal(0.0, 1.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * theta, sigma), obs=y)


def logistic(x, y):
    weights = pyro.sample("weights", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def mixture(x):
    shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2)))
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("rows", len(x)):
        k = pyro.sample("k", dist.Categorical(shares), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x)


def rate(x):
    r = pyro.sample("r", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Exponential(r), obs=x)


def gamma_guide(x):
    pyro.sample("r", dist.Gamma(pyro.param("a", torch.tensor(2.0), constraint=constraints.positive), 1.0))


class Networks(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4))
        self.decoder = nn.Linear(2, 3)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("rows", len(x)):
            out = self.encoder(x)
            pyro.sample("z", dist.Normal(out[:, :2], out[:, 2:].exp()).to_event(1))


def holds(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mu, HELD).to_event(1), obs=y)


def crosses_over(y):
    """A covariance that stops being one as its parameter grows past 1."""
    rho = pyro.param("rho", torch.tensor(0.9))
    covariance = torch.eye(2) + rho * (1 - torch.eye(2))
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.MultivariateNormal(z.expand(2), covariance_matrix=covariance), obs=y)


def diverged(tier, device):
    """What is said of a factor that fails in the middle of a run, when steps are no longer taken eagerly."""
    fixed = {"y": torch.tensor([3.0, 3.0])}
    fitted = vi.fit(
        crosses_over, AutoNormal, data={}, fixed=fixed, engine=tier, device=device, steps=40, optim=SLOW_SGD
    )
    return {
        "losses": fitted.losses.tolist(),
        "tier": ", ".join(fitted.engine.steps),
        "reason": str(fitted.stopped),
        "devices": [],
    }


def fit(model, guide, data, tier, device, **options):
    fitted = vi.fit(model, guide, data=data, seed=0, engine=tier, device=device, **{"steps": STEPS, **options})
    return {
        "losses": fitted.losses.tolist(),
        "tier": fitted.engine.tier,
        "reason": fitted.engine.reason,
        "devices": sorted({value.device.type for value in fitted.params.values()}),
    }


def svi(tier, device):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    data = Y.to(device), SIGMA.to(device)
    with torch.device(device):
        made = vi.SVI(schools, AutoNormal(schools), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(), engine=tier)
        losses = [*made.run(STEPS - 2, *data), made.step(*data), made.step(*data)]
    return {"losses": list(map(float, losses)), "tier": made.engine.tier, "reason": made.engine.reason, "devices": []}


def cases():
    networks = Networks()
    loader = DataLoader(TensorDataset(X, CLASS), batch_size=40, shuffle=True)
    blocked = AutoNormal(poutine.block(mixture, hide=["k"]))
    return {
        "mean-field": (schools, AutoNormal, (Y, SIGMA), {}),
        "full-rank": (schools, AutoMultivariateNormal, (Y, SIGMA), {"loss": TraceMeanField_ELBO()}),
        "low-rank": (schools, AutoLowRankMultivariateNormal, (Y, SIGMA), {"loss": Trace_ELBO(num_particles=2)}),
        "flow": (schools, AutoIAFNormal, (Y, SIGMA), {}),
        "batches": (logistic, AutoNormal, (X, CLASS), {"batch_size": 20}),
        "float64": (logistic, AutoNormal, (X.double(), CLASS.double()), {}),
        "loader": (logistic, AutoNormal, loader, {}),
        "enumerated": (mixture, blocked, (X[:, 0],), {"loss": TraceEnum_ELBO()}),
        "networks": (networks.model, networks.guide, (X,), {"batch_size": 40}),
        "draws inside": (rate, gamma_guide, (X[:, 0].abs(),), {}),
        "another optimizer": (schools, AutoNormal, (Y, SIGMA), {"optim": torch.optim.NAdam}),
        "restarts": (schools, AutoNormal, (Y, SIGMA), {"restarts": 3}),
    }


def normal(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, scale), obs=x)


def journey(device, folder):
    """From data on a device to a verdict, a table and a file that is read on the host."""
    data = (X[:30, 0],)
    fitted = vi.fit(normal, AutoMultivariateNormal, data=data, seed=0, steps=600, device=device)
    other = vi.fit(normal, AutoNormal, data=data, seed=0, steps=300, device=device)
    fitted.save(folder / "fit.pt")
    return {
        "elbo": fitted.elbo(2_000).value,
        "read": vi.load(folder / "fit.pt", normal, AutoMultivariateNormal).elbo(2_000).value,
        "verdict": fitted.diagnose().verdict.name,
        "ranks": vi.compare({"full-rank": fitted, "mean-field": other}, chains=False, modes=False)["rank"].to_dict(),
        "groups": sorted(fitted.to_arviz().groups()),
        "predicted": list(fitted.predict(20)["x"].shape),
        "steps": fitted.engine.steps,
        "resumed": len(fitted.resume(steps=10).losses),
    }


def ladder(device):
    return {"verdict": vi.fit(normal, data=(X[:30, 0],), seed=0, device=device).diagnose().verdict.name}


def refused(device):
    try:
        vi.fit(holds, AutoNormal, data=(Y,), steps=2, device=device)
    except vi.errors.VipackError as error:
        return str(error)
    return ""


def every_tier(place, tiers, wanted):
    made = {}
    for tier in tiers:
        runs = {name: functools.partial(fit, *case[:3], tier, place, **case[3]) for name, case in cases().items()}
        runs["SVI"] = functools.partial(svi, tier, place)
        runs["failing factor"] = functools.partial(diverged, tier, place)
        made[f"{'host' if place == 'cpu' else 'device'} {tier}"] = {
            name: attempt(run) for name, run in runs.items() if not wanted or name in wanted
        }
    return made


def attempt(run):
    try:
        return run()
    except Exception:  # the other runs shall tell their story too
        return {"losses": [], "tier": "", "reason": traceback.format_exc()[-3_000:], "devices": []}


def main(device, out, *parts):
    if device != "cuda":
        from tests.engine.devices.pretend import register

        register(Path(device))
        device = "pretend"
    warnings.simplefilter("ignore")
    made = {}
    tiers = ("eager", "traced", "interpreted", "compiled")
    for part in parts:
        if part.startswith("tiers"):
            wanted = part.partition("=")[2].split(";") if "=" in part else []
            made |= every_tier(device, tiers if device == "cuda" else tiers[:3], wanted)
            if device != "cuda":
                made |= every_tier("cpu", ("eager",), wanted)
            made["refused"] = refused(device)
    if "journey" in parts:
        made["journey"] = attempt(functools.partial(journey, device, Path(out).parent))
    if "ladder" in parts:
        made["ladder"] = attempt(functools.partial(ladder, device))
    Path(out).write_text(json.dumps(made))


if __name__ == "__main__":
    main(*sys.argv[1:])
