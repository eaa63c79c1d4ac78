"""Two processes beside one, and beside loops by hand: ``python -m benchmarks.scale [parity] [vae] [regression] [topics] [small] [costs] [kills]``.

Both processes have one thread. Turns are taken in one run of two processes: a fit on both, the same fit in process 0 while the
other waits, and the peer on both, so that what else the machine does meets all of them. A turn is so many steps after those in which graphs
are made; figures are medians over the turns of the time and of the processor time of a step, the latter of one process, and their ratios.
Where cores are not free, times say little: the ratio of processor times is what two free cores would give, but for waiting on the network.
Peers: for the VAE a hand-written loop with torch's DistributedDataParallel (compiled with --compile); for the regression Pyro's own
SVI, whose gradients are averaged by torch.distributed. ``parity`` holds losses of two processes to those of one, ``kills`` kills processes
under torchrun (benchmarks/scale_problems/kills.py), ``costs`` computes what more processes would do (benchmarks/scale_problems/costs.py).
Rows read from a memory map: ``python -m benchmarks.streams``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
import torch.distributed
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import vipack as vi
from benchmarks.scale_problems import costs
from benchmarks.scale_problems.kills import kills
from benchmarks.scale_problems.topics import topics

PIXELS, HIDDEN, LATENTS, BATCH = 784, 400, 50, 256
Turn = Callable[[], tuple[float, float]]  # takes steps, and gives seconds and seconds of the processor a step


def main() -> int:
    """Start two processes, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=["parity", "vae", "regression", "topics", "small", "costs"])
    parser.add_argument("--programs", nargs="*", default=[], help="of parity; all by default")
    parser.add_argument("--documents", type=int, default=1_000_000, help="of topics")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of kills")
    parser.add_argument("--engine", default="compiled", help="of vipack's fits")
    parser.add_argument("--steps", type=int, default=200, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compile the hand-written loop with torch.compile")
    options = parser.parse_args()
    if "RANK" in os.environ:
        _run(options)
        return 0
    if "kills" in options.problems:
        return kills(options.kills, options.seed)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    common = {
        **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.scale", *sys.argv[1:]]
    processes = [subprocess.Popen(command, env={**common, "RANK": str(rank)}) for rank in (0, 1)]
    return max(process.wait() for process in processes)


def _run(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for name in options.problems:
        if name == "parity":
            from benchmarks.scale_problems.parity import parity  # takes the programs of the tests

            parity(options.programs)
        elif name == "small":
            small(rank)
        elif name == "costs":
            network = costs.measured_network()
            if rank == 0:
                costs.report({problem: _arithmetic(problem, options) for problem in ("vae", "regression")}, network)
            torch.distributed.barrier()
        else:
            _take_turns(name, options, rank)
    torch.distributed.destroy_process_group()


def _take_turns(name: str, options: argparse.Namespace, rank: int) -> None:
    methods = PROBLEMS[name](options)
    taken: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    for _ in range(options.turns):
        for method, (take, together) in methods.items():
            torch.distributed.barrier()
            if together or rank == 0:
                taken[method].append(take())
    torch.distributed.barrier()
    if rank:
        return
    medians = {m: [statistics.median(each[k] for each in values) for k in (0, 1)] for m, values in taken.items()}
    one = medians["one process"]
    print(
        f"{name}: {options.turns} turns of {options.steps} steps, engine {options.engine}, load {os.getloadavg()[0]:.1f}"
    )
    for method, (wall, cpu) in medians.items():
        print(
            f"  {method:44} {1e6 * wall:10,.0f} us a step, {one[0] / wall:.2f} times the speed of one process; "
            f"{1e6 * cpu:10,.0f} us of the processor in process 0, {one[1] / cpu:.2f} times less",
            flush=True,
        )


def _arithmetic(name: str, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of the processor a row and a step of one process, from steps of the whole and of half of the batch."""
    seconds = []
    for batch_size in (BATCHES[name], BATCHES[name] // 2):
        (take, _), *_ = PROBLEMS[name](options, batch_size).values()
        seconds.append(take()[1])
    row = max(1e-12, (seconds[0] - seconds[1]) / (BATCHES[name] / 2))
    return row, max(0.0, seconds[0] - BATCHES[name] * row)


def fitted(options: argparse.Namespace, model: Any, guide: Any, data: Any, batch_size: int, **more: Any) -> Turn:
    """Steps of ``vi.fit``, timed from where the graph runs."""
    warm = 50

    def take() -> float:
        marks: list[tuple[float, float]] = []
        fit = vi.fit(
            model, guide, data=data, batch_size=batch_size, steps=warm + options.steps, engine=options.engine, progress=False,
            callbacks=vi.Every(warm, lambda progress: marks.append((time.perf_counter(), time.process_time()))), **more,
        )  # fmt: skip
        if not str(fit.engine).startswith(options.engine):
            print(f"engine: {fit.engine}")
        wall, cpu = ((marks[-1][k] - marks[0][k]) / (len(marks) - 1) / warm for k in (0, 1))
        return wall, cpu

    return take


# --- the VAE


def _network(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner, outer in itertools.pairwise(sizes):
        layers += [nn.Linear(inner, outer), nn.Softplus()]
    return nn.Sequential(*layers[:-1])


class _Loss(nn.Module):
    """Minus the ELBO of a batch, an observation."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _network(PIXELS, HIDDEN, HIDDEN, 2 * LATENTS)
        self.decoder = _network(LATENTS, HIDDEN, HIDDEN, PIXELS)

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        log_p = -nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        divergence = 0.5 * (loc**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum()
        return (divergence - log_p) / len(x)


def vae(options: argparse.Namespace, batch_size: int = BATCH) -> dict[str, tuple[Turn, bool]]:
    """784-400-400-50, 256 images a step in all."""
    torch.manual_seed(0)
    images = (torch.rand(10_000, PIXELS) < 0.2).float()
    networks = _Loss()

    def model(x: Tensor) -> None:
        pyro.module("decoder", networks.decoder)
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=networks.decoder(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", networks.encoder)
        with pyro.plate("images", len(x)):
            loc, log_scale = networks.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def loop() -> tuple[float, float]:
        own = batch_size // 2
        by_hand: Any = DistributedDataParallel(_Loss())
        step_of = torch.compile(by_hand) if options.compile else by_hand
        adam = torch.optim.Adam(by_hand.parameters(), lr=1e-3)
        for step in range(20 + options.steps):
            if step == 20:
                began = time.perf_counter(), time.process_time()
            x = images[torch.randint(len(images), (own,))]
            adam.zero_grad()
            step_of(x).backward()
            adam.step()
        return (time.perf_counter() - began[0]) / options.steps, (time.process_time() - began[1]) / options.steps

    common = {"loss": Trace_ELBO(), "optim": pyro.optim.Adam({"lr": 1e-3})}
    named = "compiled" if options.compile else "not compiled"
    return {
        "one process": (fitted(options, model, guide, images, batch_size, **common), False),
        "two processes": (fitted(options, model, guide, images, batch_size, distributed=True, **common), True),
        f"a DDP loop by hand, {named}, two processes": (loop, True),
    }


# --- the regression


def regression(options: argparse.Namespace, batch_size: int = 20_000) -> dict[str, tuple[Turn, bool]]:
    """100,000 rows of 50 columns, 20,000 rows a step in all."""
    torch.manual_seed(0)
    x = torch.randn(100_000, 50)
    y = (torch.rand(len(x)) < (x @ torch.randn(50)).sigmoid()).float()

    def model(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(50), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    def averaged() -> tuple[float, float]:
        pyro.clear_param_store()
        guide = AutoNormal(model)
        own = batch_size // 2
        elbo = Trace_ELBO()

        def loss_and_grads(model: Any, guide: Any, *args: Any) -> float:
            loss = elbo.loss_and_grads(model, guide, *args)
            for parameter in guide.parameters():
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= 2
            return float(loss)

        svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), elbo.loss, loss_and_grads=loss_and_grads)
        guide(x[:own], y[:own])
        number = max(20, options.steps // 4)
        for step in range(5 + number):
            if step == 5:
                began = time.perf_counter(), time.process_time()
            rows = torch.randint(len(x), (own,))
            svi.step(x[rows], y[rows])
        return (time.perf_counter() - began[0]) / number, (time.process_time() - began[1]) / number

    common = {"optim": pyro.optim.Adam({"lr": 1e-3})}
    return {
        "one process": (fitted(options, model, AutoNormal, (x, y), batch_size, **common), False),
        "two processes": (fitted(options, model, AutoNormal, (x, y), batch_size, distributed=True, **common), True),
        "Pyro, gradients averaged, two processes": (averaged, True),
    }


# --- a model too small to gain


def small(rank: int) -> None:
    """What `auto` says of 300 rows."""
    x = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))

    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(x[:, :2] @ w, 1.0), obs=x[:, 2])

    fit = vi.fit(model, AutoNormal, data=x, steps=2_000, distributed=True, progress=False)
    if rank == 0:
        print(f"small: {fit.engine}", flush=True)


PROBLEMS: dict[str, Callable[..., dict[str, tuple[Turn, bool]]]] = {
    "vae": vae,
    "regression": regression,
    "topics": topics,
}
BATCHES = {"vae": BATCH, "regression": 20_000}

if __name__ == "__main__":
    sys.exit(main())
