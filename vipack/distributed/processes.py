"""The processes of a run, and what they tell each other through torch.distributed, where none may wait for ever."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import pickle
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from vipack.distributed.options import DataParallel
from vipack.distributed.sums import SumByGloo, SumInSharedMemory, num_vectors, share_memory, sum_in_shared_memory
from vipack.errors import ProcessError, UsageError, VipackError, VipackWarning

__all__ = ["Processes", "alone_or_together", "started_processes"]

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SLICE = datetime.timedelta(seconds=0.5)  # of waiting, after which signals are handled and the others are looked at
_PULSE = 1.0  # seconds between signs of life
_SILENT = 12.0  # seconds without one, after which a process has ended or is frozen
_NOTE_SECONDS = 3.0  # that a process which ends has to leave a note, after its connections are gone
_BEGINNING = 10  # times the timeout, that the others may come later: they import and read their data first
_FOREVER = datetime.timedelta(hours=24)  # of the group; who waits looks after the others itself


class Processes:
    """One of the processes of a run; all of them make the same calls in the same order.

    Attributes:
        rank, size: of this process from 0 on, and how many there are.
        shares_memory: whether all of them run on one machine and share memory.

    Raises:
        ProcessError: not all of them have come.
    """

    def __init__(self, options: DataParallel) -> None:
        self.rank, self.size, self._timeout = dist.get_rank(), dist.get_world_size(), options.timeout
        self._group: Any = dist.new_group(backend="gloo", timeout=_FOREVER)
        try:
            dist.monitored_barrier(
                self._group, datetime.timedelta(seconds=_BEGINNING * options.timeout), wait_all_ranks=True
            )
        except RuntimeError as error:
            raise ProcessError(
                f"process {self.rank} of {self.size}: the fit could not begin, since not all processes have come to it within "
                f"{_BEGINNING * options.timeout:g} s ({_first_line(error)}); every process must call vipack.fit with distributed=."
            ) from error
        self._calls, self._doing, self._ended = 0, "", threading.Event()
        self._store = self._common_store()
        self._pulse = threading.Thread(target=self._show_life, daemon=True)
        self._pulse.start()
        self.shares_memory = share_memory(self)

    # --- what all of them do

    def sum(self, flat: Tensor) -> None:
        """Add up a vector over all processes, in place."""
        self._wait(lambda: dist.all_reduce(flat, group=self._group, async_op=True))

    def num_vectors(self, num_bytes: int) -> int:
        """How many vectors the sum of one of so many bytes is given as, see :meth:`summing`."""
        return num_vectors(self, num_bytes)

    def summing(self, size: int, like: Tensor) -> SumByGloo | SumInSharedMemory:
        """A vector of `size` numbers to be added up again and again, of the type of `like`, and where it is."""
        number = self.num_vectors(size * like.dtype.itemsize) if like.device.type == "cpu" else 1
        shared = sum_in_shared_memory(self, size, like.dtype) if number > 1 else None
        return shared or SumByGloo(self, torch.zeros(number, size, dtype=like.dtype, device=like.device))

    def numbers(self, *values: float) -> Tensor:
        """``(W, number of values)`` in float64, what each process has given."""
        own = torch.tensor(values, dtype=torch.float64)
        every = [torch.empty_like(own) for _ in range(self.size)]
        self._wait(lambda: dist.all_gather(every, own, group=self._group, async_op=True))
        return torch.stack(every)

    def gather(self, value: object) -> list[Any]:
        """What every process has given, by rank."""
        own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = [int(row[0]) for row in self.numbers(float(len(own)))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(own)] = own
        every = [torch.empty_like(padded) for _ in sizes]
        self._wait(lambda: dist.all_gather(every, padded, group=self._group, async_op=True))
        return [pickle.loads(v[:n].numpy().tobytes()) for v, n in zip(every, sizes, strict=True)]

    @contextlib.contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Inside, the others wait for this process as long as it lives."""
        self._doing = doing
        try:
            yield
        finally:
            self._doing = ""

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Inside, what ends this process ends the others too, and they say which it was and why."""
        try:
            yield
        except BaseException as error:
            _leave_behind(self._group)
            if not isinstance(error, ProcessError):
                text = f"{type(error).__name__}: {_first_line(error)}"
                with contextlib.suppress(RuntimeError):
                    self._store.set(f"ended/{self.rank}", text)
                    self._until_read()
            raise
        finally:
            self._ended.set()
            self._pulse.join()
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group(self._group)

    # --- waiting

    def _wait(self, begin: Any) -> None:
        """Begin something that all do together, and wait for the others.

        Raises:
            ProcessError: one of them has ended, is frozen, or lets the others wait for too long.
        """
        self._calls += 1
        try:
            work = begin()
        except RuntimeError as error:
            raise self._lost(error) from error
        signs: dict[int, tuple[str, float]] = {}
        started = time.monotonic()
        while True:
            try:
                work.wait(_SLICE)
                return
            except RuntimeError:
                if work.is_completed():  # it failed, or was done just after that slice: another wait tells which
                    try:
                        work.wait()
                        return
                    except RuntimeError as error:
                        raise self._lost(error) from error
            started = self._look_at_others(signs, started)

    def _look_at_others(self, signs: dict[int, tuple[str, float]], started: float) -> float:
        """Since when the others have let this process wait.

        Args:
            signs: the last sign of life of each process, and when it came.
        """
        now, busy = time.monotonic(), False
        self._raise_if_ended()
        for rank in self._others():
            sign = self._sign_of(rank)
            if rank not in signs or signs[rank][0] != sign:
                signs[rank] = sign, now
            elif now - signs[rank][1] > _SILENT:
                raise ProcessError(
                    f"process {rank} of {self.size} has given no sign of life for {_SILENT:g} s: it was killed, is frozen, or cannot "
                    f"be reached any more. This one, {self.rank}, ends; start all of them again, and they go on from the checkpoint."
                )
            busy = busy or bool(sign.split(":", 2)[2])
        if busy:
            return now
        if now - started > self._timeout:
            calls = {rank: int(signs[rank][0].split(":")[1]) for rank in self._others()}
            late = min(calls, key=lambda rank: calls[rank])
            raise ProcessError(
                f"process {late} of {self.size} is alive, but has let the others wait for {self._timeout:g} s: it is in a callback, in "
                "code of the model's that does not end, or took another turn than the others. If it only needs longer, pass "
                f"distributed=vipack.DataParallel(timeout={2 * self._timeout:g})."
            )
        return started

    def _lost(self, error: Exception) -> ProcessError:
        """Which process a connection has broken off to."""
        until, before = time.monotonic() + _NOTE_SECONDS, {rank: self._sign_of(rank) for rank in self._others()}
        while time.monotonic() < until:
            try:
                self._raise_if_ended()
            except ProcessError as note:
                return note
            time.sleep(0.1)
        silent = [rank for rank in self._others() if self._sign_of(rank) == before[rank]]
        who = f"process {silent[0]}" if len(silent) == 1 else f"one of the processes {silent or list(self._others())}"
        return ProcessError(
            f"{who} of {self.size} ended without a word, as when it is killed or has no memory left ({_first_line(error):.150}). This "
            f"one, {self.rank}, ends; start all of them again, and they go on from the checkpoint."
        )

    def _until_read(self) -> None:
        """Process 0 keeps the store: its last words are gone with it, so it stays until the others have read them."""
        until, others = time.monotonic() + _NOTE_SECONDS, self._others()
        while (
            self.rank == 0 and time.monotonic() < until and not self._store.check([f"read/{rank}" for rank in others])
        ):
            time.sleep(0.05)

    def _raise_if_ended(self) -> None:
        for rank in self._others():
            with contextlib.suppress(dist.DistNetworkError, dist.DistStoreError):
                if self._store.check([f"ended/{rank}"]):
                    text = self._store.get(f"ended/{rank}").decode()
                    self._store.set(f"read/{self.rank}", "")
                    raise ProcessError(
                        f"process {rank} of {self.size} ended, and this one, {self.rank}, with it: {text}"
                    )

    def _others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def _sign_of(self, rank: int) -> str:
        try:
            return (
                str(self._store.get(f"alive/{rank}").decode())
                if self._store.check([f"alive/{rank}"])
                else "0:0:starting"
            )
        except (dist.DistNetworkError, dist.DistStoreError, RuntimeError):
            return (
                "0:0:" if rank == 0 else f"{time.monotonic()}:0:"
            )  # process 0 keeps the store, so it is 0 that is gone

    def _show_life(self) -> None:
        count = 0
        while not self._ended.wait(_PULSE):
            count += 1
            try:
                self._pulse_store.set(f"alive/{self.rank}", f"{count}:{self._calls}:{self._doing}")
            except RuntimeError:  # process 0 is gone, which the others find out as they wait for it
                return

    def _common_store(self) -> Any:
        """Where signs of life and last words are left, kept by process 0."""
        host = os.environ.get("MASTER_ADDR", "127.0.0.1")
        second = datetime.timedelta(seconds=10)
        keeper = (
            TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False, timeout=second) if self.rank == 0 else None
        )
        port = int(self.numbers_at_start(0.0 if keeper is None else float(keeper.port))[0, 0])
        self._keeper = keeper
        # A store of its own for each thread: one waits until another one's call is done.
        self._pulse_store = TCPStore(host, port, is_master=False, timeout=second)
        return TCPStore(host, port, is_master=False, timeout=second)

    def numbers_at_start(self, value: float) -> Tensor:
        """As :meth:`numbers`, before there is a store."""
        own = torch.tensor([value], dtype=torch.float64)
        every = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(every, own, group=self._group)
        return torch.stack(every)


def _leave_behind(group: Any) -> None:
    """Never free a group whose operations the others may not have joined: gloo would wait for them, however long, wherever Python collects it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


