"""Small sources in C++, compiled when their functions are first wanted, and kept on disk."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from vipack.engine.native.cache_entries import (
    NativeError,
    find_entry,
    machine,
    put_entry,
    read_entry,
    seal,
    writable_folder,
)
from vipack.engine.native.cpp_source import read_source

__all__ = ["functions_of"]

_OPTIONS: tuple[list[str], ...] = (["-march=native"], ["-mcpu=native"], [])  # the first that the compiler understands
_REALS = {torch.float32: "float", torch.float64: "double"}
_INDICES = {torch.int32: "int32_t", torch.int64: "int64_t"}
_NAME = "functions.so"


@functools.cache
def functions_of(
    source: str, dtype: torch.dtype, index: torch.dtype, defines: tuple[str, ...] = ()
) -> ctypes.CDLL | None:
    """The compiled functions of a source; None where there is no compiler, or ``VIPACK_NATIVE=0`` forbids them.

    Args:
        source: path from the folder that vipack lies in, of a file without headers of torch's.
        dtype: what REAL stands for in it.
        index: what INDEX stands for.
        defines: other options of the preprocessor.
    """
    if os.environ.get("VIPACK_NATIVE") == "0" or dtype not in _REALS or index not in _INDICES:
        return None
    options = [*defines, f"-DREAL={_REALS[dtype]}", f"-DINDEX={_INDICES[index]}"]
    text = read_source(source)
    key = f"functions-{hashlib.sha256(f'{text}{options}{machine()}'.encode()).hexdigest()[:24]}"
    try:
        folder = find_entry(key) or _compile(text, options, key)
        read_entry(folder)
        return ctypes.CDLL(str(folder / _NAME))
    except (NativeError, OSError):
        return None


def _compile(text: str, defines: list[str], key: str) -> Path:
    """
    Raises:
        NativeError: no compiler, or it failed.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if compiler is None:
        raise NativeError("there is no C++ compiler")
    root = writable_folder()
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=root))
    try:
        source = work / "functions.cpp"
        source.write_text(text)
        failure = ""
        for options in _OPTIONS:
            failure = _run(
                compiler, "-c", "-O3", "-ffast-math", "-fPIC", "-std=c++17", *defines, *options, str(source), cwd=work
            )
            if not failure:
                break
        # Linked by itself: with -ffast-math the library would have the process that loads it round tiny numbers to 0.
        failure = failure or _run(compiler, "-shared", "functions.o", "-o", _NAME, "-lm", cwd=work)
        if failure:
            raise NativeError(f"{compiler} failed: {failure}")
        (work / "manifest.json").write_text("{}")
        seal(work, key)
        return put_entry(work, root, key)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _run(*command: str, cwd: Path) -> str:
    """What the compiler says where it fails."""
    outcome = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", check=False)
    return "" if outcome.returncode == 0 else f"{outcome.stderr:.500}" or f"code {outcome.returncode}"
