"""One file for a fit: written whole or not at all, read without running anything that is in it."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vipack.errors import CheckpointError, UsageError, VipackError
from vipack.hints import checked_class
from vipack.version import __version__

__all__ = ["Checkpoint", "checkpoint_of", "clean_temporaries", "read_file", "unharmed", "write_file"]

FORMAT = 1
_MARK = "vipack fit"


@checked_class
@dataclass(frozen=True)
class Checkpoint:
    """Save a run to `path` as it goes, and go on from there when the same fit is started again.

    Attributes:
        every_steps: save after so many steps; None goes by time alone.
        every_seconds: save at the latest after so many seconds.
    """

    path: str | os.PathLike[str]
    every_steps: int | None = None
    every_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.every_steps is not None and (not isinstance(self.every_steps, int) or self.every_steps < 1):
            raise UsageError(f"checkpoint: every_steps must be a positive integer or None, found {self.every_steps!r}.")
        if not self.every_seconds > 0:
            raise UsageError(f"checkpoint: every_seconds must be positive, found {self.every_seconds!r}.")


def checkpoint_of(checkpoint: object) -> Checkpoint | None:
    """
    Raises:
        UsageError: neither a path nor a Checkpoint, or the folder does not exist.
    """
    if checkpoint is None:
        return None
    if isinstance(checkpoint, str | os.PathLike):
        checkpoint = Checkpoint(checkpoint)
    if not isinstance(checkpoint, Checkpoint):
        raise UsageError(f"checkpoint: expected a path or a vipack.Checkpoint, found {checkpoint!r}.")
    folder = Path(checkpoint.path).absolute().parent
    if not folder.is_dir():
        raise UsageError(f"checkpoint: folder {folder} does not exist; make it first.")
    return checkpoint


def write_file(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write `content` to a temporary file beside `path`, flush it to disk, and put it in place in one move.

    Raises:
        CheckpointError: it cannot be written, as on a disk that is full; a file from before is as it was.
        UsageError: the folder does not exist, or `path` is one.
    """
    target = Path(path)
    folder = target.absolute().parent
    if not folder.is_dir():
        raise UsageError(
            f"{target}: folder {folder} does not exist; make it first, as with pathlib.Path({str(folder)!r}).mkdir(parents=True)."
        )
    if target.is_dir():
        raise UsageError(f"{target}: is a folder; name a file in it, as in {str(target / 'fit.pt')!r}.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    stamped = {"mark": _MARK, "format": FORMAT, "versions": _versions(), **content}
    try:
        with temporary.open("wb") as file:
            torch.save(stamped, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except (OSError, RuntimeError) as error:  # torch closes an archive that it could not write with an error of its own
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        cause = error.strerror if isinstance(error, OSError) else "the disk may be full, or files limited in size"
        raise CheckpointError(
            f"{target}: could not be written ({cause}); the file from before, if there was one, is as it was. Make room, or name "
            "another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a file that :func:`write_file` wrote; nothing in it is executed.

    Raises:
        CheckpointError: missing, truncated, of another kind or version, or holding anything but plain values.
    """
    target = Path(path)
    if not target.is_file():
        raise CheckpointError(f"{target}: no such file; check the path, or save a fit there with fit.save().")
    # Torch would read a bare pickle too, and does not look at an archive's checksums.
    if not zipfile.is_zipfile(target):
        raise CheckpointError(
            f"{target}: is truncated, damaged or not a file of vipack's, so it was not read; use a copy that fit.save() wrote."
        )
    with unharmed(target):
        with zipfile.ZipFile(target) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{target}: is damaged (in {damaged}); use a copy that fit.save() wrote.")
        try:
            content = torch.load(target, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{target}: holds objects that would run code when read, so it was not read; use a copy that fit.save() wrote."
            ) from error
        except RuntimeError as error:
            raise CheckpointError(
                f"{target}: is damaged or not a file of vipack's, so it was not read; use a copy that fit.save() wrote."
            ) from error
    if not isinstance(content, dict) or content.get("mark") != _MARK:
        raise CheckpointError(f"{target}: is not a fit saved by vipack; use a file that fit.save() wrote.")
    if content.get("format") != FORMAT:
        written = content.get("versions", {}).get("vipack", "an unknown version")
        raise CheckpointError(
            f"{target}: has format {content.get('format')!r}, written by vipack {written}; this version reads format "
            f"{FORMAT}. Load it with that version."
        )
    return content


@contextlib.contextmanager
def unharmed(path: str | os.PathLike[str]) -> Iterator[None]:
    """Read from a file, or from its content, inside the block.

    Raises:
        CheckpointError: something in it is absent or of another kind.
    """
    try:
        yield
    except VipackError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: is damaged ({type(error).__name__}: {error}); use a copy that fit.save() wrote."
        ) from error


def clean_temporaries(path: str | os.PathLike[str]) -> list[Path]:
    """Remove temporary files for `path` that killed processes left behind."""
    target = Path(path)
    removed = []
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        owner = leftover.name.removesuffix(".tmp").rpartition(".")[2]
        if owner.isdigit() and int(owner) != os.getpid() and not _alive(int(owner)):
            with contextlib.suppress(OSError):
                leftover.unlink()
                removed.append(leftover)
    return removed


def due(checkpoint: Checkpoint, step: int, last_step: int, last_time: float) -> bool:
    """Whether it is time to save again."""
    by_steps = checkpoint.every_steps is not None and step - last_step >= checkpoint.every_steps
    return step > last_step and (by_steps or time.monotonic() - last_time >= checkpoint.every_seconds)


def _versions() -> dict[str, str]:
    import pyro

    return {
        "vipack": __version__,
        "torch": str(torch.__version__),
        "pyro": str(pyro.__version__),
    }


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
