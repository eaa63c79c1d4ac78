"""Every kernel of the interpreter gives what torch gives, on contiguous, strided, broadcast and empty-ish inputs."""

import pytest
import torch

from tests.engine.interpreter.interpreted import run
from vipack.engine.interpreter.layout import NotUnderstood, Value, contiguous, loop
from vipack.engine.interpreter.rules.table import RULES

aten = torch.ops.aten
POSITIVE = lambda *size: torch.rand(size, dtype=torch.float64) + 0.1  # noqa: E731
NORMAL = lambda *size: torch.randn(size, dtype=torch.float64)  # noqa: E731


def agree(folder, function, *inputs, library=0):
    found, calls = run(folder, function, inputs)
    for got, wanted in zip(found, function(*inputs), strict=True):
        torch.testing.assert_close(
            got,
            wanted,
            rtol=1e-6 if got.dtype == torch.float32 else 1e-12,
            atol=1e-6 if got.dtype == torch.float32 else 1e-12,
            equal_nan=True,
        )
    assert calls <= library, "left to torch's library"


UNARY = [
    "neg", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "tanh", "sigmoid", "sin", "cos", "erf", "lgamma",
    "abs", "sign", "tan", "atan", "sinh", "cosh", "erfc", "log2", "log10", "exp2", "digamma", "floor", "ceil", "trunc",
    "round", "relu", "silu", "square", "isnan", "isinf", "logical_not",
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(folder, name, dtype):
    operator = getattr(aten, name).default
    x = (3 * torch.rand(5, 7, dtype=torch.float64) + 0.05).to(dtype)
    agree(folder, lambda x: [operator(x), operator(x.t()), operator(x[:, 2]), operator(x[1, 1])], x)


@pytest.mark.parametrize("name", ["asin", "acos"])
def test_functions_of_numbers_below_one(folder, name):
    agree(folder, lambda x: [getattr(aten, name).default(x)], 2 * torch.rand(9, dtype=torch.float64) - 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_digamma_of_every_size_and_below_zero(folder, dtype):
    """Vectors of positive numbers are computed at once, and one number that is not positive sends its vector to torch's own."""
    least = torch.finfo(dtype).tiny
    positive = torch.cat(
        [torch.logspace(-30, 30, 200, dtype=torch.float64), 3 * torch.rand(200, dtype=torch.float64) + 0.01]
    )
    odd = torch.tensor([-3.3, -0.5, -1.0, 0.0, -0.0, torch.inf, -torch.inf, torch.nan, 12.0, 1e-3, least])
    x = torch.cat([positive, odd.double(), positive[:40], odd.double()[:4]]).to(dtype)
    agree(folder, lambda x: [aten.digamma.default(x), aten.digamma.default(x[::3]), aten.digamma.default(x[:7])], x)


BINARY = ["add", "sub", "mul", "div", "atan2", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_numbers_broadcast(folder, name, dtype):
    packet = getattr(aten, name)
    operator = packet.Tensor if "Tensor" in packet.overloads() else packet.default
    x, y = NORMAL(4, 1, 6).to(dtype), NORMAL(3, 6).to(dtype)
    agree(
        folder, lambda x, y: [operator(x, y), operator(y, y), operator(y, y[0, 0]), operator(y.t(), x[0, 0, 0])], x, y
    )


def test_powers(folder):
    x, y = POSITIVE(3, 4), NORMAL(4)
    agree(folder, lambda x, y: [x**2, x**3, x**0.5, x**-0.5, x**-1, x**1.7, x**y, 2.5**y, x**1], x, y)


def test_numbers_and_mixed_types(folder):
    x, i, b = NORMAL(4), torch.arange(4), torch.tensor([True, False, True, False])
    agree(
        folder,
        lambda x, i, b: [2 - x, x + i, i * 2 + 1, x * b, i > 1.5, (x > 0) & b, b | ~b, x.float() + x],
        x,
        i,
        b,
        library=1,
    )


def test_choices_and_limits(folder):
    x, y = NORMAL(5, 3), NORMAL(3)
    agree(
        folder,
        lambda x, y: [
            torch.where(x > 0, x, y), x.clamp(-0.5, 0.5), x.clamp(min=0.1), x.clamp(max=0.1), x.masked_fill(x < 0, -7.0),
            aten.clamp_min.default(x, 0.2), aten.clamp_max.default(x, 0.2), aten.leaky_relu.default(x, 0.1),
        ],
        x, y,
    )  # fmt: skip


def test_three_operands(folder):
    x, y, z = NORMAL(3, 4), NORMAL(4), POSITIVE(3, 1)
    agree(
        folder,
        lambda x, y, z: [torch.addcmul(x, y, z, value=0.5), torch.addcdiv(x, y, z, value=2), torch.lerp(x, y, 0.3)],
        x,
        y,
        z,
    )


def test_softplus_and_logistic(folder):
    x, g = 30 * NORMAL(11), NORMAL(11)
    agree(
        folder,
        lambda x, g: [
            aten.softplus.default(x), aten.softplus_backward.default(g, x, 1, 20), aten.log_sigmoid_forward.default(x)[0],
            aten.log_sigmoid_backward.default(g, x, aten.log_sigmoid_forward.default(x)[1]), aten.tanh_backward.default(g, x.tanh()),
            aten.sigmoid_backward.default(g, x.sigmoid()), aten.threshold_backward.default(g, x, 0),
        ],
        x, g,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("dims", [None, [0], [1], [2], [0, 2], [0, 1], [1, 2], [0, 1, 2]])
def test_sums_over_any_dimensions(folder, dims, dtype):
    x = NORMAL(4, 5, 9).to(dtype)

    def sums(x):
        if dims is None:
            return [x.sum(), x.mean()]
        return [x.sum(dims), x.sum(dims, keepdim=True), x.mean(dims), x.amax(dims), x.amin(dims), x.logsumexp(dims)]

    agree(folder, sums, x, library=3 if dims == [0, 2] else 0)
    agree(folder, lambda x: sums(x.permute(2, 0, 1)), x, library=3)


def test_truth_counts_and_products(folder):
    x = NORMAL(4, 5)
    agree(
        folder,
        lambda x: [
            (x > 0).sum(),
            (x > 0).any(),
            (x > -9).all(),
            (x > 0).any(1),
            (x > 0).all(0),
            x.prod(),
            x.prod(1),
            x.max(),
            x.min(),
        ],
        x,
    )


def test_along_a_dimension(folder):
    x, g = NORMAL(3, 4, 5), NORMAL(3, 4, 5)
    agree(
        folder,
        lambda x, g: [
            x.cumsum(1), x.cumprod(2), *x.max(1), *x.max(2, keepdim=True), x.softmax(-1), x.log_softmax(1), aten._softmax_backward_data.default(g, x.softmax(1), 1, torch.float64),
            aten._log_softmax_backward_data.default(g, x.log_softmax(0), 0, torch.float64), x.flip(0), x.flip([1, 2]),
        ],
        x, g,
    )  # fmt: skip


def test_whole_numbers_along_a_dimension(folder):
    x = torch.tensor([[3, -1, 2], [0, 5, 5]])
    agree(
        folder, lambda x: [x.cumsum(1), x.cumprod(0), *x.max(1), (x > 0).cumsum(0), x.relu(), x.amax(0), x.amin(1)], x
    )


def test_pieces(folder):
    x, y = NORMAL(4, 5), NORMAL(4, 2)
    agree(
        folder,
        lambda x, y: [
            torch.cat([x, y], 1), torch.cat([y, y]), torch.stack([x, x + 1], 1), aten.select_backward.default(x[0], [4, 5], 0, 2),
            aten.slice_backward.default(y, [4, 9], 1, 1, 5, 2), aten.diagonal_backward.default(x[:, 0], [4, 5], 0, 0, 1),
            torch.diag_embed(x), torch.nn.functional.pad(x, (1, 2, 0, 1), value=3.0), x.t().reshape(10, 2), x.t().clone(),
            aten.slice_scatter.default(x, y, 1, 1, 3), aten.select_scatter.default(x, y[:, 0], 1, -1), x.tril(-1), x.triu(1),
            x[:, 1:4:2], x.unsqueeze(0).expand(3, 4, 5).sum(0), x.diagonal(1), x.split([2, 3], 1)[1], x.to(torch.float32),
        ],
        x, y,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_matrices(folder, dtype):
    a, b, v = NORMAL(4, 6).to(dtype), NORMAL(6, 3).to(dtype), NORMAL(6).to(dtype)
    c = NORMAL(2, 3, 6).to(dtype)
    agree(
        folder,
        lambda a, b, v, c: [
            a @ b, b.t() @ a.t(), a @ v, v @ v, c @ b, torch.addmm(a[:, :3], a, b, beta=0.5, alpha=2), c @ c.mT,
            torch.baddbmm(c[:, :, :3], c, c.mT), torch.addmm(a[0, :3], a, b),
        ],
        a, b, v, c,
    )  # fmt: skip


def test_large_products(folder):
    rows, columns = (
        [0.1 * NORMAL(160, 96).float(), NORMAL(3, 40, 160).float()],
        [NORMAL(96, 100).float(), NORMAL(96).float()],
    )

    def products(a, many, b, c):
        return [
            a @ b,
            torch.addmm(c[:1], a, b),
            torch.addmm(b[0], a, b, beta=2),
            b.t() @ a.t(),
            torch.bmm(many, a.expand(3, 160, 96)),
        ]

    found, calls = run(folder, products, [*rows, *columns])
    for got, wanted in zip(found, products(*[v.double() for v in (*rows, *columns)]), strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-4)
    assert calls == 5


def test_factors_and_triangular_systems(folder):
    x = NORMAL(3, 5, 5)

    def factors(x):
        whole = x @ x.mT + torch.eye(5, dtype=x.dtype)
        factor = torch.linalg.cholesky(whole)
        lower = torch.linalg.solve_triangular(factor, x, upper=False)
        right = torch.linalg.solve_triangular(factor, x, upper=False, left=False)
        upper = torch.linalg.solve_triangular(factor.mT, x[:, :2], upper=True, left=False)
        return [factor, lower, torch.linalg.solve_triangular(factor.mT, x, upper=True), right, upper]

    agree(folder, factors, x)


def test_filling_memory_that_was_asked_for(folder):
    x = NORMAL(3, 1)
    agree(folder, lambda x: [aten.copy.default(x.new_empty_strided([3, 4], [1, 3]), x), aten.copy.default(x, x[:1])], x)


def test_a_matrix_that_has_no_factor_gives_nan(folder):
    found, _ = run(folder, lambda x: [torch.linalg.cholesky_ex(x)[0]], [-torch.eye(3, dtype=torch.float64)])
    assert torch.isnan(found[0]).any()


def test_rows_by_number(folder):
    x, i, j = NORMAL(5, 4), torch.tensor([3, 0, -1, 2]), torch.tensor([1, 1, 3, 0])
    agree(
        folder,
        lambda x, i, j: [
            x[i], x[:, j], x[i, j], x.gather(0, j.expand(2, 4)), x.index_select(1, j), x[i.view(2, 2)],
            torch.zeros_like(x).index_put([i], x[:4], accumulate=True), torch.zeros(5, dtype=x.dtype).index_put([i], x[0], accumulate=False),
            torch.zeros_like(x).scatter_add(0, j.expand(2, 4), x[:2]), x.index_add(0, j, x[:4]), x.scatter(1, j.view(4, 1), 5.0),
        ],
        x, i, j,
    )  # fmt: skip


def test_what_has_no_kernel_is_left_to_torch(folder):
    x = NORMAL(4, 6)
    agree(folder, lambda x: [x.sort(1)[0], torch.special.i0(x), x.var(1)], x, library=3)


def test_types_that_a_kernel_is_not_written_for_are_left_to_torch(folder):
    whole, short, truth = (
        torch.tensor([[3, -1, 2], [4, 5, 5]]),
        torch.tensor([3, 7], dtype=torch.int32),
        torch.tensor([True, False]),
    )
    agree(
        folder,
        lambda i, s, b: [i.prod(), i.prod(1), i.prod(0) + 1, s.amax(0), s.max(), s.flip(0), b.prod(), b.amax(0), b.max()],
        whole, short, truth, library=8,
    )  # fmt: skip


def test_every_rule_is_of_an_operator_that_torch_has():
    assert all(isinstance(target, torch._ops.OpOverload) for target in RULES)
    assert len(RULES) > 120


def test_loops_are_as_short_as_strides_allow():
    assert loop((3, 4, 5), [(20, 5, 1), (20, 5, 1)]) == ([60], [[1], [1]])
    assert loop((3, 4), [(4, 1), (0, 1)]) == ([3, 4], [[4, 1], [0, 1]])
    assert loop((1, 1), [(1, 1)]) == ([1], [[0]])
    with pytest.raises(NotUnderstood, match="5 dimensions"):
        loop((2,) * 5, [contiguous((2,) * 5), (1, 2, 4, 8, 16)])


def test_views_move_without_copying():
    value = Value("base", torch.float32, (3, 4), (4, 1))
    assert value.select(1, 2).offset == 2
    assert value.slice(0, 1, 2).size == (2, 4)
    assert not value.select(1, 0).is_contiguous()
