"""What a trainer asks of the other processes of its run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vipack.distributed import Processes
from vipack.engine.graph.all_reduce import Reducer
from vipack.errors import ProcessError, VipackError
from vipack.program import RandomState
from vipack.training.distributed.shards import Shard, seed_of
from vipack.types import Estimate

__all__ = ["Team"]


class Team:
    """The processes of one run, as its trainer sees them from this one.

    Args:
        of_rows: parameter -> its dimension of all rows.
        same_noise: whether all processes draw the same numbers.

    Attributes:
        shard: the rows of this process.
        reducer: adds up gradients.
    """

    def __init__(self, processes: Processes, shard: Shard, of_rows: Mapping[str, int], *, same_noise: bool) -> None:
        self.processes, self.shard, self._of_rows, self._same_noise = processes, shard, dict(of_rows), same_noise
        self.reducer = Reducer(processes, shard.weight, frozenset(of_rows))

    @property
    def rank(self) -> int:
        """Of this process."""
        return self.processes.rank

    def random(self, seed: int) -> RandomState:
        """The random numbers of this process."""
        return RandomState.from_seed(seed if self._same_noise else seed_of(seed, self.rank))

    def settle(self, pace: int, seconds: float, save: bool, interrupted: bool) -> tuple[int, float, bool, bool]:
        """How many steps come next, seconds, and whether to save, all as process 0 has it; and whether any was interrupted."""
        every = self.processes.numbers(pace, seconds, save, interrupted)
        pace_, seconds_, save_ = every[0, :3].tolist()
        return int(pace_), seconds_, bool(save_), bool(every[:, 3].any())

    def all_answers(self, answers: Sequence[object]) -> list[object]:
        """What the callbacks of all processes have said, of process 0 first."""
        plain = [answer if isinstance(answer, str) else answer is True for answer in answers]
        return [answer for each in self.processes.gather(plain) for answer in each]

    def all_true(self, value: bool) -> bool:
        """Whether it is so in every process."""
        return bool(self.processes.numbers(value).all())

    def of_first(self, estimate: Estimate) -> Estimate:
        """That of process 0, so that all decide alike."""
        value, se = self.processes.numbers(estimate.value, estimate.se)[0].tolist()
        return Estimate(value, se)

    # --- what lies with one process only

    def complete(self, trainer: Any) -> None:
        """Let every process have all rows' parameters, their optimizer's state, and the mean of the modules' buffers."""
        parameters = trainer.program.parameters
        for name, dim in sorted(self._of_rows.items()):
            tensors = [parameters.unconstrained[name].data]
            tensors += [s["params"][name] for s in (trainer.state.best, trainer.state.best_valid) if s is not None]
            tensors += [] if trainer._average is None else trainer._average.of(name)
            for handle in trainer.optimizer.handles([parameters.unconstrained[name]]) or ():
                state = handle.optimizer.state.get(handle.parameter, {})
                shape = handle.parameter.shape
                tensors += [v for _, v in sorted(state.items()) if isinstance(v, Tensor) and v.shape == shape]
            for tensor in tensors:
                self._fill(tensor, dim)
        for _, buffer in sorted(parameters.buffers().items()):
            if buffer.is_floating_point() and buffer.numel():
                mean = buffer.double() * self.shard.weight
                self.processes.sum(mean)
                buffer.copy_(mean)

    def _fill(self, tensor: Tensor, dim: int) -> None:
        first, end = self.shard.first, self.shard.first + self.shard.num_rows
        with torch.no_grad():
            full = torch.zeros_like(tensor, memory_format=torch.contiguous_format)
            own = full.narrow(dim, first, end - first)
            own.copy_(tensor.narrow(dim, first, end - first))
            self.processes.sum(full)
            tensor.copy_(full)

    def save(self, trainer: Any, write: Any) -> None:
        """Write one file, by process 0, with where each process stands; all of them fail where it does."""
        trainer.state.random.keep()
        self.complete(trainer)
        stands = self.processes.gather((trainer.state.random.state(), trainer.state.batches.state()))
        text = ""
        if self.rank == 0:
            try:
                random, batches = zip(*stands, strict=True)
                own = {"random": list(random), "batches": list(batches), "tier": trainer.engine.settled}
                write({**trainer.content(), "processes": own})
            except VipackError as error:
                text = str(error)
        failure = self.processes.gather(text)[0]
        if failure:
            raise ProcessError(f"checkpoint of process 0: {failure} Then start all of them again.")

    def own_stand(self, content: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """A file's content with the random numbers and batches of this process.

        A file of another number of processes goes on with an epoch of its own, and other random numbers.
        """
        stands = content.get("processes")
        own = dict(content)
        if stands is not None and len(stands["random"]) == self.processes.size:
            own["random"], own["batches"] = stands["random"][self.rank], stands["batches"][self.rank]
            return own
        steps = len(content["losses"])
        start = RandomState.from_seed(seed_of(seed, self.rank + 1 + steps))
        own["random"] = start.state()
        own["batches"] = fresh_batches(content["batches"], seed_of(seed, self.rank + steps))
        return own


def fresh_batches(state: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Where a stream of other rows stands at the beginning of the same epoch."""
    generator = torch.Generator().manual_seed(seed)
    kept = {name: state[name] for name in ("step",) if name in state}
    return {
        "epoch": math.floor(state["epoch"]),
        "rows": 0,
        "taken": 0,
        "generator": generator.get_state(),
        "tail": None,
        **kept,
    }
