"""What a user says of a data-parallel fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vipack.errors import UsageError
from vipack.hints import checked_class

__all__ = ["DataParallel", "data_parallel_of"]


@checked_class
@dataclass(frozen=True)
class DataParallel:
    """How a fit runs on the processes that ``torchrun`` has started.

    Attributes:
        same_noise: let all processes draw the same random numbers. By default each draws its own, so that what it does not
            share with the others, and latents that it shares too, are averaged over more draws.
        timeout: seconds that a process which lives may let the others wait, as in a callback, before all of them end with an
            error. Capturing and compiling do not count. At the beginning they wait ten times as long, since each imports and reads
            first.
    """

    same_noise: bool = False
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if not isinstance(self.same_noise, bool):
            raise UsageError(f"DataParallel: same_noise must be True or False, found {self.same_noise!r}.")
        number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if not number or not self.timeout > 0 or math.isinf(self.timeout):
            raise UsageError(f"DataParallel: timeout must be a positive number of seconds, found {self.timeout!r}.")


def data_parallel_of(distributed: object) -> DataParallel | None:
    """
    Raises:
        UsageError: neither True, False, None nor a DataParallel.
    """
    if distributed is None or distributed is False:
        return None
    if distributed is True:
        return DataParallel()
    if isinstance(distributed, DataParallel):
        return distributed
    raise UsageError(f"distributed: expected True or a vipack.DataParallel, found {distributed!r}.")
