"""Loops draw the numbers that torch draws, and leave its generator where torch would."""

from __future__ import annotations

import ctypes

import pytest
import torch

from vipack.compat.inductor import trusting_cpu_flags
from vipack.engine.compiled.build import _compile
from vipack.engine.native.cpp_source import read_source

TYPES = {"float": torch.float32, "double": torch.float64}
SOURCES = {"Called": "Called source{generator}", "Copied": "Copied source(generator)"}
LOCK = {"Called": "std::lock_guard<std::mutex> lock(generator->mutex_);", "Copied": ""}
FUNCTION = """
extern "C" void {name}({ctype}* data, const int64_t* sizes, int64_t count) {{
  auto* const generator = at::check_generator<at::CPUGeneratorImpl>(at::detail::getDefaultCPUGenerator());
  {lock}
  {source};
  for (int64_t i = 0; i < count; ++i) normals(data, sizes[i], source), data += sizes[i];
}}
"""
# None, few and many, with and without a rest, over several times the 624 words that a state holds.
SIZES = [1, 0, 3, 2, 15, 1, 16, 7, 17, 33, 40, 5, 100, 1, 256, 300, 9, 1_000, 2, 31]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    functions = [
        FUNCTION.format(name=f"{source}_{ctype}".lower(), ctype=ctype, source=SOURCES[source], lock=LOCK[source])
        for source in SOURCES
        for ctype in TYPES
    ]
    target = tmp_path_factory.mktemp("normals") / "normals.so"
    with trusting_cpu_flags():
        _compile(
            "#include <torch/csrc/inductor/cpp_prefix.h>\n"
            + read_source("vipack/engine/native/normals.h")
            + "".join(functions),
            target,
            vectorized=True,
        )
    return ctypes.CDLL(str(target))


@pytest.mark.parametrize("ctype", TYPES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("before", [0, 1, 623, 624, 5_000])
def test_the_numbers_and_the_generator_are_torchs(before, source, ctype, library):
    torch.manual_seed(11)
    torch.empty(before).uniform_()
    start = torch.get_rng_state()
    expected = torch.cat([torch.empty(size, dtype=TYPES[ctype]).normal_() for size in SIZES])
    end = torch.get_rng_state()
    torch.set_rng_state(start)
    found, sizes = torch.empty(sum(SIZES), dtype=TYPES[ctype]), torch.tensor(SIZES)
    function = getattr(library, f"{source}_{ctype}".lower())
    function(ctypes.c_void_p(found.data_ptr()), ctypes.c_void_p(sizes.data_ptr()), ctypes.c_int64(len(SIZES)))
    assert torch.allclose(
        found, expected, rtol=1e-5 if ctype == "float" else 1e-12, atol=1e-6 if ctype == "float" else 1e-14
    )
    assert torch.equal(torch.get_rng_state(), end)
