"""Random state that belongs to one fit: torch's, NumPy's and Python's generators, swapped in and out together."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from vipack.errors import UsageError
from vipack.lock import alone

__all__ = ["RandomState", "TorchState", "seeded"]


# Of at::CPUGeneratorImplState: where it keeps normals, in double precision and in single.
_STATE_BYTES = 5_056
_NORMALS_KEPT = ((torch.float64, 5_016, 5_040), (torch.float32, 5_048, 5_052))


@dataclass(frozen=True)
class TorchState:
    """Torch's generators as they stand: the host's, and those of GPUs once any is in use."""

    host: Tensor
    gpus: tuple[Tensor, ...]

    @classmethod
    def current(cls) -> TorchState:
        """A copy of the process's own."""
        return cls(torch.get_rng_state(), tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ())

    def install(self) -> None:
        """Put the process's generators where these stand; those of GPUs where it has any in use."""
        torch.set_rng_state(self.host)
        if torch.cuda.is_initialized():
            for index, state in enumerate(self.gpus[: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(state, index)

    def equals(self, other: TorchState) -> bool:
        """Whether both would draw the same numbers, to rounding.

        The host's generator keeps the second of two normals that it made together, which native code makes otherwise.
        """
        if len(self.gpus) != len(other.gpus) or len(self.host) != len(other.host):
            return False
        if not all(torch.equal(one, another) for one, another in zip(self.gpus, other.gpus, strict=True)):
            return False
        differ = torch.ones(len(self.host), dtype=torch.bool, device="cpu")
        for kind, start, end in _NORMALS_KEPT if len(self.host) == _STATE_BYTES else ():
            kept, others = (state[start:end].clone().view(kind) for state in (self.host, other.host))
            if not torch.allclose(kept, others, rtol=1e-5, atol=1e-6, equal_nan=True):
                return False
            differ[start:end] = False
        return torch.equal(self.host[differ], other.host[differ])


@dataclass
class RandomState:
    """A resumable stream of random numbers; models may draw from torch, ``numpy.random`` or ``random``."""

    torch_state: TorchState
    numpy_state: dict[str, Any]
    python_state: tuple[Any, ...]
    _outer: RandomState | None = field(default=None, repr=False, compare=False)  # the process's own, while active

    @classmethod
    def from_seed(cls, seed: int) -> RandomState:
        """The stream that ``pyro.set_rng_seed(seed)`` starts."""
        with _restored():
            _seed(seed)
            return cls.current()

    @classmethod
    def current(cls) -> RandomState:
        """A copy of the process's generators as they stand."""
        return cls(
            torch_state=TorchState.current(),
            numpy_state=np.random.get_state(legacy=False),  # noqa: NPY002  (the global generator is what models use)
            python_state=random.getstate(),
        )

    def install(self) -> None:
        """Make the process's generators continue this stream."""
        self.torch_state.install()
        np.random.set_state(self.numpy_state)  # noqa: NPY002
        random.setstate(self.python_state)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream inside the block, keep where it ended, and give the process its own back."""
        with alone():  # the generators are one for all threads
            outer, self._outer = self._outer, RandomState.current()
            self.install()
            try:
                yield
            finally:
                self.keep()
                self._outer.install()
                self._outer = outer

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Inside :meth:`active`: give the process its own generators back for a while, and take up where they are left."""
        assert self._outer is not None
        self.keep()
        self._outer.install()
        try:
            yield
        finally:
            self._outer = RandomState.current()
            self.install()

    def keep(self) -> None:
        """Inside :meth:`active`: take note of where the stream stands."""
        now = RandomState.current()
        self.torch_state, self.numpy_state, self.python_state = now.torch_state, now.numpy_state, now.python_state

    def state(self) -> dict[str, Any]:
        """Plain tensors, numbers and lists, which ``torch.load(weights_only=True)`` reads back."""
        inner = self.numpy_state["state"]
        return {
            "torch": self.torch_state.host.clone(),
            "cuda": [state.clone() for state in self.torch_state.gpus],
            "numpy": {
                **{k: v for k, v in self.numpy_state.items() if k != "state"},
                "key": torch.from_numpy(inner["key"].astype(np.int64)),
                "pos": int(inner["pos"]),
            },
            "python": [self.python_state[0], list(self.python_state[1]), self.python_state[2]],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RandomState:
        """The inverse of :meth:`state`."""
        saved = dict(state["numpy"])
        key = saved.pop("key").numpy().astype(np.uint32)
        version, internal, gauss = state["python"]
        return cls(
            torch_state=TorchState(state["torch"], tuple(state["cuda"])),
            numpy_state={**saved, "state": {"key": key, "pos": saved.pop("pos")}},
            python_state=(version, tuple(internal), gauss),
        )


def check_seed(seed: object) -> None:
    """
    Raises:
        UsageError: no integer from 0 to 2**32 - 1.
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed < 2**32:  # type: ignore[operator]
        raise UsageError(f"seed: expected an integer from 0 to 2**32 - 1, found {seed!r}.")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run the block on the stream of `seed`; the process's own generators are as before afterwards.

    Raises:
        UsageError: `seed` is no integer of 32 bits.
    """
    check_seed(seed)
    with _restored():
        _seed(seed)
        yield


def _seed(seed: int) -> None:
    """What ``pyro.set_rng_seed`` does; without an accelerator, none of torch's devices takes note of it for later.

    Torch would write down the whole stack for each kind of device, and keep it.
    """
    if torch.accelerator.is_available():
        pyro.set_rng_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    with alone():  # the generators are one for all threads
        before = RandomState.current()
        try:
            yield
        finally:
            before.install()
