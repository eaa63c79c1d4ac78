"""From Python to the bridge of bridge.cpp: operators of torch's, described once and then called by number from C++."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vipack.engine.native.cache_entries import NativeError, forget, read_entry
from vipack.engine.native.dtypes import SCALAR_TYPES

__all__ = ["Bridge", "NativeError", "sizes"]

_LAYOUTS = {"strided": 0, "contiguous_format": 0, "preserve_format": 1}
_WITHOUT_RESULT = ("vipack_layout", "vipack_wanted")


class Bridge(ABC):
    """One table of calls.

    Args:
        path: the compiled bridge, in its entry.

    Raises:
        NativeError: it is damaged, may be somebody else's, or does not load.
    """

    def __init__(self, path: Path) -> None:
        try:
            read_entry(path.parent)
            self._library = library = ctypes.CDLL(str(path))
        except (NativeError, OSError) as error:
            forget(path.parent)  # to be compiled anew with the next step
            raise NativeError(f"{path.parent.name} does not load: {error}") from error
        library.vipack_table.restype = ctypes.c_void_p
        library.vipack_table_error.restype = ctypes.c_char_p
        self.table = ctypes.c_void_p(library.vipack_table())

    def address(self, function: str) -> ctypes.c_void_p:
        """Of one of the bridge's functions."""
        return ctypes.cast(getattr(self._library, function), ctypes.c_void_p)

    def begin(self, number: int, operator: str, overload: str) -> None:
        """Describe the next call."""
        self.tell("vipack_call", number, operator.encode(), overload.encode())

    def arguments(self, positional: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Of the call begun last."""
        for position, name, value in [
            *((i, "", value) for i, value in enumerate(positional)),
            *((0, name, value) for name, value in named.items()),
        ]:
            self.tell("vipack_argument", position, name.encode())
            self.value(value)

    def value(self, value: Any) -> None:
        """One argument, or one item of a list."""
        if isinstance(value, list | tuple):
            self.tell("vipack_list_begin")
            for item in value:
                self.value(item)
            self.tell("vipack_list_end")
        elif value is None:
            self.tell("vipack_none")
        elif isinstance(value, bool):
            self.tell("vipack_bool", int(value))
        elif isinstance(value, int):
            self.tell("vipack_int", value)
        elif isinstance(value, float):
            self.tell("vipack_double", ctypes.c_double(value))
        elif value == "device:cpu":
            self.tell("vipack_cpu")
        elif isinstance(value, str) and value.startswith("torch."):
            self._torch_name(value.removeprefix("torch."))
        elif isinstance(value, str):
            self.tell("vipack_string", value.encode())
        else:
            self.tensor(value)

    @abstractmethod
    def tensor(self, value: Any) -> None:
        """An argument of any other type."""

    def fixed(self, address: int, dtype: str, size: Sequence[int], stride: Sequence[int]) -> None:
        """A tensor that stays where it is."""
        self.tell("vipack_fixed", ctypes.c_void_p(address), SCALAR_TYPES[dtype], len(size), *sizes(size, stride))

    def into(self, item: int, address: int, dtype: str, size: Sequence[int], stride: Sequence[int]) -> None:
        """Where one result is copied to."""
        self.tell("vipack_into", item, ctypes.c_void_p(address), SCALAR_TYPES[dtype], len(size), *sizes(size, stride))

    def tell(self, function: str, *arguments: Any) -> None:
        """
        Raises:
            NativeError: torch has no such operator, or not with these arguments.
        """
        wrapped = [ctypes.c_int64(a) if isinstance(a, int) else a for a in arguments]
        if getattr(self._library, function)(self.table, *wrapped) and function not in _WITHOUT_RESULT:
            raise NativeError(self.error())

    def error(self) -> str:
        """What the last failing call said."""
        text: bytes = self._library.vipack_table_error(self.table)
        return text.decode(errors="replace")

    def free(self) -> None:
        """Give the table back."""
        self._library.vipack_table_free(self.table)

    def _torch_name(self, name: str) -> None:
        if name not in SCALAR_TYPES and name not in _LAYOUTS:
            raise NativeError(f"torch.{name} is not understood")
        self.tell("vipack_int", SCALAR_TYPES.get(name, _LAYOUTS.get(name, 0)))


def sizes(size: Sequence[int], stride: Sequence[int]) -> tuple[Any, Any]:
    """Both as arrays of C."""
    kind = ctypes.c_int64 * max(1, len(size))
    return kind(*size), kind(*stride)
