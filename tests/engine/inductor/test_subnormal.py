"""Moments that have shrunk to nothing are taken as nothing, in large vectors only, and move no parameter."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

import vipack as vi
from vipack.engine.compiled.driver import emit
from vipack.engine.inductor.plan import read_plan
from vipack.engine.native.operations import LoopSpec

LARGE = 20_000
CODE = '''
cpp_fused_0 = async_compile.cpp_pybinding(['const float*', 'float*'], r"""
extern "C" void kernel(const float* in, float* out) {
    #pragma omp parallel num_threads(2)
    {
        out[0] = in[0];
    }
}
""")
def call(args):
    arg0_1, arg1_1 = args
    buf0 = empty_strided_cpu((20000, ), (1, ), torch.float32)
    cpp_fused_0(arg0_1, TARGET)
    return (buf0, )
'''


@pytest.mark.parametrize(("target", "size", "number"), [("arg1_1", LARGE, 2), ("arg1_1", 100, 0), ("buf0", LARGE, 0)])
def test_every_thread_of_a_kernel_that_updates_a_large_vector_flushes(target, size, number):
    inputs = [("float32", (LARGE,), (1,)), ("float32", (size,), (1,))]
    made = emit(read_plan(CODE.replace("TARGET", target), inputs), LoopSpec((), ()))
    assert made.source.count("const Flush flush;") == number


@pytest.mark.parametrize(("size", "left"), [(LARGE, 0.0), pytest.param(100, 0.9e-39, marks=pytest.mark.slow)])
def test_a_subnormal_moment_becomes_zero_and_the_parameters_stay_those_of_pyro(size, left):
    def model(x):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.zeros(size))[:3], 1.0).to_event(1), obs=x)

    def moved(engine):
        pyro.clear_param_store()
        svi = vi.SVI(model, lambda x: None, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(), engine=engine)
        svi.run(4, torch.ones(3))
        (optimizer,) = svi.optim.optim_objs.values()
        (state,) = optimizer.state.values()
        state["exp_avg"][10:] = 1e-39
        svi.run(1, torch.ones(3))
        assert svi.engine.tier == engine
        return state["exp_avg"][-1], pyro.param("loc").detach().clone()

    (eager, expected), (compiled, found) = moved("eager"), moved("compiled")
    assert float(eager) == pytest.approx(0.9e-39, rel=1e-3)
    assert float(compiled) == pytest.approx(left, rel=1e-3)
    assert torch.allclose(found, expected, rtol=1e-6)
