"""torch's private functions behind ``torch.nn.utils.rnn``, by which sequences are packed and padded again."""

from __future__ import annotations

from typing import Any

import torch

from vipack.compat.names import named

__all__ = ["pack", "packing_functions", "pad"]

_WITHOUT = "programs with packed sequences are not captured"
PACK = named("torch", "torch._VF._pack_padded_sequence", without=_WITHOUT)
PAD = named("torch", "torch._VF._pad_packed_sequence", without=_WITHOUT)


def packing_functions() -> tuple[Any, Any]:
    """What packs a padded sequence and what pads a packed one, as modes of torch functions meet them; None where there is none."""
    return (
        (torch._VF._pack_padded_sequence, torch._VF._pad_packed_sequence) if PACK.there and PAD.there else (None, None)
    )


def pack(*args: Any) -> Any:
    """``(padded values, lengths, batch first) -> (values, rows at each time)``."""
    return torch._VF._pack_padded_sequence(*args)


def pad(*args: Any) -> Any:
    """``(values, rows at each time, batch first, padding, least length) -> (padded values, lengths)``."""
    return torch._VF._pad_packed_sequence(*args)
