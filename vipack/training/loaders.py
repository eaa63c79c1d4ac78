"""The batches of a user's DataLoader, in an order that a fit's seed decides and that can be gone through again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from vipack.program import RandomState

__all__ = ["loader_batches"]


def loader_batches(loader: DataLoader[Any], generator: torch.Generator) -> Iterator[Any]:
    """One epoch of `loader`, whose order and random numbers all follow from `generator`.

    Samplers and data sets draw when a batch is asked for, not when the iterator is made, so each batch is made on a
    stream of random numbers that belongs to the epoch; the process's generators, and the loader's own if it has one, are
    as before afterwards.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    random = RandomState.from_seed(seed)
    own = _Generators(loader, seed)
    batches: Iterator[Any] | None = None
    while True:
        with random.active(), own.active():
            if batches is None:
                batches = iter(loader)
            try:
                batch = next(batches)
            except StopIteration:
                return
        yield batch


class _Generators:
    """The generators that a loader and its samplers were given, with a state of this epoch for each."""

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        holders = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
        generators = [getattr(holder, "generator", None) for holder in holders]
        self._generators = list({id(g): g for g in generators if isinstance(g, torch.Generator)}.values())
        self._states = [torch.Generator().manual_seed(seed).get_state() for _ in self._generators]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        before = [generator.get_state() for generator in self._generators]
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)
        try:
            yield
        finally:
            self._states = [generator.get_state() for generator in self._generators]
            for generator, state in zip(self._generators, before, strict=True):
                generator.set_state(state)
