"""The folder where data sets that were built or downloaded are kept."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from pathlib import Path

__all__ = ["cache_folder", "write_whole"]


def cache_folder() -> Path:
    """Where data sets are kept: ``$VIPACK_CACHE``, else the system's folder for caches; it need not exist yet.

    On Linux ``$XDG_CACHE_HOME/vipack`` or ``~/.cache/vipack``, on macOS ``~/Library/Caches/vipack``, on Windows
    ``%LOCALAPPDATA%\\vipack\\Cache``. Deleting it is safe: what is missing is made again.
    """
    chosen = os.environ.get("VIPACK_CACHE", "")
    if chosen:
        return Path(chosen).expanduser().absolute()
    try:
        home = Path.home()
    except RuntimeError:  # a user id without a home, as in some containers
        return Path(tempfile.gettempdir()) / f"vipack-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "vipack" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "vipack"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "vipack"


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, making its folder; the file appears whole or not at all, whoever else writes it at the same time.

    Raises:
        OSError: the folder or file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
