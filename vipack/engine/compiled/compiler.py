"""Compiled steps: looked up in a cache on disk, or built by another process while training goes on."""

from __future__ import annotations

import atexit
import hashlib
import logging
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from vipack.engine.compiled.build import LIBRARY, InterpreterJob, Job, library_name
from vipack.engine.compiled.child_process import CompilingProcess, start_compiling
from vipack.engine.graph.csr_operators import modules_of
from vipack.engine.graph.graph_text import GraphText
from vipack.engine.graph.step_graph import StepGraph
from vipack.engine.interpreter.layout import contiguous
from vipack.engine.interpreter.source import FLAGS
from vipack.engine.interpreter.source import source as interpreter_source
from vipack.engine.native.cache_entries import (
    cache_folder,
    claim_entry,
    find_entry,
    forget,
    machine,
    put_entry,
    seal,
    writable_folder,
)
from vipack.engine.native.operations import LoopSpec

__all__ = [
    "COMPILING",
    "INTERPRETER_SECONDS",
    "Build",
    "Request",
    "bridge",
    "busy",
    "cache_folder",
    "cached",
    "forget",
    "interpreter",
    "predicted_seconds",
    "progress_note",
    "request",
    "start",
    "start_interpreter",
]

_LOG = logging.getLogger(__name__)

COMPILING = "compiling once for this machine, in the background"
_LATE = 60.0  # seconds after which a process that compiles the same is not waited for: it may have been halted
_LOOK = 0.05  # seconds until another look at whether it is done
INTERPRETER_SECONDS = 16.0  # that compiling the interpreter takes on two ordinary cores, once a machine

