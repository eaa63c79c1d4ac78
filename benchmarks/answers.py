"""What answers cost beside the fit, with many rows: ``python -m benchmarks.answers`` (``--rows 20000 100000``).

Seconds of processor time on one thread, for regressions whose latents all rows share and for a model with a latent in each row.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import vipack as vi


def linear(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(x @ w, sigma), obs=y)


def logistic(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def local(y):
    mu, tau = pyro.sample("mu", dist.Normal(0.0, 1.0)), pyro.sample("tau", dist.LogNormal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        z = pyro.sample("z", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def problems(num_rows: int) -> dict[str, tuple[Any, Any, Any]]:
    """Name -> model, guide and data."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_rows, 5, generator=generator)
    mean = x @ torch.tensor([1.0, -1.0, 0.5, 0.0, 0.2])
    noise = torch.randn(num_rows, generator=generator)
    counts = torch.bernoulli(torch.sigmoid(mean), generator=generator)
    return {
        "linear": (linear, AutoMultivariateNormal, (x, mean + noise)),
        "logistic": (logistic, AutoMultivariateNormal, (x, counts)),
        "local": (local, AutoNormal, 1.5 * noise),
    }


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    result = run()
    return result, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--steps", type=int, default=2_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    vi.diagnostics.importance(torch.randn(100))  # imports ArviZ, which is no part of the cost
    print(f"{'model':10}{'rows':>9}{'fit':>8}{'guide':>8}{'sample':>8}{'diagnose':>10}  verdict")
    for num_rows in options.rows:
        for name, (model, guide, data) in problems(num_rows).items():
            fit, trained = timed(
                lambda m=model, g=guide, d=data: vi.fit(m, g, data=d, steps=options.steps, progress=False)
            )
            _, drawn = timed(lambda f=fit: f.posterior.guide_draws(1_000))
            _, sampled = timed(lambda f=fit: f.sample(1_000))
            found, judged = timed(lambda f=fit: f.diagnose())
            print(
                f"{name:10}{num_rows:9,}{trained:8.2f}{drawn:8.2f}{sampled:8.2f}{judged:10.2f}  {found.verdict.value}",
                flush=True,
            )


if __name__ == "__main__":
    main()
