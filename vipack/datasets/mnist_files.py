"""MNIST, from a folder of IDX files or downloaded with checksums."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from vipack.cache import cache_folder, make_folders
from vipack.datasets.idx import read_idx
from vipack.datasets.reading import PathLike, warn_uncached
from vipack.datasets.tables import Images
from vipack.errors import DataError, MissingExtraError, UsageError
from vipack.hints import checked

__all__ = ["mnist"]

_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_PREFIXES = {"train": "train", "test": "t10k"}
_REGISTRY = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_RETRIES = 1


@checked
def mnist(folder: PathLike | None = None, *, split: str = "train", url: str = _URL) -> Images:
    """Handwritten digits of 28 x 28 pixels: 60,000 to train on (``split="train"``), 10,000 to test on (``"test"``).

    Args:
        folder: where the IDX files are, gzipped or not; without it they are downloaded once to :func:`cache_folder`.
        url: where to download from; files must have the known checksums (SHA-256).

    Raises:
        UsageError: `split` is neither "train" nor "test".
        DataError: a file is missing, damaged or not IDX, or the download failed.
        MissingExtraError: a download needs pooch, which is not installed.

    Warns:
        DataWarning: the cache cannot be written; the files are downloaded each time.
    """
    if split not in _PREFIXES:
        raise UsageError(f"split: expected 'train' or 'test', found {split!r}.")
    names = [f"{_PREFIXES[split]}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    if folder is not None:
        return _images(str(folder), *(_in_folder(Path(folder), name) for name in names))
    cache = cache_folder() / "mnist"
    try:
        make_folders(cache)  # pooch would let the umask decide who else may write there
        return _images(url, *(_download(cache, name, url) for name in names))
    except OSError as error:
        warn_uncached(cache, error, "MNIST is downloaded")
    with tempfile.TemporaryDirectory() as temporary:
        return _images(url, *(_download(Path(temporary), name, url) for name in names))


def _images(source: str, images: Path, labels: Path) -> Images:
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    credit = f"LeCun, Cortes and Burges, The MNIST database of handwritten digits; read from {source}"
    return Images("MNIST", pixels.astype("float32") / 255.0, classes, credit, licence="CC BY-SA 3.0")


def _in_folder(folder: Path, name: str) -> Path:
    """The file, under any of the names that mirrors give it."""
    plain = name.removesuffix(".gz")
    candidates = [name, plain, plain.replace("-idx", ".idx"), plain.replace("-idx", ".idx") + ".gz"]
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of MNIST's IDX files, or none to download them.")
    present = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise DataError(f"{folder}: has neither {name} nor {plain} (it has {present}); put MNIST's IDX files there.")


def _download(folder: Path, name: str, url: str) -> Path:
    """The file in `folder`, downloaded unless it is there with the right checksum.

    Raises:
        OSError: `folder` cannot be written.
    """
    pooch = _pooch()
    import requests

    store = pooch.create(path=folder, base_url=url.rstrip("/") + "/", registry=_REGISTRY, retry_if_failed=_RETRIES)
    cure = "download MNIST's four files yourself and pass mnist(folder=...), or give another mirror with url=..."
    try:
        with _quiet(pooch.get_logger()):
            return Path(store.fetch(name))
    except requests.exceptions.RequestException as error:
        raise DataError(
            f"{url}: could not download {name} ({type(error).__name__}: {error}); check the network, or {cure}."
        ) from error
    except ValueError as error:
        if "hash" not in str(error):
            raise DataError(f"{url}: could not download {name} ({error}); {cure}.") from error
        raise DataError(
            f"{url}: the {name} found there is not the expected file: its SHA-256 is not {_REGISTRY[name]}, so it was "
            f"not kept; try again, or {cure}."
        ) from error


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """Pooch tells on standard error of every file that it fetches; libraries do not print."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _pooch() -> ModuleType:
    try:
        import pooch
    except ImportError as error:
        raise MissingExtraError(
            "mnist() downloads with pooch, which is not installed: pip install 'vipack[data]', or give the folder of "
            "MNIST's IDX files."
        ) from error
    module: ModuleType = pooch
    return module