_SOURCES = (
    "compiled/bound_step.py", "compiled/build.py", "compiled/driver.py", "graph/csr_products.cpp", "inductor/gamma_functions.py", "inductor/lowering.py", "inductor/plan.py", "inductor/small_matrices.h",
    "inductor/small_matrices.py", "inductor/subnormal.h", "inductor/subnormal.py", "native/bridge.cpp", "native/cpp_source.py", "native/dtypes.py", "inductor/gamma_functions.h",
    "native/loop.h", "native/normals.h", "native/operations.py", "native/products.h", "native/small_gemm.h", "steps/training_step.py",
    "../compat/inductor.py",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What to compile, and the name under which the result is kept.

    Attributes:
        make_job: gives the job; called only when there is something to compile, since it may trace the step.
        needs: the name of another entry, without which the result is of no use.
    """

    make_job: Callable[[], Job | InterpreterJob]
    key: str
    needs: str = ""


def request(step: StepGraph, spec: LoopSpec, num_threads: int) -> Request:
    """What to compile for a step; the key holds all that the result depends on, and no data."""
    # A loop works on contiguous memory, whatever layout a user's tensor has.
    inputs = tuple(
        (str(value.dtype).removeprefix("torch."), tuple(value.shape), contiguous(value.shape))
        for value in step.examples
    )
    device = str(step.examples[0].device)

    def job() -> Job:
        return Job(GraphText.of(step.module), inputs, spec, num_threads, bridge(), device, modules_of(step.module))

    text = GraphText.of(step.single)  # with `own`, it says what the step of several fits is
    own, threads = repr(step.own), str(num_threads)
    known = [str(text), own, repr(inputs), repr(spec), threads, machine(), _device(device), _generator()]
    digest = hashlib.sha256("\n".join(known).encode())
    return Request(job, digest.hexdigest()[:32])


@cache
def interpreter() -> Request:
    """The interpreter, which is the same for every step."""
    digest = hashlib.sha256(f"{interpreter_source()}{FLAGS}{library_name()}{machine()}".encode()).hexdigest()[:24]
    return Request(lambda: InterpreterJob(bridge()), f"interpreter-{digest}", library_name())


def bridge() -> Path:
    """The compiled bridge to torch's operators: where it is, or shall be."""
    return (find_entry(library_name()) or cache_folder() / library_name()) / LIBRARY


def cached(wanted: Request) -> Path | None:
    """The folder of a compiled step, if there is one that may be loaded."""
    try:
        if wanted.needs and find_entry(wanted.needs) is None:
            return None
        return find_entry(wanted.key)
    except OSError:  # there is no folder to look in
        return None


class Build:
    """A compilation under way in another process, of this one's or of another one that uses the same cache.

    Attributes:
        folder: the result, once there.
        reason: why there will be none.
        seconds: since it was started, or that it took.
    """

    def __init__(self, wanted: Request) -> None:
        self._wanted = wanted
        self._started = time.perf_counter()
        self.seconds = 0.0
        self.folder: Path | None = None
        self.reason = ""
        self._waits = False
        self._process: CompilingProcess | None = None
        self._give_up: Callable[[], None] = lambda: None
        try:
            self._job = wanted.make_job()
            # In the folder of the entries, so that the result is put in place in one move.
            self._root = writable_folder()
            self._begin()
        except OSError as error:
            self._failed(error)

    def done(self, *, wait: bool = False) -> bool:
        """Whether it has ended, well or not."""
        while self._waits:
            try:
                self._begin()
            except OSError as error:
                self._failed(error)
            if self._waits and not wait:
                return False
            time.sleep(_LOOK if self._waits else 0.0)
        if self._process is None:
            return True
        code = self._process.poll(wait=wait)
        self.seconds = time.perf_counter() - self._started
        if code is None:
            return False
        self._collect(code)
        self._process = None
        self._end()
        return True

    def _begin(self) -> None:
        """Start to compile, unless another process has done so meanwhile, or is at it and not late."""
        claim = claim_entry(self._root, self._wanted.key)
        self.seconds = time.perf_counter() - self._started
        self._waits = claim is None and self.seconds < _LATE
        self._give_up = claim or self._give_up
        _RUNNING.add(self)
        if self._waits:
            return
        self.folder = cached(self._wanted)
        if self.folder is not None:
            self._end()
            return
        self._work = Path(tempfile.mkdtemp(prefix=".build-", dir=self._root))
        with (self._work / "job.pkl").open("wb") as file:
            pickle.dump(self._job, file)
        self._process = start_compiling(self._work)
        _LOG.info("%s; steps are slower until it is done", COMPILING)

    def _failed(self, error: OSError) -> None:
        self.reason = f"the compiler could not be started: {error}"
        self._end()

    def _end(self) -> None:
        self._waits = False
        self._give_up()
        self._give_up = lambda: None
        _RUNNING.discard(self)

    def stop(self) -> None:
        """End it, and leave nothing behind."""
        self._end()
        if self._process is not None:
            self._process.stop()
            self._process = None
            self.reason = "the compilation was stopped"
            shutil.rmtree(self._work, ignore_errors=True)

    def _collect(self, code: int) -> None:
        error = self._work / "error.txt"
        if (self._work / "manifest.json").is_file():
            try:
                self.folder = self._publish()
                return
            except (OSError, ValueError) as problem:
                self.reason = f"what was compiled cannot be kept: {problem}"
        else:
            text = error.read_text() if error.is_file() else f"the compiler's process ended with code {code}"
            self.reason = f"compiling failed: {text}"
        shutil.rmtree(self._work, ignore_errors=True)

    def _publish(self) -> Path:
        """Put the result, and the bridge where it was compiled too, among the entries."""
        for leftover in ("job.pkl", "inductor"):
            path = self._work / leftover
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        library = self._work / library_name()
        if library.is_dir():
            seal(library, library.name)
            put_entry(library, self._root, library.name)
        seal(self._work, self._wanted.key)
        return put_entry(self._work, self._root, self._wanted.key)


def busy() -> bool:
    """Whether this process has something else compiled already: one at a time is enough for a machine."""
    return any(not build.done() for build in list(_RUNNING))


def start(wanted: Request) -> Build:
    """Begin to compile."""
    return Build(wanted)


@cache
def start_interpreter() -> Build:
    """Begin to compile the interpreter; all runs of a process wait for the same one."""
    return Build(interpreter())


def progress_note() -> str:
    """What a progress bar says while something is compiled; empty where nothing is."""
    return COMPILING if busy() else ""


def predicted_seconds(num_nodes: int) -> float:
    """About how long compiling a graph takes on two ordinary cores, start of the process included."""
    return 6.0 + 0.012 * num_nodes + 1e-6 * num_nodes**2


_RUNNING: set[Build] = set()


@atexit.register
def _stop_all() -> None:
    for build in list(_RUNNING):
        build.stop()


@cache
def _device(name: str) -> str:
    """What kernels for a device depend on."""
    device = torch.device(name)
    if device.type != "cuda":
        return name
    return (
        f"{name} {torch.cuda.get_device_name(device)} {torch.cuda.get_device_capability(device)} {torch.version.cuda}"
    )


@cache
def _generator() -> str:
    """Our own generator of loops: what another version wrote may not be what this one expects."""
    own = hashlib.sha256()
    for name in _SOURCES:
        own.update((Path(__file__).parents[1] / name).read_bytes())
    return own.hexdigest()
