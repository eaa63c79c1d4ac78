"""One fit on two processes: the same script, started by torchrun, deals the rows out to both.

    torchrun --nproc-per-node 2 examples/19_two_processes.py

Each process steps on its half of the rows and of the batch; gradients are added up within the step, so that both have the
same parameters all along, and the fit that each gets is an ordinary one. Started by plain Python it trains alone.
"""

import os

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi

NUM_ROWS, NUM_CLINICS = 4_000, 40


def clinics(seed: int = 0) -> dict[str, torch.Tensor]:
    """Blood pressures after a treatment of some dose, in clinics that differ. Every process makes or reads the same."""
    generator = torch.Generator().manual_seed(seed)
    clinic = torch.randint(NUM_CLINICS, (NUM_ROWS,), generator=generator)
    dose = torch.rand(NUM_ROWS, generator=generator)
    level = 1.0 + 0.5 * torch.randn(NUM_CLINICS, generator=generator)
    pressure = level[clinic] - 2.0 * dose + 0.3 * torch.randn(NUM_ROWS, generator=generator)
    return {"clinic": clinic, "dose": dose, "pressure": pressure}


def model(clinic: torch.Tensor, dose: torch.Tensor, pressure: torch.Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    with pyro.plate("clinics", NUM_CLINICS):
        level = pyro.sample("level", dist.Normal(mean, spread))
    with pyro.plate("rows", len(dose)):
        pyro.sample("pressure", dist.Normal(level[clinic] + slope * dose, 0.3), obs=pressure)


def main(num_steps: int = 1_500, seed: int = 0) -> vi.Fit:
    return vi.fit(
        model, AutoNormal, data=clinics(), batch_size=400, steps=num_steps, seed=seed, distributed=True, progress=False
    )


if __name__ == "__main__":
    fit = main()
    if os.environ.get("RANK", "0") == "0":  # of torchrun; each process has the same fit, and one is to speak
        slope = fit.sample(2_000)["slope"]
        print(f"slope {slope.mean():.2f} +- {slope.std():.2f}, where -2 is true; {fit.engine}")
        print(fit.diagnose().verdict)
