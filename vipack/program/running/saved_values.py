"""Values from a file, checked against the program's own tensors."""

from __future__ import annotations

from torch import Tensor

from vipack.errors import CheckpointError

__all__ = ["like_own"]


def like_own(name: str, saved: Tensor, own: Tensor) -> Tensor:
    """`saved` with the type and device of `own`.

    Raises:
        CheckpointError: they differ in shape.
    """
    if saved.shape != own.shape:
        raise CheckpointError(
            f"parameter {name!r}: saved shape {tuple(saved.shape)}, the program's is {tuple(own.shape)}; "
            "the file belongs to another model, guide or data set."
        )
    return saved.to(own)
