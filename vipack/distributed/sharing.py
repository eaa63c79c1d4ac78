"""Work that processes need not do together: each does some of it, and all have the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from vipack.distributed.processes import Processes
from vipack.errors import ProcessError

__all__ = ["check_alike", "own_stretch", "shared_out"]

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def own_stretch(processes: Processes | None, number: int) -> range:
    """Which of `number` jobs are this process's: one stretch, of a size that differs by one at most; all without others."""
    if processes is None:
        return range(number)
    each, over = divmod(number, processes.size)
    first = processes.rank * each + min(processes.rank, over)
    return range(first, first + each + (processes.rank < over))


def shared_out(
    processes: Processes | None, jobs: Sequence[Job], answer: Callable[[Sequence[Job]], list[Answer]], doing: str
) -> list[Answer]:
    """The answers to all jobs, in their order, each given by one process.

    Args:
        answer: is called once in each process, on its own jobs; its answers can be pickled.
        doing: what the others wait for, as long as this process lives.
    """
    own = own_stretch(processes, len(jobs))
    if processes is None:
        return answer(jobs)
    with processes.busy(doing):
        answers = answer(jobs[own.start : own.stop]) if own else []
    every: list[list[Answer]] = processes.gather(answers)
    return [each for answers_of_one in every for each in answers_of_one]


def check_alike(
    processes: Processes, own: Mapping[str, object], phrases: Mapping[str, str], *, about: str, cure: str
) -> None:
    """
    Args:
        own: what must be the same in every process, by name.
        phrases: name -> what to say where it is not; "... differs" by default. Numbers and short texts are quoted.
        about: what the processes are about, and
        cure: what to do.

    Raises:
        ProcessError: on every process, where they differ.
    """
    digests = {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in own.items()}
    plain = {name: value for name, value in own.items() if isinstance(value, int | float | str | bool | None)}
    every = processes.gather((digests, plain))
    for name in dict.fromkeys(name for each, _ in every for name in each):
        differing = [rank for rank, (each, _) in enumerate(every) if each.get(name) != every[0][0].get(name)]
        if differing:
            rank = differing[0]
            values = [each[1].get(name) for each in (every[0], every[rank])]
            quoted = "" if name in _UNREADABLE or None in values else f" ({values[0]!r} and {values[1]!r})"
            raise ProcessError(
                f"distributed: processes 0 and {rank} are not about the same {about}: {phrases.get(name, f'{name} differs')}{quoted}. "
                f"{cure}"
            )


_UNREADABLE = ("data", "values")  # digests
