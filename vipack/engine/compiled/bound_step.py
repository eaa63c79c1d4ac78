"""A compiled step bound to memory: thousands of steps in one call, from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vipack.engine.native.bound_loop import BoundLoop
from vipack.engine.native.bridge import Bridge, NativeError, sizes
from vipack.engine.native.cache_entries import read_entry

__all__ = ["NativeError", "NativeStep"]


class _Context(ctypes.Structure):
    _fields_ = [
        ("arena", ctypes.c_void_p),
        ("inputs", ctypes.c_void_p),
        ("results", ctypes.c_void_p),
        ("library", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
    ]


class NativeStep(BoundLoop):
    """``step.so`` over the tensors that a step works on.

    Args:
        folder: holds ``step.so`` and ``manifest.json``.
        library: the bridge to torch's operators.
        inputs: the step's inputs; values, states and buffers among them are updated in place, the others are read.

    Raises:
        NativeError: a file is missing, damaged or does not load.
    """

    def __init__(self, folder: Path, library: Path, inputs: Sequence[Tensor]) -> None:
        manifest = read_entry(folder)
        self._inputs = list(inputs)  # their memory must outlive every call
        for value in self._inputs:
            if not value.is_contiguous() and value.numel():
                raise NativeError("an input is not contiguous")
        try:
            run = ctypes.CDLL(str(folder / "step.so")).vipack_run
        except OSError as error:
            raise NativeError(f"step.so does not load: {error}") from error
        run.restype = ctypes.c_int64
        run.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p]
        self._arena = torch.zeros(manifest["arena"] + 64, dtype=torch.uint8)
        start = -(-self._arena.data_ptr() // 64) * 64
        self._pointers = (ctypes.c_void_p * max(1, len(inputs)))(*[value.data_ptr() for value in inputs])
        self._results = (ctypes.c_void_p * max(1, len(manifest["results"])))()
        bridge = _Bridge(library, manifest, self._inputs, start, self._results) if manifest["library"] else None
        context = _Context(
            start,
            ctypes.addressof(self._pointers),
            ctypes.addressof(self._results),
            bridge.function if bridge else None,
            bridge.table if bridge else None,
        )
        super().__init__(run, context, bridge)


class _Bridge(Bridge):
    """The library calls of a step, described once to the bridge."""

    def __init__(
        self, path: Path, manifest: Mapping[str, Any], inputs: Sequence[Tensor], arena: int, results: Any
    ) -> None:
        super().__init__(path)
        self.function = self.address("vipack_run_call")
        self._inputs, self._arena, self._offsets = inputs, arena, manifest["offsets"]
        for call in manifest["library"]:
            self.begin(call["number"], call["operator"], call["overload"])
            self.arguments(call["arguments"], call["keywords"])
        for layout in manifest["layouts"]:
            base = layout["base"]
            self.tell(
                "vipack_layout",
                base["index"],
                base["item"],
                len(layout["size"]),
                *sizes(layout["size"], layout["stride"]),
            )
        for slot, (number, item) in enumerate(manifest["results"]):
            target = ctypes.c_void_p(ctypes.addressof(results) + slot * ctypes.sizeof(ctypes.c_void_p))
            self.tell("vipack_wanted", number, item, target)

    def tensor(self, value: Any) -> None:
        view = value["view"]
        base = view["base"]
        if base["kind"] == "result":
            whole = view["size"] is None or (view["offset"] == 0 and view.get("whole", False))
            size, stride = sizes(view["size"] or (), view["stride"] or ())
            number = len(view["size"] or ())
            self.tell("vipack_returned", base["index"], base["item"], int(whole), view["offset"], number, size, stride)
            return
        start = (
            self._inputs[base["index"]].data_ptr()
            if base["kind"] == "input"
            else self._arena + self._offsets[base["index"]]
        )
        item = torch.empty((), dtype=getattr(torch, view["dtype"])).element_size()
        self.fixed(start + view["offset"] * item, view["dtype"], view["size"], view["stride"])
