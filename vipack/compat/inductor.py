"""Inductor, all of which is private: generating a program, compiling C++, loading what was compiled.

Inductor takes a second to import, so that its names are looked for where it is used, which is in a process of its own. What
is missing there ends the compilation with its message, and the run goes on a tier lower.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat.names import PrivateName, named
from vipack.compat.patching import patched

__all__ = [
    "MissingNameError",
    "compile_cpp",
    "generated_code",
    "laid_out",
    "load_artifact",
    "require",
    "results_kept",
    "standalone",
    "trusting_cpu_flags",
    "turned_round_apart",
]

_NO_COMPILER = "nothing is compiled, neither the interpreter nor a loop"
_NO_LOOP = "no loop is compiled"
_SLOWER = "loops that are compiled are slower"

STANDALONE = named(  # a function, where a module has the same name
    "torch",
    "torch._inductor.standalone_compile",
    "torch._inductor:standalone_compile",
    without=_NO_LOOP,
    stops="compiled",
)
ARTIFACT = named(
    "torch",
    "torch._inductor.CompiledArtifact",
    "torch._inductor:CompiledArtifact.load",
    without=_NO_LOOP,
    stops="compiled",
)
OUTPUT_CODE = named(
    "torch",
    "GraphLowering.save_output_code",
    "torch._inductor.graph:GraphLowering.save_output_code",
    without=_NO_LOOP,
    stops="compiled",
)
PYBINDING = named(
    "torch",
    "AsyncCompile.cpp_pybinding",
    "torch._inductor.async_compile:AsyncCompile.cpp_pybinding",
    without=_NO_LOOP,
    stops="compiled",
)
CONFIG = named(
    "torch",
    "torch._inductor.config.patch",
    without="every compilation tries first which instructions the processor has",
)
BUILDER = named("torch", "torch._inductor.cpp_builder.CppBuilder", without=_NO_COMPILER, stops="native")
BUILD_OPTIONS = named("torch", "torch._inductor.cpp_builder.CppTorchOptions", without=_NO_COMPILER, stops="native")
PICK_ISA = named("torch", "torch._inductor.cpu_vec_isa.pick_vec_isa", without=_NO_COMPILER, stops="native")
NO_ISA = named("torch", "torch._inductor.cpu_vec_isa.invalid_vec_isa", without=_NO_COMPILER, stops="native")
TRY_ISA = named(
    "torch",
    "VecISA.check_build",
    "torch._inductor.cpu_vec_isa:VecISA.check_build",
    without="the first compilation of a process compiles six trials and loads each in another process",
)
REUSE = named(
    "torch",
    "StorageBox.should_realize_on_reuse",
    "torch._inductor.ir:StorageBox.should_realize_on_reuse",
    without=_SLOWER,
)
OPCOUNT = named("torch", "Pointwise.inner_fn_opcount", "torch._inductor.ir:Pointwise.inner_fn_opcount", without=_SLOWER)
FILL_ORDER = named(
    "torch", "ComputedBuffer.get_fill_order", "torch._inductor.ir:ComputedBuffer.get_fill_order", without=_SLOWER
)
FLEXIBLE = named("torch", "FlexibleLayout", "torch._inductor.ir:FlexibleLayout", without=_SLOWER)
LOWERINGS = named(
    "torch", "torch._inductor.lowering.lowerings", lambda: _lowerings()[torch.ops.prims.rev.default], without=_SLOWER
)
FALLBACK = named("torch", "torch._inductor.lowering.fallback_handler", without=_SLOWER)


class MissingNameError(Exception):
    """This torch has not got what compiling needs; the message names it."""


def require(*names: PrivateName) -> None:
    """
    Raises:
        MissingNameError: one of them is not there.
    """
    for name in names:
        if not name.there:
            raise MissingNameError(name.message)


def standalone(module: fx.GraphModule, examples: Sequence[Tensor], patches: dict[str, Any]) -> Any:
    """Let Inductor compile `module`, with these settings of its configuration.

    Raises:
        MissingNameError: this torch has no such function.
    """
    require(STANDALONE)
    from torch._inductor import standalone_compile

    options = {"config_patches": patches}
    return standalone_compile(module, list(examples), dynamic_shapes="from_example_inputs", options=options)


@contextlib.contextmanager
def generated_code() -> Iterator[list[str]]:
    """Collect generated programs, and let their kernels be mere names: they are compiled later, all together.

    Raises:
        MissingNameError: this torch writes programs in another way.
    """
    require(OUTPUT_CODE, PYBINDING)
    from torch._inductor import async_compile, graph

    programs: list[str] = []
    with (
        patched(graph.GraphLowering, save_output_code=programs.append),
        patched(async_compile.AsyncCompile, cpp_pybinding=lambda self, argtypes, source_code: None),
    ):
        yield programs


@contextlib.contextmanager
def results_kept(worth: Callable[[int, int], bool]) -> Iterator[None]:
    """Compute a result once, though it is used at many rows, where it is ``worth(number of uses, number of operations)``.

    Inductor would put it into the loop over the rows.
    """
    if not (REUSE.there and OPCOUNT.there):
        yield
        return
    from torch._inductor import ir

    box: Any = ir.StorageBox
    original = box.should_realize_on_reuse

    def kept(self: Any, users: int, **options: Any) -> bool:
        own = isinstance(self.data, ir.Pointwise) and worth(users, self.data.inner_fn_opcount().num_ops)
        return own or bool(original(self, users, **options))

    with patched(box, should_realize_on_reuse=kept):
        yield


@contextlib.contextmanager
def laid_out(choose: Callable[[list[int], list[int]], list[int] | None]) -> Iterator[None]:
    """Let ``choose(sizes, dimensions from the innermost out)`` say how a result lies in memory; None leaves it to Inductor."""
    if not (FILL_ORDER.there and FLEXIBLE.there):
        yield
        return
    from torch._inductor import ir

    buffer: Any = ir.ComputedBuffer
    original = buffer.get_fill_order

    def order(self: Any) -> Any:
        own = original(self)
        sizes = self.get_size()
        if isinstance(self.layout, ir.FlexibleLayout) and all(str(size).isdigit() for size in sizes):
            numbers = [int(size) for size in sizes]
            filled = list(own) if own else list(reversed(range(len(numbers))))
            return choose(numbers, filled) or own
        return own

    with patched(buffer, get_fill_order=order):
        yield


@contextlib.contextmanager
def turned_round_apart(many: Callable[[int], bool]) -> Iterator[None]:
    """Leave it to the library to turn so many numbers round: in a loop with others, these would be read from the wrong end."""
    if not (LOWERINGS.there and FALLBACK.there):
        yield
        return
    from torch._inductor import lowering

    rev: Any = torch.ops.prims.rev.default
    table = _lowerings()
    original, apart = table[rev], lowering.fallback_handler(torch.ops.aten.flip.default, add_to_fallback_set=False)

    def turned(x: Any, dims: Sequence[int]) -> Any:
        count = math.prod(int(size) for size in x.get_size())
        return apart(x, list(dims)) if many(count) else original(x, dims)

    table[rev] = turned
    try:
        yield
    finally:
        table[rev] = original


def compile_cpp(path: Path, *, vectorized: bool, flags: Sequence[str] = ()) -> Path:
    """Compile a file of C++ into a shared library beside it; where that is.

    Args:
        vectorized: for the vectors of this processor, and without torch's headers.
        flags: of the compiler, which come after Inductor's own.

    Raises:
        MissingNameError: this torch has not got what starts the compiler.
        RuntimeError: no compiler, or it failed.
    """
    require(BUILDER, BUILD_OPTIONS, PICK_ISA, NO_ISA)
    from torch._inductor.cpp_builder import CppBuilder, CppTorchOptions
    from torch._inductor.cpu_vec_isa import invalid_vec_isa, pick_vec_isa

    isa = pick_vec_isa() if vectorized else invalid_vec_isa
    options = CppTorchOptions(vec_isa=isa, include_pytorch=not vectorized, warning_all=False, extra_flags=flags)
    builder = CppBuilder(name=path.stem, sources=str(path), output_dir=str(path.parent), BuildOption=options)
    builder.build()
    return Path(builder.get_target_file_path())


@contextlib.contextmanager
def trusting_cpu_flags() -> Iterator[None]:
    """Inductor compiles and runs a program for every instruction set before it trusts the processor's own flags.

    Here it is enough that the compiler knows the flags, which takes it a hundredth of the time.
    """
    with contextlib.ExitStack() as stack:
        if CONFIG.there:
            from torch._inductor import config

            stack.enter_context(config.patch({"cpp.vec_isa_ok": True}))
        if TRY_ISA.there and BUILD_OPTIONS.there and NO_ISA.there and os.name == "posix":
            from torch._inductor.cpu_vec_isa import VecISA

            stack.enter_context(patched(VecISA, check_build=_flags_are_known))
        yield


def _flags_are_known(isa: Any, code: str) -> bool:
    from torch._inductor.cpp_builder import CppTorchOptions
    from torch._inductor.cpu_vec_isa import invalid_vec_isa

    compiler = CppTorchOptions(vec_isa=invalid_vec_isa, warning_all=False).get_compiler()
    command = [compiler, *isa.build_arch_flags().split(), "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def load_artifact(path: Path) -> Any:
    """The function that :func:`standalone` compiled and saved.

    Raises:
        MissingNameError: this torch has no such artifacts.
    """
    require(ARTIFACT)
    import torch._inductor as inductor

    artifact: Any = inductor
    return artifact.CompiledArtifact.load(path=str(path), format="unpacked")


def _lowerings() -> dict[Any, Any]:
    from torch._inductor import lowering

    table: dict[Any, Any] = lowering.lowerings
    return table
