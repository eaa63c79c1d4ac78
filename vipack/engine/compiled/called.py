"""A step called from Python: on a GPU, and for programs of Inductor's that :mod:`~vipack.engine.inductor.plan` cannot read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vipack.cache import private_folder
from vipack.compat import inductor
from vipack.engine.native.cache_entries import NativeError, verified_files
from vipack.engine.native.operations import LoopSpec
from vipack.program import TorchState

__all__ = ["CalledStep", "load_artifact"]

Step = Callable[..., Sequence[Tensor]]

_MOST_AHEAD, _BYTES_AHEAD = 1_024, 64_000_000  # steps whose inputs are laid out before the first of them
_TOGETHER = 16  # steps of one recording: launching it costs the host as much as a small step costs the GPU
_WARM = 3  # calls before a recording, in which libraries choose their kernels and take their memory


class CalledStep:
    """A step behind the interface of :class:`~vipack.engine.native.bound_loop.BoundLoop`.

    What changes from step to step lies in the device's memory for many steps ahead, with a counter that says where the run
    stands; losses are kept there too. So nothing passes between host and device from one step to the next, and on a GPU
    the whole step, draws included, is recorded once as a CUDA graph and replayed.

    Args:
        call: ``(*inputs) -> (loss,)``; updates values, states and buffers among the inputs in place.

    Attributes:
        note: why the step could not be recorded, where it could not.
    """

    def __init__(self, call: Step, spec: LoopSpec, inputs: Sequence[Tensor]) -> None:
        self._call, self._spec = call, spec
        self._inputs = list(inputs)
        device = self._inputs[0].device
        self._fed = [self._inputs[index] for index in spec.fed]
        size = sum(value.nbytes for value in self._fed)
        self._ahead = max(_WARM + 1, min(_MOST_AHEAD, _BYTES_AHEAD // max(1, size)))
        self._coming = [value.new_zeros((self._ahead, *value.shape)) for value in self._fed]
        lead = () if spec.copies is None else (spec.copies,)
        double = any(value.dtype == torch.float64 for value in self._inputs)  # which not every device has
        kind = torch.float64 if double else torch.float32
        self._losses = torch.zeros((self._ahead, *lead), dtype=kind, device=device)
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)
        self._take: Callable[[], None] = self._step
        self._take_several: Callable[[], None] = self._step_several
        self.note = ""
        if device.type == "cuda":
            self._record()

    def __call__(self, feeds: Sequence[Tensor], losses: np.ndarray) -> int:
        with torch.no_grad():
            for first in range(0, len(losses), self._ahead):
                steps = slice(first, min(first + self._ahead, len(losses)))
                number = steps.stop - steps.start
                for coming, feed in zip(self._coming, feeds, strict=True):
                    coming[:number].copy_(feed[steps])
                self._counter.zero_()
                try:
                    for _ in range(number // _TOGETHER):
                        self._take_several()
                    for _ in range(number % _TOGETHER):
                        self._take()
                    losses[steps] = self._losses[:number].cpu().numpy()  # what failed on a GPU says so here
                except RuntimeError as error:
                    raise NativeError(" ".join(str(error).split())) from error
                if self._spec.copies is None and not np.isfinite(losses[steps]).all():
                    return first + 1 + int(np.flatnonzero(~np.isfinite(losses[steps]))[0])
        return len(losses)

    def _step(self) -> None:
        for value, coming in zip(self._fed, self._coming, strict=True):
            value.copy_(coming.index_select(0, self._counter).squeeze(0))
        for index in self._spec.normals:
            self._inputs[index].normal_()
        (loss,) = self._call(*self._inputs)
        self._losses.index_copy_(0, self._counter, loss.to(self._losses.dtype).unsqueeze(0))
        self._counter += 1

    def _step_several(self) -> None:
        for _ in range(_TOGETHER):
            self._step()

    def _record(self) -> None:
        """Let a step be the replay of a CUDA graph, if that can be had, and several steps that of another."""
        before, generators = [value.clone() for value in self._inputs], TorchState.current()
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.no_grad(), torch.cuda.stream(side):
                for _ in range(_WARM):
                    self._step()
            torch.cuda.current_stream().wait_stream(side)
            one, several = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.no_grad(), torch.cuda.graph(one):
                self._step()
            with torch.no_grad(), torch.cuda.graph(several, pool=one.pool()):
                self._step_several()
            self._take, self._take_several = one.replay, several.replay
        except RuntimeError as error:  # an operator that waits for the host, as the check of a factor does
            self.note = f"launched kernel by kernel, since it cannot be recorded: {' '.join(str(error).split())[:150]}"
        finally:
            with torch.no_grad():
                for value, old in zip(self._inputs, before, strict=True):
                    value.copy_(old)
            generators.install()


def load_artifact(folder: Path) -> Step:
    """The step that Inductor compiled into ``folder/artifact``.

    Inductor imports and unpickles what it finds there, and may add to it, so it gets a copy of the very bytes that were
    checked.

    Raises:
        NativeError: it is damaged, may be somebody else's, or does not load.
    """
    try:
        copy = private_folder("vipack-step-")
        for name, content in verified_files(folder).items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        step: Step = inductor.load_artifact(copy / "artifact")
    except NativeError:
        raise
    except Exception as error:  # whatever Inductor finds wrong with a file of its own
        raise NativeError(f"the compiled step in {folder} does not load: {error}") from error
    return step
