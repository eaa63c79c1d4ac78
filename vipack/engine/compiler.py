"""Compiled steps: looked up in a cache on disk, or built by another process while training goes on."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from vipack.engine.build import InterpreterJob, Job, library_name
from vipack.engine.driver import DriverSpec
from vipack.engine.interpreter.build import source as interpreter_source
from vipack.engine.interpreter.layout import contiguous
from vipack.engine.step_graph import StepGraph
from vipack.engine.text import GraphText

__all__ = [
    "INTERPRETER_SECONDS",
    "Build",
    "Request",
    "bridge",
    "busy",
    "cached",
    "forget",
    "interpreter",
    "predicted_seconds",
    "request",
    "start",
    "start_interpreter",
]

INTERPRETER_SECONDS = 16.0  # that compiling the interpreter takes on two ordinary cores, once a machine

_POLITE = 10  # niceness of a compilation: training comes first
_KEPT = 500  # compiled steps in the cache; the oldest go first
_ABANDONED = 86_400.0  # seconds after which a folder of work belongs to a process that was killed
_SOURCES = (
    "build.py", "driver.py", "library.py", "lowering.py", "native.py", "normals.py", "plan.py", "products.py", "skinny.py", "small.py",
    "step.py", "subnormal.py",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """What to compile, and the name under which the result is kept.

    Attributes:
        make_job: what has to be traced for it, is, only when there is something to compile.
        needs: a file without which the result is of no use.
    """

    make_job: Callable[[], Job | InterpreterJob]
    key: str
    needs: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the result is, once it is there."""
        return cache_folder() / self.key


def request(step: StepGraph, spec: DriverSpec, num_threads: int) -> Request:
    """What to compile for a step; the key holds all that the result depends on, and no data."""
    # A loop works on contiguous memory, whatever layout a user's tensor has.
    inputs = tuple(
        (str(value.dtype).removeprefix("torch."), tuple(value.shape), contiguous(value.shape))
        for value in step.examples
    )
    device = str(step.examples[0].device)

    def job() -> Job:
        return Job(GraphText.of(step.module), inputs, spec, num_threads, bridge(), device)

    text = GraphText.of(step.single)  # with `own`, it says what the step of several fits is
    digest = hashlib.sha256(
        "\n".join(
            [
                str(text),
                repr(step.own),
                repr(inputs),
                repr(spec),
                str(num_threads),
                _machine(),
                _device(device),
                _generator(),
            ]
        ).encode()
    )
    return Request(job, digest.hexdigest()[:32])


@cache
def interpreter() -> Request:
    """The interpreter, which is the same for every step."""
    digest = hashlib.sha256(f"{interpreter_source()}{library_name()}{_machine()}".encode()).hexdigest()[:24]
    return Request(lambda: InterpreterJob(bridge()), f"interpreter-{digest}", bridge())


def bridge() -> Path:
    """The compiled bridge to torch's operators."""
    return cache_folder() / library_name()


def cached(wanted: Request) -> Path | None:
    """The folder of a compiled step, if there is one."""
    folder = wanted.folder
    if not (folder / "manifest.json").is_file():
        return None
    if wanted.needs is not None and not wanted.needs.is_file():
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)  # used lately
    return folder


def forget(folder: Path) -> None:
    """Remove a damaged entry."""
    shutil.rmtree(folder, ignore_errors=True)


class Build:
    """A compilation under way in another process.

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
        self._process: subprocess.Popen[bytes] | None = None
        job = wanted.make_job()
        try:
            # Beside the cache where it can be written, so that the result is put in place in one move.
            root = cache_folder()
            self._work = Path(tempfile.mkdtemp(prefix=".build-", dir=root if _writable(root) else None))
            with (self._work / "job.pkl").open("wb") as file:
                pickle.dump(job, file)
            environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(self._work / "inductor")}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vipack.engine.build", str(self._work)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the run
            )
            _RUNNING.add(self)
            with contextlib.suppress(OSError, AttributeError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, _POLITE)
        except OSError as error:
            self.reason = f"the compiler could not be started: {error}"

    def done(self, *, wait: bool = False) -> bool:
        """Whether it has ended, well or not."""
        if self._process is None:
            return True
        if wait:
            self._process.wait()
        if self._process.poll() is None:
            self.seconds = time.perf_counter() - self._started
            return False
        self.seconds = time.perf_counter() - self._started
        self._collect(self._process.returncode)
        self._process = None
        _RUNNING.discard(self)
        return True

    def stop(self) -> None:
        """End it, and leave nothing behind."""
        _RUNNING.discard(self)
        if self._process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with the compilers that it started
            self._process.kill()
            self._process.wait()
            self._process = None
            self.reason = "the compilation was stopped"
            shutil.rmtree(self._work, ignore_errors=True)

    def _collect(self, code: int) -> None:
        error = self._work / "error.txt"
        if (self._work / "manifest.json").is_file():
            self.folder = self._publish()
            return
        found = error.read_text() if error.is_file() else f"the compiler's process ended with code {code}"
        self.reason = f"compiling failed: {found}"
        shutil.rmtree(self._work, ignore_errors=True)

    def _publish(self) -> Path:
        """Put the result into the cache; another process may have been first."""
        for leftover in ("job.pkl", "inductor"):
            path = self._work / leftover
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if self._work.parent != cache_folder():  # a read-only cache: the result serves this process only
            atexit.register(shutil.rmtree, self._work, ignore_errors=True)
            return self._work
        target = self._wanted.folder
        try:
            self._work.replace(target)
        except OSError:
            shutil.rmtree(self._work, ignore_errors=True)
        _prune(target.parent)
        return target


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


def predicted_seconds(num_nodes: int) -> float:
    """About how long compiling a graph takes on two ordinary cores, start of the process included."""
    return 6.0 + 0.012 * num_nodes + 1e-6 * num_nodes**2


@cache
def cache_folder() -> Path:
    """``$VIPACK_CACHE/engine``, or ``~/.cache/vipack/engine``; a temporary folder where neither can be made."""
    root = os.environ.get("VIPACK_CACHE") or os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")) + "/vipack"
    folder = Path(root) / "engine"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="vipack-engine-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_RUNNING: set[Build] = set()


@atexit.register
def _stop_all() -> None:
    for build in list(_RUNNING):
        build.stop()


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)


def _prune(folder: Path) -> None:
    for work in folder.glob(".build-*"):
        with contextlib.suppress(OSError):  # another process may have been first
            if time.time() - work.stat().st_mtime > _ABANDONED:
                shutil.rmtree(work, ignore_errors=True)
    entries = [entry for entry in folder.iterdir() if (entry / "manifest.json").is_file()]
    for entry in sorted(entries, key=lambda e: e.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(entry, ignore_errors=True)


@cache
def _machine() -> str:
    """The processor and torch: what is compiled for others may not run here."""
    return f"{platform.machine()} {_processor_flags()} {torch.__version__}"


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
        own.update((Path(__file__).parent / name).read_bytes())
    return own.hexdigest()


def _processor_flags() -> str:
    with contextlib.suppress(OSError):
        for line in _lines(Path("/proc/cpuinfo")):
            if line.startswith(("flags", "Features")):
                return hashlib.sha256(line.encode()).hexdigest()
    return platform.processor()


def _lines(path: Path) -> Iterator[str]:
    with path.open() as file:
        yield from file
