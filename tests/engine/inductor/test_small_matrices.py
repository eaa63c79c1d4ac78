"""What stands in for a library call does what the call does; what it does not understand stays a call."""

from __future__ import annotations

import pytest

from vipack.engine.compiled.driver import emit
from vipack.engine.inductor.plan import read_plan
from vipack.engine.native.operations import LoopSpec

INPUTS = [("float32", (3, 3), (3, 1)), ("float32", (2, 3), (3, 1)), ("int64", (4,), (1,))]
FACTOR = """
    buf1 = torch.ops.aten.linalg_cholesky_ex.default(arg0_1)
    buf2 = buf1[0]
    assert_size_stride(buf2, (3, 3), (1, 3), 'torch.ops.aten.linalg_cholesky_ex.default')
    buf3 = buf1[1]
    assert_size_stride(buf3, (), (), 'torch.ops.aten.linalg_cholesky_ex.default')
    torch.ops.aten._linalg_check_errors.default(buf3, 'linalg.cholesky', is_matrix=True)
"""
SOLVED = """
    buf4 = torch.ops.aten.linalg_solve_triangular.default(buf2, arg1_1, upper=False, left=False)
    assert_size_stride(buf4, (2, 3), (1, 2), 'torch.ops.aten.linalg_solve_triangular.default')
"""
COUNTED = """
    buf5 = torch.ops.aten.cumsum.default(arg2_1, 0)
    assert_size_stride(buf5, (4, ), (1, ), 'torch.ops.aten.cumsum.default')
"""


def driver(*parts):
    head = "def call(args):\n    arg0_1, arg1_1, arg2_1 = args\n    buf0 = empty_strided_cpu((), (), torch.float32)\n"
    return emit(read_plan(head + "".join(parts) + "    return (buf0, )\n", INPUTS), LoopSpec((), ()))


def test_a_factor_its_check_and_a_system_from_the_right_need_no_library():
    made = driver(FACTOR, SOLVED, COUNTED)
    assert made.library == ()
    body = made.source.split("const auto step")[1]
    assert (
        body.index("cholesky<float, 1, 3") < body.index("solve<float, 1, 3, 2, true") < body.index("cumulative<false")
    )


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (FACTOR.replace("arg0_1)", "arg0_1, upper=True)"), "aten::linalg_cholesky_ex"),
        (FACTOR.replace("    assert_size_stride(buf2, (3, 3), (1, 3), 'torch.ops.aten.linalg_cholesky_ex.default')\n", ""), "aten::linalg_cholesky_ex"),
        (FACTOR + SOLVED.replace("left=False", "left=False, unitriangular=True"), "aten::linalg_solve_triangular"),
        (COUNTED.replace("arg2_1, 0)", "arg2_1, 0, dtype=torch.float16)"), "aten::cumsum"),
        (COUNTED.replace("    assert_size_stride(buf5, (4, ), (1, ), 'torch.ops.aten.cumsum.default')\n", ""), "aten::cumsum"),
    ],
)  # fmt: skip
def test_what_is_not_understood_stays_with_the_library(part, found):
    assert found in [call.operator for call in driver(part).library]


def test_large_matrices_stay_with_the_library():
    head = "def call(args):\n    arg0_1, = args\n    buf0 = empty_strided_cpu((), (), torch.float32)\n"
    code = head + FACTOR.replace("(3, 3), (1, 3)", "(200, 200), (1, 200)") + "    return (buf0, )\n"
    made = emit(read_plan(code, [("float32", (200, 200), (200, 1))]), LoopSpec((), ()))
    assert [call.operator for call in made.library] == ["aten::linalg_cholesky_ex", "aten::_linalg_check_errors"]


@pytest.mark.parametrize(
    ("part", "name", "expected", "other"),
    [
        (SOLVED, "buf4", "(2, 3), (1, 2)", "(2, 4), (1, 2)"),  # of another size than its operand
        (COUNTED, "buf5", "(4, ), (1, )", "(2, 4), (4, 1)"),
    ],
)
def test_what_reads_a_result_left_to_the_library_reads_it_there(part, name, expected, other):
    reader = f"    buf6 = torch.ops.aten.cumsum.default({name}, 0)\n"
    made = driver(FACTOR, part.replace(expected, other), reader)
    assert len(made.library) == 2
    assert made.library[1].arguments[0].base.kind == "result"
