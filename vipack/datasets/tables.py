"""Small data sets that fit in a few named arrays: tables and grey images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vipack.errors import DataError, UsageError
from vipack.hints import checked_class

if TYPE_CHECKING:
    import pandas

__all__ = ["Images", "Table", "split_rows"]

Array = np.ndarray[Any, Any]


@checked_class
@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Named columns of one length.

    Attributes:
        columns: name -> ``(N,)``; fits ``vi.fit(model, data=table.columns)`` when the model's arguments bear these names.
        source: where the numbers come from.
        licence: on what terms they may be used.
    """

    name: str
    columns: dict[str, Array]
    source: str
    licence: str

    def __post_init__(self) -> None:
        sizes = {name: column.shape for name, column in self.columns.items()}
        if (
            not sizes
            or any(len(shape) != 1 or shape[0] == 0 for shape in sizes.values())
            or len(set(sizes.values())) > 1
        ):
            raise DataError(
                f"{self.name}: columns have shapes {sizes}; a table needs columns of one length (N,), N > 0."
            )

    @property
    def num_rows(self) -> int:
        """N."""
        return len(next(iter(self.columns.values())))

    def __getitem__(self, column: str) -> Array:
        if column not in self.columns:
            raise UsageError(f"{self.name} has no column {column!r}; it has {', '.join(self.columns)}.")
        return self.columns[column]

    def to_frame(self) -> pandas.DataFrame:
        """The columns as a DataFrame."""
        import pandas

        return pandas.DataFrame(self.columns)

    def __repr__(self) -> str:
        return f"Table({self.name!r}: {self.num_rows} rows of {', '.join(self.columns)})"


@checked_class
@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Grey images with a class each.

    Attributes:
        images: ``(N, H, W)`` float32 in [0, 1]; 0 is background.
        labels: ``(N,)`` int64.
        source: where the images come from.
        licence: on what terms they may be used.
    """

    name: str
    images: Array
    labels: Array
    source: str
    licence: str

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.ndim != 3 or 0 in images.shape:
            raise DataError(f"{self.name}: images have shape {images.shape}; expected (N, H, W), none of them 0.")
        if labels.shape != images.shape[:1]:
            raise DataError(
                f"{self.name}: {len(images)} images but labels of shape {labels.shape}; give one label each."
            )
        low, high = float(images.min()), float(images.max())
        if not (low >= 0.0 and high <= 1.0):
            raise DataError(
                f"{self.name}: pixels lie in [{low:g}, {high:g}]; expected [0, 1], so divide by the largest."
            )
        object.__setattr__(self, "images", images.astype(np.float32, copy=False))
        object.__setattr__(self, "labels", labels.astype(np.int64, copy=False))

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.images)

    @property
    def rows(self) -> Array:
        """``(N, H * W)``: the images as vectors."""
        return self.images.reshape(self.num_images, -1)

    def take(self, indices: Any) -> Images:
        """The images at `indices`: integers, a slice or a mask."""
        rows = np.atleast_1d(np.arange(self.num_images)[indices])
        return Images(self.name, self.images[rows], self.labels[rows], self.source, self.licence)

    def split(self, held_out: float = 0.1, *, seed: int = 0) -> tuple[Images, Images]:
        """Random images to train on and a fraction `held_out` of them to test on.

        Raises:
            UsageError: one of the two would be empty.
        """
        kept, tested = split_rows(self.name, self.num_images, held_out, seed)
        return self.take(kept), self.take(tested)

    def __repr__(self) -> str:
        height, width = self.images.shape[1:]
        return f"Images({self.name!r}: {self.num_images} of {height} x {width} pixels)"


def split_rows(name: str, num_rows: int, fraction: float, seed: int) -> tuple[Array, Array]:
    """Sorted indices of the rows to train on and of a random `fraction` of them to test on."""
    if not 0.0 < fraction < 1.0:
        raise UsageError(f"held_out: expected a fraction between 0 and 1, found {fraction!r}.")
    size = round(fraction * num_rows)
    if not 0 < size < num_rows:
        raise UsageError(
            f"held_out: {fraction!r} of the {num_rows} rows of {name} leaves one side empty; choose another fraction."
        )
    order = np.random.default_rng(seed).permutation(num_rows)
    return np.sort(order[size:]), np.sort(order[:size])
