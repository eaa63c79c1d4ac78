"""A loop over time that is captured as one operation, however many steps it has."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from vipack.compat import pytree
from vipack.compat.pytorch import OpOverload
from vipack.compat.tracer import traced_without_values
from vipack.errors import UsageError

__all__ = ["Body", "body_of", "captured_scans", "scan"]

_capturing: contextvars.ContextVar[bool] = contextvars.ContextVar("capturing", default=False)


def scan(
    body: Callable[..., tuple[Any, Any]],
    carry: Any,
    xs: Any = None,
    *,
    constants: Sequence[Tensor] = (),
    length: int | None = None,
) -> tuple[Any, Any]:
    """Apply `body` to one entry of `xs` after the other, handing a carry on.

    In plain Pyro this is a Python loop. The engine captures it as one operation with a graph of `body` alone, so that a
    recursion of thousands of steps costs no more to capture than one of two.

    Args:
        body: ``(carry, x, *constants) -> (carry, y)``, of tensors alone: no ``pyro.sample``, no random numbers, and
            whatever it reads beside its arguments must not be tensors (but it may make some, as by ``torch.tensor(0.5)``). The
            carry keeps its shapes and types.
        carry: a tensor, or a tuple, list or dict of tensors.
        xs: likewise, each with a leading dimension T; None where `length` says T.
        constants: tensors that every step sees, such as latent values.

    Returns:
        The last carry, and the ``y`` of all steps stacked along a leading dimension T.

    Raises:
        UsageError: lengths differ, `body` reads tensors that are not among its arguments, or the carry changes its shape.
    """
    flat_carry, carry_spec = pytree.tree_flatten(carry)
    flat_xs, xs_spec = pytree.tree_flatten(xs)
    flat_xs = [x for x in flat_xs if x is not None]
    number = _length(flat_xs, length)
    if not _capturing.get():
        return _loop(body, carry, xs, constants, number)
    _refuse_closed_over(body)
    specs: list[Any] = []

    def flat_body(*flat: Tensor) -> list[Tensor]:
        own, x = flat[: len(flat_carry)], flat[len(flat_carry) : len(flat_carry) + len(flat_xs)]
        given = pytree.tree_unflatten(list(x), xs_spec) if flat_xs else None
        new, y = body(pytree.tree_unflatten(list(own), carry_spec), given, *flat[len(flat_carry) + len(flat_xs) :])
        flat_new, flat_y = pytree.tree_flatten(new)[0], pytree.tree_flatten(y)
        specs.append(flat_y[1])
        _check_carry(own, flat_new)
        # An output that is an input must still be a new tensor.
        return [v.clone() for v in (*flat_new, *flat_y[0])]

    shapes = [_Shape.of(v) for v in flat_carry], [_Shape.of(x[0]) for x in flat_xs], [_Shape.of(v) for v in constants]
    key = _register(flat_body, *shapes, number)
    results = torch.ops.vipack.scan(flat_carry, flat_xs, list(constants), key)
    count, outputs = len(flat_carry), _BODIES[key].num_outputs
    last = pytree.tree_unflatten(results[:count], carry_spec)
    return last, pytree.tree_unflatten(results[count : count + outputs], specs[0])


@contextlib.contextmanager
def captured_scans() -> Iterator[None]:
    """Within this context a scan is one operation, rather than a Python loop."""
    token = _capturing.set(True)
    try:
        yield
    finally:
        _capturing.reset(token)


@dataclass(frozen=True)
class _Shape:
    size: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, value: Tensor) -> _Shape:
        return cls(tuple(value.shape), value.dtype)

    def example(self) -> Tensor:
        return torch.ones(self.size, dtype=self.dtype)


@dataclass(frozen=True)
class Body:
    """One step of a scan as graphs.

    Attributes:
        forward: ``(*carry, *x, *constants) -> (*carry, *y)``.
        backward: ``(*carry, *x, *constants, *gradients of carry and y) -> gradients of the first three``.
        length: T.
    """

    forward: fx.GraphModule
    backward: fx.GraphModule
    carry: tuple[_Shape, ...]
    x: tuple[_Shape, ...]
    constants: tuple[_Shape, ...]
    outputs: tuple[_Shape, ...]
    length: int

    @property
    def num_outputs(self) -> int:
        """Of the ys."""
        return len(self.outputs)


_BODIES: dict[str, Body] = {}


def body_of(key: str) -> Body:
    """The body that a captured scan names."""
    return _BODIES[key]


def _register(
    function: Callable[..., list[Tensor]],
    carry: Sequence[_Shape],
    x: Sequence[_Shape],
    constants: Sequence[_Shape],
    length: int,
) -> str:
    """Trace `function` and its gradient; the name of the result."""
    # In a thread of its own, where no tracer, vmap or gradient of the caller is active.
    with ThreadPoolExecutor(1) as away:
        return away.submit(_trace, function, carry, x, constants, length).result()


def _trace(
    function: Callable[..., list[Tensor]],
    carry: Sequence[_Shape],
    x: Sequence[_Shape],
    constants: Sequence[_Shape],
    length: int,
) -> str:
    shapes = [*carry, *x, *constants]
    examples = [s.example() for s in shapes]
    forward = traced_without_values(function)(*examples)
    with torch.no_grad():
        results = function(*examples)

    def backward(*flat: Tensor) -> list[Tensor]:
        inputs = [v.detach().requires_grad_(v.is_floating_point()) for v in flat[: len(shapes)]]
        with torch.enable_grad():
            values = function(*inputs)
        pairs = [(r, g) for r, g in zip(values, flat[len(shapes) :], strict=True) if r.requires_grad]
        wanted = [v for v in inputs if v.requires_grad]
        grads = iter(
            torch.autograd.grad([r for r, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True)
            if pairs and wanted
            else [None] * len(wanted)
        )
        gradients = [next(grads) if v.requires_grad else None for v in inputs]
        return [torch.zeros_like(v) if g is None else g.clone() for v, g in zip(inputs, gradients, strict=True)]

    reverse = traced_without_values(backward)(*examples, *map(torch.ones_like, results))
    for graph in (forward.graph, reverse.graph):
        graph.eliminate_dead_code()
        _refuse_impure(graph)
    forward.recompile()
    reverse.recompile()
    outputs = tuple(_Shape.of(r) for r in results[len(carry) :])
    constants_of = [_freeze_constants(module) for module in (forward, reverse)]  # the code shows only their names
    text = f"{forward.code}{reverse.code}{constants_of}{shapes}{length}"
    key = f"scan-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    _BODIES.setdefault(key, Body(forward, reverse, tuple(carry), tuple(x), tuple(constants), outputs, length))
    return key


def _loop(body: Callable[..., Any], carry: Any, xs: Any, constants: Sequence[Tensor], length: int) -> tuple[Any, Any]:
    ys = []
    for t in range(length):
        x = pytree.tree_map(lambda v, t=t: v[t] if isinstance(v, Tensor) else v, xs)
        before = pytree.tree_flatten(carry)[0]
        carry, y = body(carry, x, *constants)
        _check_carry(before, pytree.tree_flatten(carry)[0])
        ys.append(y)
    return carry, pytree.tree_map(lambda *entries: torch.stack(entries), *ys)


def _length(xs: Sequence[Any], length: int | None) -> int:
    if any(not isinstance(x, Tensor) or x.dim() == 0 for x in xs):
        raise UsageError("scan: xs holds something but tensors with a leading dimension; pass tensors (T, ...).")
    lengths = {len(x) for x in xs} | (set() if length is None else {length})
    if len(lengths) != 1 or 0 in lengths:
        given = f"found {sorted(lengths)}" if lengths else "found neither xs nor length"
        raise UsageError(f"scan: expected one length T >= 1 of all xs (and of `length`), {given}.")
    return lengths.pop()


def _check_carry(before: Sequence[Tensor], after: Sequence[Any]) -> None:
    kinds = [
        [(tuple(v.shape), v.dtype) if isinstance(v, Tensor) else type(v) for v in side] for side in (before, after)
    ]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"scan: the carry went in as {kinds[0]} and came back as {kinds[1]}; start with its final shape and type, as "
            "by torch.zeros(batch_shape)."
        )


def _refuse_closed_over(body: Callable[..., Any]) -> None:
    cells = getattr(body, "__closure__", None) or ()
    names = getattr(getattr(body, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, cells, strict=False):
        try:
            contents = pytree.tree_flatten(cell.cell_contents)[0]
        except ValueError:  # the variable has no value yet
            continue
        if any(isinstance(value, Tensor) for value in contents):
            raise UsageError(
                f"scan: the body reads the tensor {name!r} from around it; pass it in constants=(..., {name}) and take it as "
                "an argument after x."
            )


def _freeze_constants(module: fx.GraphModule) -> list[tuple[str, str, bytes]]:
    """Let a body's graph hold numbers of its own, which nobody writes to: name, type and value of each."""
    frozen = []
    for name in [str(node.target) for node in module.graph.nodes if node.op == "get_attr"]:
        value = getattr(module, name).detach().clone()
        setattr(module, name, value)
        frozen.append((name, str(value.dtype), value.cpu().view(-1).view(torch.uint8).numpy().tobytes()))
    return frozen


