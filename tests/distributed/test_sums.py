"""Sums over processes, here threads that know of each other only what processes would tell each other."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from vipack.distributed import sums
from vipack.distributed.processes import Processes
from vipack.distributed.sums import SumByGloo, SumInSharedMemory, share_memory
from vipack.errors import ProcessError

SIZE = 1_000


class Thread:
    """One of several, with what sums ask of a process."""

    def __init__(self, rank, common):
        self.rank, self.size, self._common = rank, common.size, common
        self.shares_memory = True

    def gather(self, value):
        self._common.told[self.rank] = value
        self._common.barrier.wait()
        told = list(self._common.told)
        self._common.barrier.wait()
        return told

    def sum(self, flat):
        flat.copy_(sum(self.gather(flat.clone())))


class Common:
    def __init__(self, size):
        self.size, self.told, self.barrier = size, [None] * size, threading.Barrier(size, timeout=20)


def by_all(size, do):
    common = Common(size)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: do(Thread(rank, common)), range(size)))


def vector(rank, step):
    return torch.arange(SIZE, dtype=torch.float64) * (rank + 1) + step


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_vectors_add_up_to_the_sum_over_all(size, shared):
    def steps(thread):
        summing = SumByGloo(thread, torch.zeros(size, SIZE, dtype=torch.float64))
        if shared:
            summing = sums.sum_in_shared_memory(thread, SIZE, torch.float64)
            assert isinstance(summing, SumInSharedMemory)
        for step in range(7):
            if step % size == thread.rank:
                time.sleep(0.01)  # the others are ahead
            summing.own.copy_(vector(thread.rank, step))
            vectors = summing.total()
            if (step + 1) % size == thread.rank:
                time.sleep(0.01)  # and write the next ones while this one still reads
            assert torch.equal(vectors.sum(0), sum(vector(rank, step) for rank in range(size)))
        return True

    assert by_all(size, steps) == [True] * size


def test_no_file_stays_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(sums, "_FOLDER", tmp_path)
    by_all(2, lambda thread: sums.sum_in_shared_memory(thread, SIZE, torch.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", ["folder", "memory", "file in one process", "the file of process 0"])
def test_all_go_without_where_one_of_them_cannot_have_it(lacking, tmp_path, monkeypatch):
    monkeypatch.setattr(sums, "_FOLDER", tmp_path / "none" if lacking == "folder" else tmp_path)
    if lacking == "memory":

        def refuse(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", refuse)

    def ask(thread):
        gather = thread.gather

        def gathered(value):
            told = gather(value)
            if thread.rank == 1 and isinstance(told[0], tuple):  # as on another machine
                path, secret = told[0]
                told[0] = {
                    "file in one process": (path + "x", secret),
                    "the file of process 0": (path, b"0" * 16),
                }.get(lacking, told[0])
            return told

        thread.gather = gathered
        return share_memory(thread)

    assert by_all(2, ask) == [False, False]
    assert not list(tmp_path.iterdir())


def test_too_many_processes_ask_for_no_memory():
    assert not share_memory(Thread(0, Common(17)))


class Work:
    """Something that all do together, which is done or has failed just after the first wait for it is over."""

    def __init__(self, failure):
        self.failure, self.waits = failure, 0

    def wait(self, timeout=None):
        self.waits += 1
        if self.waits == 1:
            raise RuntimeError("Operation timed out!")
        if self.failure:
            raise RuntimeError(self.failure)

    def is_completed(self):
        return True


@pytest.fixture
def one_process():
    process = object.__new__(Processes)
    process._calls = 0
    process._lost = lambda error: ProcessError(f"lost: {error}")
    return process


def test_what_is_done_just_after_a_wait_is_no_failure(one_process):
    work = Work(None)
    one_process._wait(lambda: work)
    assert work.waits == 2


def test_what_failed_just_after_a_wait_is_told(one_process):
    with pytest.raises(ProcessError, match="lost: Connection closed"):
        one_process._wait(lambda: Work("Connection closed by peer"))
