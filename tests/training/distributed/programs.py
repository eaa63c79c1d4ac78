"""Programs that one process and several must fit alike, and how one process sees what several see."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import vipack as vi
from vipack.program import Arguments
from vipack.training.streams import BatchStream, ShuffledStream

N, BATCH, STEPS = 120, 40, 200
SEED = 3


@dataclass(frozen=True)
class Case:
    """A fit, but for how it runs; of `float32` where it is not of float64."""

    model: Callable[..., Any]
    guide: Any
    data: Any
    loss: Any = None
    batch_size: int | None = BATCH

    def options(self, dtype: torch.dtype) -> dict[str, Any]:
        loss = Trace_ELBO() if self.loss is None else self.loss
        common = {"batch_size": self.batch_size, "seed": SEED, "progress": False, "loss": loss, "dtype": dtype}
        return {"data": self.data, "steps": STEPS, **common}


def _draws(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = _draws(N, 3)
Y = X @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 0.5 * _draws(N, seed=1)
_RATES = 4 * torch.rand(N, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
COUNTS = torch.poisson(_RATES, generator=torch.Generator().manual_seed(3))


def regression(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 3.0).expand([3]).to_event(1))
    sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ w, sigma), obs=y)


def hierarchical(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = pyro.sample("tau", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, 0.5), obs=y)


@config_enumerate
def mixture(y):
    locs = pyro.sample("locs", dist.Normal(torch.tensor([-2.0, 2.0]).to(y), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.4, 0.6]).to(y)))
        pyro.sample("y", dist.Normal(locs[k], 1.0), obs=y)


class Coder(nn.Module):
    def __init__(self, size: int, results: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, 6), nn.Tanh(), nn.Linear(6, results))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


torch.manual_seed(0)
ENCODER, DECODER = Coder(3, 4), Coder(2, 3)


def vae(x):
    pyro.module("decoder", DECODER)
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).to(x), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(DECODER(z), 0.5).to_event(1), obs=x)


def vae_guide(x):
    pyro.module("encoder", ENCODER)
    with pyro.plate("rows", len(x)):
        loc, log_scale = ENCODER(x).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def topics(counts):
    words = pyro.param("words", lambda: 0.1 * _draws(3, 8, seed=5).to(counts))
    with pyro.plate("documents", N, subsample_size=len(counts)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3).to(counts), 1.0).to_event(1))
        p = z.softmax(-1) @ words.softmax(-1)
        pyro.sample("counts", dist.Multinomial(probs=p, validate_args=False), obs=counts)


def topics_guide(counts):
    loc = pyro.param("document_loc", lambda: torch.zeros(N, 3).to(counts))
    log_scale = pyro.param("document_log_scale", lambda: torch.full((N, 3), -1.0).to(counts))
    with pyro.plate("documents", N, subsample_size=len(counts)) as rows:
        pyro.sample("z", dist.Normal(loc[rows], log_scale[rows].exp()).to_event(1))


CASES: Mapping[str, Case] = {
    "regression": Case(regression, AutoNormal, (X, Y)),
    "every row": Case(regression, AutoNormal, (X, Y), batch_size=None),
    "hierarchical": Case(hierarchical, AutoNormal, Y),
    "mixture": Case(mixture, AutoNormal(poutine.block(mixture, hide=["k"])), Y, TraceEnum_ELBO(max_plate_nesting=1)),
    "vae": Case(vae, vae_guide, X),
    "topics": Case(topics, topics_guide, COUNTS),
    "flow": Case(regression, vi.guides.Flow, (X, Y)),
}


class SameNoise(TorchFunctionMode):
    """Draws with a dimension of `size` rows are `copies` times those of a process that has its share of them."""

    def __init__(self, size: int, copies: int) -> None:
        super().__init__()
        self._size, self._copies = size, copies

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.normal_ and self._size in args[0].shape:
            dim = tuple(args[0].shape).index(self._size)
            share = args[0].narrow(dim, 0, self._size // self._copies).contiguous()
            return args[0].copy_(torch.cat([func(share, *args[1:], **(kwargs or {}))] * self._copies, dim))
        return func(*args, **(kwargs or {}))


class Joined(BatchStream):
    """The batches of several processes as one."""

    def __init__(self, rows: Callable[[Tensor], Arguments], streams: list[ShuffledStream]) -> None:
        self._rows, self._streams = rows, streams
        self.epoch, self.per_epoch = 0, 1.0

    def __next__(self) -> Arguments:
        return self._rows(torch.cat([next(stream).indices for stream in self._streams]))

    def peek(self) -> Arguments:
        return self._rows(torch.cat([stream.peek().indices for stream in self._streams]))

    def upcoming(self) -> tuple[int | None, int]:
        return BATCH, 1

    def indices(self, number: int) -> Tensor | None:
        return torch.cat([stream.indices(number) for stream in self._streams], 1)

    def whole(self) -> Arguments | None:
        return self._streams[0].whole()

    def state(self) -> dict[str, Any]:
        return {"streams": [stream.state() for stream in self._streams]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for stream, own in zip(self._streams, state["streams"], strict=False):
            stream.load_state(own)
