"""C++ of the engine compiles without a warning, and each file comes with what it includes, once."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

import vipack
from vipack.engine.compiled import compiler
from vipack.engine.compiled.driver import emit
from vipack.engine.inductor.plan import read_plan
from vipack.engine.interpreter.source import source as interpreter_source
from vipack.engine.native.cpp_source import read_source
from vipack.engine.native.operations import LoopSpec

PACKAGE = Path(vipack.__file__).parent
OURS = sorted(
    path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.suffix in (".h", ".cpp")
)
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wno-unused-function", "-Werror"]
CODE = """
def call(args):
    arg0_1, arg1_1, arg2_1, arg3_1 = args
    buf0 = empty_strided_cpu((), (), torch.float32)
    buf1 = torch.ops.aten.linalg_cholesky_ex.default(arg0_1)
    buf2 = buf1[0]
    assert_size_stride(buf2, (3, 3), (1, 3), 'torch.ops.aten.linalg_cholesky_ex.default')
    buf3 = buf1[1]
    assert_size_stride(buf3, (), (), 'torch.ops.aten.linalg_cholesky_ex.default')
    torch.ops.aten._linalg_check_errors.default(buf3, 'linalg.cholesky', is_matrix=True)
    buf4 = torch.ops.aten.linalg_solve_triangular.default(buf2, arg1_1, upper=False, left=False)
    assert_size_stride(buf4, (2, 3), (1, 2), 'torch.ops.aten.linalg_solve_triangular.default')
    extern_kernels.mm(arg1_1, arg0_1, out=arg2_1)
    buf5 = torch.ops.aten.digamma.default(arg3_1)
    assert_size_stride(buf5, (300, ), (1, ), 'torch.ops.aten.digamma.default')
    return (buf0, )
"""
INPUTS = [
    ("float32", (3, 3), (3, 1)),
    ("float32", (2, 3), (3, 1)),
    ("float32", (2, 3), (3, 1)),
    ("float32", (300,), (1,)),
]


def loop(spec):
    """A step of library calls, written out and not, with normals drawn one by one and in blocks."""
    return emit(read_plan(CODE, INPUTS), spec).source


FEW_INCLUDES = (
    "vipack/engine/interpreter/kernels.cpp",
    "vipack/engine/native/small_gemm.h",
    "a loop",
)  # seconds to check
TEXTS = {name: (lambda name=name: read_source(name)) for name in OURS} | {
    "a loop": lambda: loop(LoopSpec((0, 1, 3), (2,))),
    "a loop of several fits": lambda: loop(LoopSpec((), (), copies=2)),
}


def command(path: Path) -> list[str]:
    """What checks a file as it is compiled, with torch's headers taken as the system's."""
    from torch._inductor.cpp_builder import CppBuilder, CppTorchOptions
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    options = CppTorchOptions(vec_isa=pick_vec_isa(), include_pytorch=False, warning_all=False)
    line = CppBuilder("checked", str(path), options, str(path.parent)).get_command_line()
    words = ["-isystem" + word[2:] if word.startswith("-I") else word for word in shlex.split(line)]
    words = [word for word in words if not word.startswith("-W")]  # of Inductor, for code of its own
    return [*words, *WARNINGS, "-fsyntax-only"]


def errors(text: str, folder: Path) -> str:
    """What the compiler says of a text; warnings are errors."""
    path = folder / "checked.cpp"
    path.write_text(text)
    return subprocess.run(command(path), capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize(
    "name", [name if name in FEW_INCLUDES else pytest.param(name, marks=pytest.mark.slow) for name in TEXTS]
)
def test_no_warning(name, tmp_path):
    assert errors(TEXTS[name](), tmp_path) == ""


def test_a_warning_is_seen(tmp_path):
    assert "unused variable" in errors("int one() { int never; return 1; }\n", tmp_path)


def test_each_header_is_written_out_once_and_in_front_of_what_includes_it():
    text = read_source("vipack/engine/native/loop.h", "vipack/engine/native/normals.h")
    assert text.count("class Copied") == 1
    assert text.index("class Copied") < text.index("class Draws")
    assert "#pragma once" not in text


def test_every_file_is_part_of_a_key_of_the_cache():
    """Of a loop's or of the interpreter's; what a bridge is made of is part of both."""
    loops = {f"vipack/engine/{name}" for name in compiler._SOURCES}
    assert {name for name in OURS if "/engine/" in name and "/interpreter/" not in name} <= loops
    assert interpreter_source() == read_source("vipack/engine/interpreter/kernels.cpp")
