"""Whether the numbers in tensors are still those that were seen last.

A tensor's version says what torch has written to it. It does not show ``x.data.copy_(...)``, writes to a NumPy array that shares
its memory, or to a buffer that a loader refills. So the memory itself is compared with a copy.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vipack.compat.pytorch import version_of

__all__ = ["TensorContents", "copy_if_changed", "same_memory"]

_MOST_BYTES = 1 << 28  # of tensors of which a copy is kept; of larger ones it is a hash, which takes longer

_C: Any = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
_memcmp = _C.memcmp
_memcmp.restype = ctypes.c_int
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def same_memory(one: int, two: int, num_bytes: int) -> bool:
    """Whether two stretches of the host's memory hold the same."""
    return not _memcmp(one, two, num_bytes)


def copy_if_changed(copy: Tensor, given: Tensor) -> bool:
    """Make `copy`, a contiguous copy of a tensor like `given`, equal to it bit by bit; whether it was not."""
    if copy.is_cpu and given.is_contiguous() and given.is_cpu:
        if same_memory(copy.data_ptr(), given.data_ptr(), copy.nbytes):
            return False
    elif _same_numbers(copy, given):
        return False
    with torch.no_grad():
        copy.copy_(given)
    return True


class TensorContents:
    """Copies of tensors, to tell whether their numbers have changed since.

    Args:
        tensors: dense ones are compared with copies; of others only the version shows a change.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = [value.detach() for value in tensors]
        self._versions = [version_of(value) for value in self._tensors]
        self._seen: list[Tensor | bytes | None] = []
        left = _MOST_BYTES
        for value in self._tensors:
            left -= value.nbytes if value.layout == torch.strided else 0
            self._seen.append(_seen(value, copy=left >= 0))

    def changed(self, *, by_version: bool = False) -> bool:
        """Whether any has changed since the last call, or since the start.

        Args:
            by_version: ask for what torch has written only, which costs next to nothing.
        """
        changed = False
        for index, (value, seen) in enumerate(zip(self._tensors, self._seen, strict=True)):
            version = version_of(value)
            if by_version and version == self._versions[index]:
                continue
            written, self._versions[index] = version != self._versions[index], version
            if isinstance(seen, Tensor):
                changed = copy_if_changed(seen, value) or changed
            elif seen is None:
                changed = changed or written
            else:
                self._seen[index] = now = _seen(value, copy=False)
                changed = changed or now != seen
        return changed


def _seen(value: Tensor, *, copy: bool) -> Tensor | bytes | None:
    if value.layout != torch.strided:
        return None
    if copy:
        return value.clone(memory_format=torch.contiguous_format)
    memory: Any = _bytes_of(value.cpu()).numpy()
    return hashlib.blake2b(memory, digest_size=16).digest()


def _same_numbers(one: Tensor, two: Tensor) -> bool:
    return torch.equal(_bytes_of(one), _bytes_of(two.to(one.device)))


def _bytes_of(value: Tensor) -> Tensor:
    # As bytes: NaN equals itself then, and 0.0 is not -0.0.
    return value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
