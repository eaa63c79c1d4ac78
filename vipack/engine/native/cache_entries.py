"""What was compiled, on disk: entries of a folder that this user alone can write to, read only as they were written.

An entry is a folder with ``manifest.json``, which holds the SHA-256 of every other file in it. Shared objects and
Inductor's files run code when they are loaded, so whoever can write one runs code as whoever loads it. Therefore nothing
is loaded from where another user may write, and each file must be this user's and closed to others at the time it is
loaded; the checksums find what a crash, a full disk or a copy has spoilt.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import vipack.cache as cache
from vipack.errors import EngineWarning, VipackError, warn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "NativeError",
    "cache_folder",
    "claim_entry",
    "find_entry",
    "forget",
    "machine",
    "put_entry",
    "read_entry",
    "seal",
    "verified_files",
    "writable_folder",
]

_MANIFEST = "manifest.json"
_KEPT = 500  # entries; the oldest go first
_ABANDONED = 86_400.0  # seconds after which a folder of work belongs to a process that was killed


class NativeError(Exception):
    """The compiled files cannot be used; the message says why."""


def cache_folder() -> Path:
    """``engine`` in vipack's cache; a private temporary folder where others may write there, or it cannot be made.

    Raises:
        OSError: a private folder cannot be made either.

    Warns:
        EngineWarning: it is a temporary folder, for this process alone; the reason is named.
    """
    try:
        folder = cache.cache_folder() / "engine"
        cache.make_folders(folder)
        reason = cache.others_may_write(folder)
    except OSError as error:
        reason = f"{error.filename or 'the cache'}: {error.strerror or error}"
    except VipackError as error:
        reason = str(error).rstrip(".")
    return _private_folder(reason) if reason else folder


def writable_folder() -> Path:
    """Where new entries go: :func:`cache_folder`, or a private folder where that can only be read."""
    folder = cache_folder()
    return folder if _writable(folder) else _private_folder(f"{folder} cannot be written to")


def find_entry(key: str) -> Path | None:
    """The folder of an entry that is as it was written, and may be loaded; one that is not is removed."""
    for root in dict.fromkeys([cache_folder(), *_private.values()]):
        folder = root / key
        if not (folder / _MANIFEST).is_file():
            continue
        try:
            read_entry(folder)
        except NativeError:
            forget(folder)
            continue
        with contextlib.suppress(OSError):
            os.utime(folder)  # used lately
        return folder
    return None


def claim_entry(root: Path, key: str) -> Callable[[], None] | None:
    """The right to make an entry, until what is returned is called or the process ends; None while another process has it.

    Where files cannot be locked every process has it, an entry may be made twice, and the first one counts.

    Raises:
        OSError: no file can be made in `root`.
    """
    if fcntl is None:
        return lambda: None
    path, process = root / f".claim-{key}", os.getpid()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(handle)
        return None
    except OSError:  # a file system without locks
        os.close(handle)
        path.unlink(missing_ok=True)
        return lambda: None

    def give_up() -> None:
        if os.getpid() == process:  # a child that was forked has no part in it
            path.unlink(missing_ok=True)
            os.close(handle)

    return give_up


def put_entry(work: Path, root: Path, key: str) -> Path:
    """Move what lies in `work`, sealed, into `root` under `key`; another process may have been first."""
    target = root / key
    for _ in range(2):
        try:
            work.replace(target)
        except OSError:
            try:
                read_entry(target)
            except NativeError:
                forget(target)
                continue
            shutil.rmtree(work, ignore_errors=True)
        _prune(root)
        return target
    return work  # beside an entry that is spoilt and cannot be removed


def forget(folder: Path) -> None:
    """Remove an entry."""
    shutil.rmtree(folder, ignore_errors=True)


def seal(folder: Path, key: str) -> None:
    """Write the checksums of all files, and the key that the entry is for, into its manifest.

    Raises:
        OSError, ValueError: the manifest or a file cannot be read.
    """
    path = folder / _MANIFEST
    manifest = json.loads(path.read_text())
    files = {name: _checksum((folder / name).read_bytes()) for name in _files(folder)}
    text = json.dumps({**manifest, "key": key, "files": files})
    path.unlink()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def read_entry(folder: Path) -> dict[str, Any]:
    """The manifest of an entry, all of whose files are as they were written, in a place where nobody else can write.

    Raises:
        NativeError: a file is missing, damaged, or may be somebody else's work.
    """
    return _read(folder)[0]


def verified_files(folder: Path) -> dict[str, bytes]:
    """The content of an entry's files by relative path, the very bytes that were checked; see :func:`read_entry`."""
    return _read(folder)[1]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    reason = cache.others_may_write(folder)
    if reason:
        raise NativeError(f"the compiled step in {folder} is not loaded: {reason}")
    try:
        manifest: dict[str, Any] = json.loads(_own_bytes(folder / _MANIFEST))
        checksums, key = manifest["files"], manifest["key"]
        contents = {name: _own_bytes(folder / name) for name in _files(folder)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NativeError(f"the compiled step in {folder} cannot be read: {error}") from error
    if key != folder.name or {name: _checksum(content) for name, content in contents.items()} != checksums:
        raise NativeError(f"the compiled step in {folder} is damaged")
    return manifest, contents


def _own_bytes(path: Path) -> bytes:
    """
    Raises:
        OSError: it cannot be read, or it is a link, or another user's, or others may write to it.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        foreign = hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & 0o022)
        if foreign or not stat.S_ISREG(status.st_mode):
            raise OSError(f"others may have written {path}")
        return file.read()


def _files(folder: Path) -> list[str]:
    """Relative paths of all files but the manifest."""
    paths = [Path(directory, name).relative_to(folder) for directory, _, names in os.walk(folder) for name in names]
    return sorted(path.as_posix() for path in paths if str(path) != _MANIFEST)


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_private: dict[int, Path] = {}  # process -> its folder: a forked child has another one


def _private_folder(reason: str) -> Path:
    process = os.getpid()
    if process not in _private:
        _private.clear()
        _private[process] = cache.private_folder("vipack-engine-")
        warn(
            EngineWarning(
                f"compiled steps are kept in a temporary folder, for this process alone, since {reason}; "
                "VIPACK_CACHE names another folder."
            )
        )
    return _private[process]


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)


def _prune(folder: Path) -> None:
    for work in folder.glob(".build-*"):
        with contextlib.suppress(OSError):  # another process may have been first
            if time.time() - work.stat().st_mtime > _ABANDONED:
                shutil.rmtree(work, ignore_errors=True)
    entries = [entry for entry in folder.iterdir() if (entry / _MANIFEST).is_file()]
    for entry in sorted(entries, key=lambda e: e.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(entry, ignore_errors=True)


@functools.cache
def machine() -> str:
    """The processor and torch: what is compiled for others may not run here."""
    return f"{platform.machine()} {_processor_flags()} {torch.__version__}"


def _processor_flags() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return hashlib.sha256(line.encode()).hexdigest()
    return platform.processor()
