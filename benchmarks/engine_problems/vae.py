"""A VAE 784-400-400-50 on binary images: vipack, Pyro, a hand-written torch loop plain and compiled, NumPyro."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.optim
import torch
from pyro.infer import SVI as PyroSVI
from pyro.infer import TraceMeanField_ELBO
from torch import nn
from torch.nn import functional as F

import vipack as vi
from benchmarks.engine_problems.methods import Run
from benchmarks.engine_problems.placement import default_type, finish

__all__ = ["batches", "images", "methods"]

_LATENTS, _HIDDEN, _PIXELS = 50, 400, 784
_RATE = 1e-3


def images(root: Path | None, number: int = 10_000) -> np.ndarray:
    """Binary images ``(number, 784)``: `root`/images/mnist_static_bin.npz where there is one, else made up."""
    path = None if root is None else root / "images" / "mnist_static_bin.npz"
    if path is not None and path.exists():
        with np.load(path) as file:
            first = file[file.files[0]]
            bits = np.unpackbits(first, axis=1) if first.dtype == np.uint8 and first.shape[1] < _PIXELS else first
            return bits[:number, :_PIXELS].astype(np.float32)
    rng = np.random.default_rng(0)
    return (rng.uniform(size=(number, _PIXELS)) < 0.13).astype(np.float32)


class Network(nn.Module):
    """Two hidden layers of 400 each way."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _layers(_PIXELS, 2 * _LATENTS)
        self.decoder = _layers(_LATENTS, _PIXELS)

    def model(self, x: torch.Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(_LATENTS), x.new_ones(_LATENTS)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: torch.Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("images", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The negative ELBO by hand, with the analytic KL."""
        loc, log_scale = self.encoder(x).chunk(2, -1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        fit = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        return fit + (0.5 * (loc**2 + (2 * log_scale).exp() - 1) - log_scale).sum()


def methods(x: np.ndarray, batch: int, device: str = "cpu") -> dict[str, Callable[[], Run]]:
    """Name -> what sets it up."""
    data = torch.from_numpy(x).to(device)
    tiers = ("compiled", "traced") if device == "cpu" else ("compiled", "interpreted", "traced")
    found: dict[str, Callable[[], Run]] = {f"vipack {tier}": _tier(data, batch, tier) for tier in tiers}
    found["Pyro SVI"] = lambda: _pyro(data, batch)
    found["torch loop, Adam"] = lambda: _loop(data, batch, fused=False, compiled=False)
    found["torch loop, fused Adam"] = lambda: _loop(data, batch, fused=True, compiled=False)
    found["torch loop, compiled, fused Adam"] = lambda: _loop(data, batch, fused=True, compiled=True)
    found["NumPyro fori_loop"] = lambda: _numpyro(x, batch)
    return found


def _layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, outputs)
    )


def _tier(data: torch.Tensor, batch: int, tier: str) -> Callable[[], Run]:
    def make() -> Run:
        torch.manual_seed(0)
        network = Network()
        optim = pyro.optim.Adam({"lr": _RATE})
        fit = vi.fit(
            network.model, network.guide, data=data, batch_size=batch, loss=TraceMeanField_ELBO(), optim=optim,
            steps=10, engine=tier, device=data.device,
        )  # fmt: skip
        if fit.engine.tier != tier:
            raise RuntimeError(f"asked for {tier}, ran {fit.engine.tier}: {fit.engine.reason}")
        return lambda steps: fit.resume(steps=steps) and None

    return make


def batches(data: torch.Tensor, batch: int) -> Any:
    """Batches of so many images ``(batch, 784)``, without end."""

    def endless() -> Any:
        while True:
            order = torch.randperm(len(data), device=data.device)
            yield from (data[rows] for rows in order.split(batch) if len(rows) == batch)

    return endless()


def _pyro(data: torch.Tensor, batch: int) -> Run:
    pyro.clear_param_store()
    network = Network().to(data.device)
    svi = PyroSVI(network.model, network.guide, pyro.optim.Adam({"lr": _RATE}), TraceMeanField_ELBO())
    stream = batches(data, batch)

    def run(steps: int) -> None:
        with default_type(data.device.type):
            for x in itertools.islice(stream, steps):
                svi.step(x)
            finish(data.device.type)

    return run


def _loop(data: torch.Tensor, batch: int, *, fused: bool, compiled: bool) -> Run:
    torch.manual_seed(0)
    network = Network().to(data.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE, fused=fused)
    on_host = data.device.type == "cpu"
    # On a GPU the anchor replays CUDA graphs too.
    loss = torch.compile(network, mode=None if on_host else "reduce-overhead") if compiled else network
    stream = batches(data, batch)

    def run(steps: int) -> None:
        for x in itertools.islice(stream, steps):
            optimizer.zero_grad()
            value = loss(x)
            value.backward()
            optimizer.step()
            if on_host:
                value.item()
        finish(data.device.type)

    return run


def _numpyro(x: np.ndarray, batch: int) -> Run:
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as ndist
    from jax.example_libraries import stax
    from numpyro.infer import SVI as NumPyroSVI
    from numpyro.infer import TraceMeanField_ELBO as NumPyroMeanField

    dense, relu = stax.Dense, stax.Relu
    encoder = stax.serial(dense(_HIDDEN), relu, dense(_HIDDEN), relu, dense(2 * _LATENTS))
    decoder = stax.serial(dense(_HIDDEN), relu, dense(_HIDDEN), relu, dense(_PIXELS))

    def model(images: Any) -> None:
        decode = numpyro.module("decoder", decoder, (batch, _LATENTS))
        with numpyro.plate("images", batch):
            z = numpyro.sample("z", ndist.Normal(0, 1).expand([_LATENTS]).to_event(1))
            numpyro.sample("x", ndist.Bernoulli(logits=decode(z)).to_event(1), obs=images)

    def guide(images: Any) -> None:
        encode = numpyro.module("encoder", encoder, (batch, _PIXELS))
        loc, log_scale = jnp.split(encode(images), 2, axis=-1)
        with numpyro.plate("images", batch):
            numpyro.sample("z", ndist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    data = jnp.asarray(x)
    svi = NumPyroSVI(model, guide, numpyro.optim.Adam(_RATE), NumPyroMeanField())
    state = svi.init(jax.random.PRNGKey(0), data[:batch])

    @jax.jit
    def loop(state: Any, rows: Any) -> Any:
        return jax.lax.fori_loop(0, len(rows), lambda i, s: svi.update(s, data[rows[i]])[0], state)

    held = [state]
    rng = np.random.default_rng(0)

    def run(steps: int) -> None:
        rows = np.concatenate([rng.permutation(len(x)) for _ in range(1 + steps * batch // len(x))])
        held[0] = loop(held[0], jnp.asarray(rows[: steps * batch].reshape(steps, batch)))
        jax.block_until_ready(held[0])

    return run
