"""Whether a file is of the very fit that reads it, and what is different if it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vipack.errors import CheckpointError

__all__ = ["compare_fingerprints"]


def compare_fingerprints(
    saved: Mapping[str, Any],
    own: Mapping[str, Any],
    path: object,
    keys: tuple[str, ...],
    *,
    data_differ: bool = False,
) -> None:
    """
    Args:
        data_differ: whether other data were given, on which parameters may have other shapes.

    Raises:
        CheckpointError: `saved` differs from `own` in one of `keys`; the first difference is named.
    """
    for key in keys:
        if saved.get(key) == own[key]:
            continue
        if key in ("sites", "parameters"):
            detail = _first_difference(saved.get(key), own[key])
            if data_differ and key == "parameters" and set(saved.get(key, ())) == set(own[key]):
                raise CheckpointError(
                    f"{path}: was fitted to other data ({key}: {detail}), of which the guide keeps parameters for each row; load "
                    "it with the data of the fit (without data= if the file keeps them), and pass other rows to "
                    "fit.predict(data=...)."
                )
            raise CheckpointError(
                f"{path}: was written for another model or guide ({key}: {detail}); load it with the model and guide that "
                "it was fitted with."
            )
        raise CheckpointError(
            f"{path}: was written with {key} {saved.get(key)!r}, this fit has {own[key]!r}; use the same, or another file."
        )


def _first_difference(saved: Any, own: Any) -> str:
    def named(value: Any) -> dict[str, Any]:
        return dict(value) if isinstance(value, dict) else {str(item[0]): item[1:] for item in value or []}

    before, now = named(saved), named(own)
    for name in [*before, *now]:
        if before.get(name) != now.get(name):
            return f"{name!r} is {before.get(name, 'absent')} in the file and {now.get(name, 'absent')} here"
    return "order differs"
