"""The folder where vipack keeps what can be made again, and whether anybody else may write there."""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from vipack.errors import UsageError

__all__ = ["cache_folder", "make_folders", "others_may_write", "private_folder", "write_whole"]

_MOST_LINKS = 40  # in the path of a folder, as in the kernel


def cache_folder() -> Path:
    """``$VIPACK_CACHE``, else vipack's own folder among the system's caches; an absolute path that need not exist yet.

    On Linux ``$XDG_CACHE_HOME/vipack`` or ``~/.cache/vipack``, on macOS ``~/Library/Caches/vipack``, on Windows
    ``%LOCALAPPDATA%\\vipack\\Cache``. Compiled steps are below it, in ``engine``. Deleting it is safe: what is missing is
    made again. A variable that is empty counts as not set; so does an ``XDG_CACHE_HOME`` that is no absolute path, as
    the XDG Base Directory Specification asks for.

    Raises:
        UsageError: ``VIPACK_CACHE`` begins with the home of a user who has none.
    """
    chosen = os.environ.get("VIPACK_CACHE", "")
    if chosen:
        try:
            return Path(chosen).expanduser().absolute()
        except RuntimeError as error:
            raise UsageError(
                f"VIPACK_CACHE={chosen!r}: there is no such home folder; set it to a folder's absolute path."
            ) from error
    variable = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")
    below = ("vipack", "Cache") if sys.platform == "win32" else ("vipack",)
    system = Path(os.environ.get(variable, ""))
    if system.is_absolute():
        return system.joinpath(*below)
    home = _home()
    if home is None:
        return _without_a_home()
    usual = {"win32": ("AppData", "Local"), "darwin": ("Library", "Caches")}.get(sys.platform, (".cache",))
    return home.joinpath(*usual, *below)


def make_folders(folder: Path) -> None:
    """Make `folder` and those above it that are missing, for this user alone, whatever the umask is.

    Raises:
        OSError: one cannot be made.
    """
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        try:
            each.mkdir(mode=0o700)
        except FileExistsError:  # another process was first, or a file stands there
            if not each.is_dir():
                raise
        else:
            each.chmod(0o700)  # a umask may have taken even our own rights


def others_may_write(folder: Path) -> str:
    """Why somebody else may put files of theirs into `folder`, or replace the folder; empty if nobody may.

    The folder must belong to this user and be closed to the writing of others; every folder and symbolic link on the way
    must belong to this user or to root, and every folder be closed too, or sticky as /tmp is, where nobody can move what
    is not theirs. Of a path whose end is missing, what there is is looked at.
    """
    if not hasattr(os, "geteuid"):  # Windows keeps a user's folders by lists of its own
        return ""
    own = os.geteuid()
    ahead = list(reversed(folder.absolute().parts[1:]))
    path, links = Path(folder.absolute().anchor), 0
    status = os.lstat(path)
    while True:
        last = not ahead
        reason = _foreign(path, status, own, {own} if last else {own, 0}, sticky=not last)
        if reason or last:
            return reason
        name = ahead.pop()
        if name == "..":
            path = path.parent
            status = os.lstat(path)
            continue
        step = path / name
        try:
            status = os.lstat(step)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{step} cannot be looked at ({error.strerror})"
        if not stat.S_ISLNK(status.st_mode):
            path = step
            continue
        links += 1
        if links > _MOST_LINKS:
            return f"{step} is one of too many symbolic links"
        if status.st_uid not in (own, 0):
            return f"{step} is a symbolic link of {_user(status.st_uid)}"
        target = Path(os.readlink(step))
        ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        path = Path(target.anchor) if target.is_absolute() else path
        status = os.lstat(path)


def private_folder(prefix: str) -> Path:
    """A new temporary folder that nobody else may write to; it goes when the process ends.

    Raises:
        OSError: wherever temporary files are kept, others may write.
    """
    reasons = []
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]):
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        except OSError as error:
            reasons.append(f"{parent}: {error.strerror}")
            continue
        reason = others_may_write(folder)
        if not reason:
            atexit.register(_remove, folder, os.getpid())
            return folder
        folder.rmdir()
        reasons.append(reason)
    raise OSError(f"there is no place for private files: {'; '.join(reasons)}; set TMPDIR to a folder of your own")


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, making its folder; the file appears whole or not at all, whoever else writes it at the same time.

    Raises:
        OSError: the folder or file cannot be written.
    """
    make_folders(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _foreign(path: Path, status: os.stat_result, own: int, owners: set[int], *, sticky: bool) -> str:
    """What is wrong with one folder of a path."""
    if not stat.S_ISDIR(status.st_mode):
        return f"{path} is not a folder"
    if status.st_uid not in owners:
        return f"{path} belongs to {_user(status.st_uid)}"
    if status.st_mode & 0o022 and not (sticky and status.st_mode & stat.S_ISVTX):
        cure = f" (chmod go-w {path} mends it)" if status.st_uid == own else ""
        return f"others may write to {path}{cure}"
    return ""


def _user(number: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(number).pw_name!r}"
    except KeyError:
        return f"user {number}"


def _home() -> Path | None:
    """None for a user id without a home, as in some containers, or with one that is no absolute path."""
    if os.environ.get("HOME") == "":  # which would make the root folder a home
        return None
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() else None


def _without_a_home() -> Path:
    """A folder with a name that anybody can foresee, unless somebody else was there first."""
    folder = Path(tempfile.gettempdir()) / f"vipack-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    if folder.exists() and others_may_write(folder):
        return _instead()
    return folder


@functools.cache
def _instead() -> Path:
    return private_folder("vipack-")


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a child that was forked is not to take its parent's folder away
        shutil.rmtree(folder, ignore_errors=True)
