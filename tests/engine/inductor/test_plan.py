"""A generated program is read to the letter; whatever is not understood is refused, never guessed."""

from __future__ import annotations

import itertools

import pytest

from vipack.engine.compiled.driver import emit
from vipack.engine.inductor.plan import KernelCall, PlanError, View, read_plan
from vipack.engine.native.operations import Base, LibraryCall, LoopSpec

INPUTS = [("float32", (3,), (1,)), ("float32", (3, 3), (3, 1))]
HEAD = '''
from torch._inductor.async_compile import AsyncCompile
async_compile = AsyncCompile()
cpp_fused_add_0 = async_compile.cpp_pybinding(['const float*', 'float*', 'const int64_t'], r"""
extern "C" void kernel(const float* in, float* out, const int64_t n) { for (int i = 0; i < n; ++i) out[i] = in[i] + 1; }
""")
'''
BODY = """
    arg0_1, arg1_1 = args
    args.clear()
    buf0 = empty_strided_cpu((3, ), (1, ), torch.float32)
    cpp_fused_add_0(arg0_1, buf0, 3)
    buf1 = empty_strided_cpu((3, 1), (1, 1), torch.float32)
    extern_kernels.mm(arg1_1, reinterpret_tensor(buf0, (3, 1), (1, 1), 0), out=buf1)
    del arg1_1
    buf2 = buf0; del buf0  # reuse
    cpp_fused_add_0(buf1, buf2, 3)
    return (buf2, )
"""


def program(body=BODY):
    return HEAD + "def call(args):" + body


def changed(line, other):
    assert line in BODY
    return program(BODY.replace(line, other))


def test_buffers_calls_and_views_are_read_in_order():
    plan = read_plan(program(), INPUTS)
    assert plan.buffers == (12, 12)
    assert [type(call) for call in plan.calls] == [KernelCall, LibraryCall, KernelCall]
    first, product, last = plan.calls
    buffer, other = View(Base("buffer", 0), "float32", (3,), (1,)), View(Base("buffer", 1), "float32", (3, 1), (1, 1))
    assert first.arguments == (plan.inputs[0], buffer, 3)
    assert (product.operator, product.overload) == ("aten::mm", "out")
    assert product.keywords == {"out": other}
    assert product.arguments == (plan.inputs[1], View(Base("buffer", 0), "float32", (3, 1), (1, 1)))
    assert last.arguments == (other, buffer, 3)
    assert plan.outputs == (buffer,)


def test_a_view_of_a_view_adds_its_offset():
    code = changed(
        "cpp_fused_add_0(buf1, buf2, 3)",
        "cpp_fused_add_0(reinterpret_tensor(reinterpret_tensor(buf1, (2, ), (1, ), 1), (1, ), (1, ), 1), buf2, 1)",
    )
    assert read_plan(code, INPUTS).calls[-1].arguments[0] == View(Base("buffer", 1), "float32", (1,), (1,), 2)


STRANGE = {
    "a loop": ("del arg1_1", "for i in range(3): pass"),
    "a condition": ("del arg1_1", "if arg1_1: pass"),
    "another library": ("extern_kernels.mm(", "mkldnn.mm("),
    "an unknown name": ("cpp_fused_add_0(buf1, buf2, 3)", "cpp_fused_add_0(buf9, buf2, 3)"),
    "an unknown kernel": ("cpp_fused_add_0(buf1, buf2, 3)", "cpp_fused_mul_1(buf1, buf2, 3)"),
    "an expression": ("cpp_fused_add_0(buf1, buf2, 3)", "cpp_fused_add_0(buf1 + 1, buf2, 3)"),
    "a symbolic size": ("cpp_fused_add_0(buf1, buf2, 3)", "cpp_fused_add_0(buf1, buf2, s0)"),
    "a type without a size": ("(3, 1), (1, 1), torch.float32)", "(3, 1), (1, 1), torch.complex64)"),
    "other inputs": ("arg0_1, arg1_1 = args", "arg0_1, = args"),
    "no result": ("return (buf2, )", "pass"),
    "an augmented assignment": ("del arg1_1", "arg1_1 += 1"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_not_understood_is_refused(name):
    with pytest.raises(PlanError):
        read_plan(changed(*STRANGE[name]), INPUTS)


def test_a_program_without_a_call_is_refused():
    with pytest.raises(PlanError, match="no call"):
        read_plan(HEAD, INPUTS)


def test_the_driver_of_a_small_plan_calls_its_kernel_and_leaves_products_to_torch_or_itself():
    plan = read_plan(program(), INPUTS)
    driver = emit(plan, LoopSpec((), (0,), None))
    assert driver.source.count('extern "C"') >= 1
    assert "vipack_run" in driver.source
    assert driver.arena >= sum(plan.buffers)
    assert len(driver.offsets) == len(plan.buffers)
    starts = sorted(zip(driver.offsets, plan.buffers, strict=True))
    assert all(end + size <= start for (end, size), (start, _) in itertools.pairwise(starts))
