"""Milliseconds a step of ProdLDA: ``python -m benchmarks.prodlda --root DIR``.

The same networks, minibatches and rule (Adam) three times, in turns, on one thread: vipack's ``ProductOfExperts`` on sparse counts; torch by
hand on dense counts with fused Adam; and ``pyro.infer.SVI`` on dense counts with a Multinomial, as in Pyro's tutorial. DIR holds ``train.npz``,
SciPy CSR counts. Starting up and compiling do not count; processor time.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import scipy.sparse
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import Tensor, nn
from torch.nn.functional import softplus

import vipack as vi
from vipack.topics import ProductOfExperts

NUM_TOPICS, HIDDEN, BATCH, RATE, BETAS = 20, 100, 256, 5e-3, (0.9, 0.999)


class Dense(nn.Module):
    """The same networks on dense counts."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.words, self.head = nn.Linear(num_words, HIDDEN), nn.Linear(HIDDEN, 2 * NUM_TOPICS)
        self.weights, self.norm = nn.Linear(NUM_TOPICS, num_words, bias=False), nn.BatchNorm1d(num_words, eps=1e-3)
        self.norm.weight.requires_grad_(False)

    def encode(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        logs = counts.log1p()
        features = softplus(self.words(logs / logs.sum(-1, keepdim=True).clamp_min(1).sqrt()))
        loc, raw = self.head(features).chunk(2, -1)
        return loc, softplus(raw) + 1e-3

    def decode(self, logits: Tensor) -> Tensor:
        return self.norm(self.weights(logits.softmax(-1)))

    def model(self, counts: Tensor) -> None:
        pyro.module("network", self)
        with pyro.plate("document", len(counts)):
            logits = pyro.sample("logits", dist.Normal(torch.zeros(NUM_TOPICS), 1.0).to_event(1))
            total = int(counts.sum(-1).max())
            pyro.sample("counts", dist.Multinomial(total, logits=self.decode(logits), validate_args=False), obs=counts)

    def guide(self, counts: Tensor) -> None:
        pyro.module("network", self)
        with pyro.plate("document", len(counts)):
            pyro.sample("logits", dist.Normal(*self.encode(counts)).to_event(1))


def by_hand(dense: Tensor) -> Callable[[int], None]:
    network = Dense(dense.shape[1])
    moved = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(moved, lr=RATE, betas=BETAS, fused=True)

    def run(steps: int) -> None:
        for _ in range(steps):
            counts = dense[torch.randint(len(dense), (BATCH,))]
            loc, scale = network.encode(counts)
            likelihood = (counts * network.decode(loc + scale * torch.randn_like(loc)).log_softmax(-1)).sum()
            divergence = 0.5 * (scale.square() + loc.square() - 1).sum() - scale.log().sum()
            optimizer.zero_grad(set_to_none=True)
            (divergence - likelihood).backward()
            optimizer.step()

    return run


def by_pyro(dense: Tensor) -> Callable[[int], None]:
    network = Dense(dense.shape[1])
    svi = SVI(network.model, network.guide, pyro.optim.Adam({"lr": RATE, "betas": BETAS}), TraceMeanField_ELBO())

    def run(steps: int) -> None:
        for _ in range(steps):
            svi.step(dense[torch.randint(len(dense), (BATCH,))])

    return run


def by_vipack(counts: Any, periods: int, period: int) -> list[float]:
    """Milliseconds a step in each of some periods of a compiled run."""
    module, marks = ProductOfExperts(counts, NUM_TOPICS, hidden=(HIDDEN,)), list[float]()
    options = {"data": counts, "batch_size": BATCH, "engine": "compiled", "progress": False}
    watch = vi.Every(period, lambda _: marks.append(time.process_time()))
    optim = pyro.optim.Adam({"lr": RATE, "betas": BETAS})
    vi.fit(module.model, module.guide, steps=(periods + 2) * period, optim=optim, callbacks=watch, **options)
    return [1e3 * (b - a) / period for a, b in itertools.pairwise(marks[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    counts = scipy.sparse.load_npz(options.root / "train.npz").tocsr().astype("float32")
    dense = torch.from_numpy(counts.toarray())
    runs = {"torch by hand, dense, fused Adam": by_hand(dense), "Pyro's SVI, dense": by_pyro(dense)}
    spent: dict[str, list[float]] = {name: [] for name in ["vipack, sparse, compiled", *runs]}
    for run in runs.values():
        run(3)
    for _ in range(options.rounds):
        spent["vipack, sparse, compiled"] += by_vipack(counts, 3, 20)
        for name, run in runs.items():
            started = time.process_time()
            run(10)
            spent[name].append(1e2 * (time.process_time() - started))
    own = statistics.median(spent["vipack, sparse, compiled"])
    for name, values in spent.items():
        middle = statistics.median(values)
        print(
            f"{name:34} {middle:6.1f} ms a step ({min(values):.1f} to {max(values):.1f}), {middle / own:.1f} of vipack's"
        )


if __name__ == "__main__":
    main()
