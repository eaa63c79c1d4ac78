"""The process that compiles: a Python of its own, which imports from this one's folders and from no current folder."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import vipack.version

__all__ = ["start_compiling"]

_POLITE = 10  # niceness of a compilation: training comes first
_LIBRARIES = ("torch", "numpy", "pyro")  # in whose folders those that they need lie too
# A planted file must come after the module whose name it has: the standard library, then the folders of this process's
# libraries, then the usual ones. vipack itself is loaded from where it is, so that no folder of sources is searched.
_BEGIN = """
import importlib.util, json, sys
folders, package = json.loads(sys.argv[1])
sys.path += folders
import site
site.main()
spec = importlib.util.spec_from_file_location("vipack", package + "/__init__.py", submodule_search_locations=[package])
sys.modules["vipack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["vipack"])
from vipack.engine.compiled.build import main
sys.exit(main(sys.argv[2:]))
"""


def start_compiling(work: Path) -> subprocess.Popen[bytes]:
    """Begin to build the job in `work`; see :func:`vipack.engine.compiled.build.main`.

    The user's current folder, and what of ``PYTHONPATH`` is relative to it, are not searched for modules: there may lie
    anybody's ``hashlib.py``.

    Raises:
        OSError: the process does not start.
    """
    package = str(Path(vipack.version.__file__).absolute().parent)
    process = subprocess.Popen(
        [sys.executable, *_flags(), "-c", _BEGIN, json.dumps([_folders(), package]), str(work)],
        env=_environment(work),
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the run
        umask=0o077 if os.name == "posix" else -1,  # whatever may be written by others is not loaded
    )
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _POLITE)
    return process


def _flags() -> list[str]:
    """No folder before the standard library's, and none after it before :data:`_BEGIN` says so."""
    return ["-P", "-S", *(["-s"] if sys.flags.no_user_site else [])]


def _folders() -> list[str]:
    """Where this process has its libraries from, and the absolute folders of ``PYTHONPATH``."""
    files = [getattr(sys.modules.get(name), "__file__", None) for name in _LIBRARIES]
    folders = [str(Path(file).absolute().parents[1]) for file in files if file]
    folders += [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(folder)]
    return list(dict.fromkeys(folders))


def _environment(work: Path) -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONSTARTUP") and not (name == "PYTHONHOME" and not os.path.isabs(value))
    }
    for name in ("CC", "CXX"):
        command, *options = environment.get(name, "").split() or [""]
        if os.path.dirname(command):  # from the user's folder, which is not the process's
            environment[name] = " ".join([os.path.abspath(command), *options])
    return {**environment, "PYTHONSAFEPATH": "1", "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")}
