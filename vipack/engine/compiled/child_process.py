"""The processes that compile: Pythons of their own, which import from this one's folders and from no current folder.

Torch and Inductor take a process longer to import than most steps take to compile, so one that has done its job waits for
the next.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import vipack.version

__all__ = ["CompilingProcess", "start_compiling"]

_POLITE = 10  # niceness of a compilation: training comes first
_LIBRARIES = ("torch", "numpy", "pyro")  # in whose folders those that they need lie too
_WAITS = 120.0  # seconds that a process waits for another job
_ASKED = 60.0  # seconds after which none is asked, so that it cannot leave with a job
_UNREAD = ("VIPACK_CACHE", "PYTEST_CURRENT_TEST")  # differ from job to job, and no compilation reads them
# A planted file must come after the module whose name it has: the standard library, then the folders of this process's
# libraries, then the usual ones. vipack itself is loaded from where it is, so that no folder of sources is searched.
# Whatever libraries print must not be taken for an answer, nor compilers read the jobs.
_BEGIN = """
import importlib.util, json, os, sys
folders, package, seconds = json.loads(sys.argv[1])
jobs, answers, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
os.dup2(nothing, 0)
os.dup2(nothing, 1)
sys.path += folders
import site
site.main()
spec = importlib.util.spec_from_file_location("vipack", package + "/__init__.py", submodule_search_locations=[package])
sys.modules["vipack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["vipack"])
from vipack.engine.compiled.build import serve
sys.exit(serve(jobs, answers, seconds))
"""


class CompilingProcess:
    """A process that builds one job after another; see :func:`vipack.engine.compiled.build.serve`.

    Args:
        command: what to run.
        environment: to run it in.

    Raises:
        OSError: the process does not start.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._started_as = (os.getpid(), command, environment)
        self._idle_since = time.monotonic()
        self._process = subprocess.Popen(
            command,
            env=environment,
            cwd=os.path.abspath(os.sep),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the run
            umask=0o077 if os.name == "posix" else -1,  # whatever may be written by others is not loaded
        )
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _POLITE)

    def begin(self, work: Path) -> None:
        """Give it the job in `work`.

        Raises:
            OSError: it has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(os.fsencode(work))

    def fits(self, command: list[str], environment: dict[str, str]) -> bool:
        """Whether it waits, and would be started in the same way now."""
        lately = time.monotonic() - self._idle_since < _ASKED
        return lately and self._started_as == (os.getpid(), command, environment) and self._process.poll() is None

    def poll(self, *, wait: bool = False) -> int | None:
        """0 when the job is done, the code that the process ended with if it failed; None as long as it runs."""
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), wait)
        answer = self._process.stdout.read(1)
        if answer is None:
            return None
        if answer:
            self._idle_since = time.monotonic()
            _WAITING.append(self)
            return 0
        code = self._process.wait()
        self._close()
        return code

    def stop(self) -> None:
        """End it, with the compilers that it started."""
        if self._started_as[0] != os.getpid():  # a child that was forked is not to end its parent's
            return
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


_WAITING: list[CompilingProcess] = []


def start_compiling(work: Path) -> CompilingProcess:
    """Begin to build the job in `work`, in a process that waits for one or in a new one.

    The user's current folder, and what of ``PYTHONPATH`` is relative to it, are not searched for modules: there may lie
    anybody's ``hashlib.py``.

    Raises:
        OSError: the process does not start.
    """
    package = str(Path(vipack.version.__file__).absolute().parent)
    command = [sys.executable, *_flags(), "-c", _BEGIN, json.dumps([_folders(), package, _WAITS])]
    environment = _environment()
    while _WAITING:
        process = _WAITING.pop()
        if process.fits(command, environment):
            with contextlib.suppress(OSError):
                process.begin(work)
                return process
        process.stop()
    process = CompilingProcess(command, environment)
    process.begin(work)
    return process


@atexit.register
def _stop_waiting() -> None:
    while _WAITING:
        _WAITING.pop().stop()


def _flags() -> list[str]:
    """No folder before the standard library's, and none after it before :data:`_BEGIN` says so."""
    return ["-P", "-S", *(["-s"] if sys.flags.no_user_site else [])]


def _folders() -> list[str]:
    """Where this process has its libraries from, and the absolute folders of ``PYTHONPATH``."""
    files = [getattr(sys.modules.get(name), "__file__", None) for name in _LIBRARIES]
    folders = [str(Path(file).absolute().parents[1]) for file in files if file]
    folders += [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(folder)]
    return list(dict.fromkeys(folders))


def _environment() -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONSTARTUP", *_UNREAD)
        and not (name == "PYTHONHOME" and not os.path.isabs(value))
    }
    for name in ("CC", "CXX"):
        command, *options = environment.get(name, "").split() or [""]
        if os.path.dirname(command):  # from the user's folder, which is not the process's
            environment[name] = " ".join([os.path.abspath(command), *options])
    return {**environment, "PYTHONSAFEPATH": "1"}
