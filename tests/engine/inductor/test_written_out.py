"""What is written out in the loop computes what the library computes, however its operands lie."""

from __future__ import annotations

import ctypes

import pytest
import torch

from vipack.compat.inductor import trusting_cpu_flags
from vipack.engine.compiled.build import _compile
from vipack.engine.native.cpp_source import read_source

TYPES = {"float": torch.float32, "double": torch.float64}
SIZES = [(1, 5, 3), (2, 9, 8), (1, 100, 100), (3, 17, 33), (1, 33, 70)]  # matrices, rows, right-hand sides
IN_ROWS, IN_COLUMNS = "rows", "columns"
FACTORS = [(t, n, m, lies) for t in TYPES for n, m, _ in SIZES for lies in (IN_ROWS, IN_COLUMNS)]
SYSTEMS = [
    (t, *size, upper, lies)
    for t, size, upper, lies in [
        ("float", SIZES[2], True, IN_ROWS), ("float", SIZES[2], False, IN_COLUMNS), ("double", SIZES[1], True, IN_COLUMNS),
        ("double", SIZES[3], False, IN_ROWS), ("float", SIZES[4], True, IN_COLUMNS), ("double", SIZES[4], False, IN_ROWS),
        ("float", SIZES[3], True, IN_ROWS), ("float", SIZES[1], False, IN_COLUMNS),
    ]
]  # fmt: skip


def strides(rows, columns, lies):
    return (rows * columns, columns, 1) if lies == IN_ROWS else (rows * columns, 1, rows)


def laid(value, lies):
    """`value` as it lies in memory, and to be written."""
    return value.contiguous() if lies == IN_ROWS else value.mT.contiguous().mT


def pointer(value):
    return ctypes.c_void_p(value.data_ptr())


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    written = []
    for i, (ctype, batch, n, lies) in enumerate(FACTORS):
        shape = ", ".join(map(str, (batch, n, *strides(n, n, IN_ROWS), *strides(n, n, lies))))
        written.append(
            f'extern "C" void factor_{i}(const {ctype}* a, {ctype}* l) {{ cholesky<{ctype}, {shape}>(a, l); }}'
        )
    for i, (ctype, batch, n, width, upper, lies) in enumerate(SYSTEMS):
        steps = (*strides(n, n, lies), *strides(n, width, lies), *strides(n, width, IN_ROWS))
        shape = ", ".join(map(str, (batch, n, width, str(upper).lower(), *steps)))
        arguments = f"const {ctype}* a, const {ctype}* b, {ctype}* x"
        written.append(f'extern "C" void system_{i}({arguments}) {{ solve_wide<{ctype}, {shape}>(a, b, x); }}')
    source = "\n".join(
        [
            "#include <torch/csrc/inductor/cpp_prefix.h>",
            read_source("vipack/engine/inductor/small_matrices.h"),
            *written,
        ]
    )
    target = tmp_path_factory.mktemp("small") / "small.so"
    with trusting_cpu_flags():
        _compile(source, target, vectorized=True)
    return ctypes.CDLL(str(target))


@pytest.mark.parametrize("i", range(len(FACTORS)))
def test_a_factor_is_the_librarys(i, library):
    ctype, batch, n, lies = FACTORS[i]
    root = torch.randn(batch, n, n, dtype=TYPES[ctype])
    a = root @ root.mT + n * torch.eye(n, dtype=TYPES[ctype])
    found = laid(torch.full_like(a, torch.nan), lies)
    library[f"factor_{i}"](pointer(a), pointer(found))
    assert torch.allclose(found, torch.linalg.cholesky(a), rtol=1e-4 if ctype == "float" else 1e-10, atol=1e-6)


def test_a_factor_of_what_is_not_positive_definite_is_not_a_number(library):
    i = FACTORS.index(("double", 1, 100, IN_COLUMNS))
    found = torch.zeros(100, 100, dtype=torch.float64)
    library[f"factor_{i}"](pointer(-torch.eye(100, dtype=torch.float64)), pointer(found))
    assert found.isnan().any()


@pytest.mark.parametrize("i", range(len(SYSTEMS)))
def test_a_system_with_many_right_hand_sides_is_solved_as_by_the_library(i, library):
    ctype, batch, n, width, upper, lies = SYSTEMS[i]
    full = torch.randn(batch, n, n, dtype=TYPES[ctype]) / n + torch.eye(n, dtype=TYPES[ctype])
    a, b = (
        laid(full.triu() if upper else full.tril(), lies),
        laid(torch.randn(batch, n, width, dtype=TYPES[ctype]), lies),
    )
    found = torch.full((batch, n, width), torch.nan, dtype=TYPES[ctype])
    library[f"system_{i}"](pointer(a), pointer(b), pointer(found))
    expected = torch.linalg.solve_triangular(a, b, upper=upper)
    assert torch.allclose(
        found, expected, rtol=1e-4 if ctype == "float" else 1e-10, atol=1e-5 if ctype == "float" else 1e-12
    )