def _refuse_impure(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op == "get_attr":
            value = getattr(graph.owning_module, str(node.target))
            if not all(user.target in _LITERALS for user in node.users):
                raise UsageError(
                    f"scan: the body reads a tensor of shape {tuple(value.shape)} that is not among its arguments; pass it "
                    "in constants=."
                )
        if isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags:
            raise UsageError(f"scan: the body draws random numbers ({node.target}); draw before, and pass them in xs.")


# A torch.tensor(2.0) in a body is traced as a constant that is copied, unlike a tensor from elsewhere.
_LITERALS = {torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default}


# --- the operations


@torch.library.custom_op("vipack::scan", mutates_args=())
def _scan(carry: list[Tensor], xs: list[Tensor], constants: list[Tensor], key: str) -> list[Tensor]:
    """Last carry, ys, and the carry before each step."""
    body = _BODIES[key]
    carries: list[list[Tensor]] = []
    ys: list[list[Tensor]] = []
    for t in range(body.length):
        carries.append(carry)
        results = body.forward(*carry, *(x[t] for x in xs), *constants)
        carry = list(results[: len(carry)])
        ys.append(list(results[len(carry) :]))
    stacked = [[torch.stack(entries) for entries in zip(*rows, strict=True)] for rows in (ys, carries)]
    return [*(c.clone() for c in carry), *stacked[0], *stacked[1]]


@_scan.register_fake
def _(carry: list[Tensor], xs: list[Tensor], constants: list[Tensor], key: str) -> list[Tensor]:
    body = _BODIES[key]
    return [
        *(torch.empty(c.size, dtype=c.dtype) for c in body.carry),
        *(torch.empty((body.length, *o.size), dtype=o.dtype) for o in body.outputs),
        *(torch.empty((body.length, *c.size), dtype=c.dtype) for c in body.carry),
    ]


@torch.library.custom_op("vipack::scan_backward", mutates_args=())
def _scan_backward(
    carries: list[Tensor],
    xs: list[Tensor],
    constants: list[Tensor],
    grad_carry: list[Tensor],
    grad_ys: list[Tensor],
    key: str,
) -> list[Tensor]:
    """Gradients of the first carry, of xs and of the constants."""
    body = _BODIES[key]
    count, width = len(carries), len(carries) + len(xs)
    of_xs: list[list[Tensor]] = []
    totals = [torch.zeros_like(c) for c in constants]
    for t in reversed(range(body.length)):
        inputs = [*(h[t] for h in carries), *(x[t] for x in xs), *constants]
        grads = body.backward(*inputs, *grad_carry, *(g[t] for g in grad_ys))
        grad_carry = list(grads[:count])
        of_xs.append(list(grads[count:width]))
        totals = [total + grad for total, grad in zip(totals, grads[width:], strict=True)]
    stacked = [torch.stack(entries[::-1]) for entries in zip(*of_xs, strict=True)]
    return [*(g.clone() for g in grad_carry), *stacked, *(t.clone() for t in totals)]


@_scan_backward.register_fake
def _(
    carries: list[Tensor],
    xs: list[Tensor],
    constants: list[Tensor],
    grad_carry: list[Tensor],
    grad_ys: list[Tensor],
    key: str,
) -> list[Tensor]:
    body = _BODIES[key]
    return [
        *(torch.empty(c.size, dtype=c.dtype) for c in body.carry),
        *(torch.empty((body.length, *x.size), dtype=x.dtype) for x in body.x),
        *(torch.empty(c.size, dtype=c.dtype) for c in body.constants),
    ]


def _setup(ctx: Any, inputs: Any, output: list[Tensor]) -> None:
    carry, xs, constants, key = inputs
    ctx.key, ctx.counts = key, (len(carry), len(xs), len(constants))
    body = _BODIES[key]
    carries = output[len(carry) + body.num_outputs :]
    ctx.save_for_backward(*carries, *xs, *constants)


def _backward(ctx: Any, gradients: list[Tensor | None]) -> Any:
    body = _BODIES[ctx.key]
    count, num_xs, _ = ctx.counts
    saved = ctx.saved_tensors
    carries, xs, constants = saved[:count], saved[count : count + num_xs], saved[count + num_xs :]

    def filled(gradient: Tensor | None, shape: _Shape, lead: tuple[int, ...]) -> Tensor:
        return carries[0].new_zeros((*lead, *shape.size), dtype=shape.dtype) if gradient is None else gradient

    grad_carry = [filled(g, s, ()) for g, s in zip(gradients[:count], body.carry, strict=True)]
    of_ys = gradients[count : count + body.num_outputs]
    grad_ys = [filled(g, s, (body.length,)) for g, s in zip(of_ys, body.outputs, strict=True)]
    grads = torch.ops.vipack.scan_backward(list(carries), list(xs), list(constants), grad_carry, grad_ys, ctx.key)
    return grads[:count], grads[count : count + num_xs], grads[count + num_xs :], None


_scan.register_autograd(_backward, setup_context=_setup)


def _vectorized(key: str, size: int, kinds: Sequence[int | None]) -> str:
    """The body for `size` scans side by side."""
    body = _BODIES[key]
    shapes = [*body.carry, *body.x, *body.constants]
    wide = [s if kind is None else _Shape((size, *s.size), s.dtype) for s, kind in zip(shapes, kinds, strict=True)]
    count, width = len(body.carry), len(body.carry) + len(body.x)
    function = torch.vmap(lambda *flat: list(body.forward(*flat)), in_dims=tuple(kinds))
    return _register(function, wide[:count], wide[count:width], wide[width:], body.length)


def _led(value: Tensor, dim: int | None, size: int) -> Tensor:
    """`value` with its vectorized dimension in front, expanded where it has none."""
    return value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)


@_scan.register_vmap
def _(info: Any, in_dims: Any, carry: list[Tensor], xs: list[Tensor], constants: list[Tensor], key: str) -> Any:
    dims, size = in_dims, info.batch_size
    carry = [_led(v, d, size) for v, d in zip(carry, dims[0], strict=True)]
    xs = [v if d is None else v.movedim(d, 1) for v, d in zip(xs, dims[1], strict=True)]
    constants = [v if d is None else v.movedim(d, 0) for v, d in zip(constants, dims[2], strict=True)]
    kinds = [*[0] * len(carry), *(None if d is None else 0 for d in (*dims[1], *dims[2]))]
    results = torch.ops.vipack.scan(carry, xs, constants, _vectorized(key, size, kinds))
    return results, [0] * len(carry) + [1] * (len(results) - len(carry))