@contextlib.contextmanager
def alone_or_together(processes: Processes | None) -> Iterator[None]:
    """Around what processes do together: what ends one of them ends all, and warnings of vipack's come from the first."""
    with contextlib.ExitStack() as stack:
        if processes is not None:
            stack.enter_context(processes.joined())
            if processes.rank:
                stack.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore", VipackWarning)
        yield


def started_processes(options: DataParallel | None) -> Processes | None:
    """The processes that torchrun has started, or torch.distributed knows; None where there is this one alone.

    Raises:
        UsageError: they were started by halves.
        ProcessError: they do not find each other.
    """
    if options is None:
        return None
    if not dist.is_available() or not dist.is_gloo_available():
        raise UsageError("distributed: this build of torch has no torch.distributed with gloo; leave distributed out.")
    if not dist.is_initialized():
        there = [name for name in _VARIABLES if os.environ.get(name)]
        if not there or (set(there) <= {"MASTER_ADDR", "MASTER_PORT"}):
            return None
        lacking = [name for name in _VARIABLES if name not in there]
        if lacking:
            raise UsageError(
                f"distributed: the environment has {', '.join(there)} and no {', '.join(lacking)}; start the script by torchrun "
                "--nproc-per-node 2 script.py, which sets all of them, or call torch.distributed.init_process_group yourself."
            )
        _initialise(options)
    return Processes(options) if dist.get_world_size() > 1 else None


def _initialise(options: DataParallel) -> None:
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    try:
        wait = datetime.timedelta(seconds=_BEGINNING * options.timeout)
        # torchrun keeps one store, in which addresses of processes that it has started anew still stand.
        by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        master = rank == "0" and not by_torchrun
        store = TCPStore(host, port, int(size), is_master=master, timeout=wait, multi_tenant=True)
        own = PrefixStore(f"vipack/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group("gloo", timeout=wait, store=own, rank=int(rank), world_size=int(size))
    except (RuntimeError, ValueError) as error:
        text = _first_line(error)
        in_use = "in use" in text or "EADDRINUSE" in str(error)
        cure = (
            "the port is in use by another program: pass another one, or let torchrun choose (--standalone)"
            if in_use
            else "look at whether all of them were started, and reach that address"
        )
        raise ProcessError(
            f"process {rank} of {size}: the processes do not find each other at {address} ({text:.200}); {cure}."
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error) if isinstance(error, VipackError) else str(error).strip().partition("\n")[0]
    return text or "no message"
