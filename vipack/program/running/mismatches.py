"""What is the matter where Pyro refuses the shape of a site in its plates, or a plate that is opened again."""

from __future__ import annotations

from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor

from vipack.compat.messengers import is_subsample
from vipack.errors import PlateError, ShapeError, SiteError, VipackError

__all__ = ["RowCounts", "collision", "stands_twice", "unlike_its_plate"]


@dataclass(frozen=True)
class RowCounts:
    """The leading sizes of the arguments of a call, and whether they are some of the rows only."""

    lengths: frozenset[int]
    are_a_batch: bool


def unlike_its_plate(
    what: str, error: Exception, rows: RowCounts, plate: str, site: str, dim: int, size: int, site_size: int
) -> ShapeError:
    """A site whose batch shape has `site_size` at the dimension of a plate of `size`.

    Args:
        what: "model" or "guide".
    """
    msg = _local(error, "msg") or {}
    shape = tuple(getattr(msg.get("fn"), "batch_shape", ()))
    cure = _cure(what, msg, shape, plate, dim, size, site_size, rows)
    return ShapeError(
        f"{what} site {site!r}: its batch shape {shape} has {site_size} at dimension {dim}, where plate {plate!r} has {size}; {cure}."
    )


def _cure(
    what: str,
    msg: dict[str, Any],
    shape: tuple[int, ...],
    plate: str,
    dim: int,
    size: int,
    site_size: int,
    rows: RowCounts,
) -> str:
    right = next((d for d in range(dim + 1, 0) if shape[d] == size), None)
    if right is not None:
        return (
            f"the distribution has the plate's {size} at dimension {right}, so give plate {plate!r} dim={right}, and the plate "
            f"around it that stands there dim={dim}"
        )
    events = next((n for n in range(1, len(shape) + dim + 1) if shape[dim - n] == size), 0)
    value = msg.get("value")
    observed = msg.get("is_observed") and isinstance(value, Tensor)
    to_event = (
        f"declare the {site_size} with .to_event({events or -dim}), so that a row of the plate is one draw of them"
    )
    if events:
        return to_event
    if observed and value is not None and value.dim() > 1 and value.shape[0] == size and what == "model":
        return to_event
    by_data = (
        f"size the plate by the data, as in pyro.plate({plate!r}, len(x)), and the distribution's parameters alike"
    )
    sized_by_data = size in rows.lengths and site_size not in rows.lengths
    if not observed and len(shape) == -dim and sized_by_data and (what == "model" or not rows.are_a_batch):
        return to_event
    if what == "guide":
        return (
            f"in a minibatch take the rows that the plate holds, as in `with pyro.plate({plate!r}, ...) as rows:` and "
            "parameter[rows], or amortise: compute the parameters from the data"
        )
    if not observed and len(shape) == 1:
        return f"{by_data}; or, if each row of the plate has {site_size} of them, {to_event}"
    return by_data


def stands_twice(what: str, error: Exception, kind: str, name: str) -> SiteError:
    """A statement whose name has been taken; where it is a plate, with what is different the second time."""
    trace, again = _local(error, "self"), _local(error, "kwargs") or {}
    if not is_subsample(again.get("fn")):
        return SiteError(
            f"{kind} site {name!r} of the {what} occurs twice; every statement of a program needs a name of its own, so "
            "rename one."
        )
    size, first = again["fn"].size, trace.nodes[name]["fn"].size
    frames = (frame for node in trace.nodes.values() for frame in node.get("cond_indep_stack", ()))
    dims = [next((frame.dim for frame in frames if frame.name == name), None), _local(error, "dim", "__init__")]
    layouts = [f"size {n}" + ("" if d is None else f" at dim={d}") for n, d in zip((first, size), dims, strict=True)]
    cure = f"make it once, as in `rows = pyro.plate({name!r}, {size})`, and open that object again with `with rows:`; or rename one"
    if size != first or (None not in dims and dims[0] != dims[1]):
        cure = "a plate has one size and one dimension, so rename one of them"
    return SiteError(f"plate {name!r} of the {what} is made twice, with {layouts[0]} and with {layouts[1]}; {cure}.")


def collision(what: str, plate: str, other: str, dim: int) -> VipackError:
    """Two plates at one dimension."""
    return PlateError(
        f"plates {other!r} and {plate!r} of the {what}, one inside the other, both take dim={dim}; give each a dimension of its "
        f"own, as in pyro.plate({plate!r}, ..., dim={dim - 1}), in which the shapes of its sites have its size, or leave dim= out."
    )


def _local(error: BaseException, name: str, function: str = "") -> Any:
    """A variable of the frame that raised `error`, or of the innermost one of a `function` that has it."""
    value, step = None, error.__traceback__
    while step is not None:
        frame: FrameType = step.tb_frame
        if not function or (frame.f_code.co_name == function and name in frame.f_locals):
            value = frame.f_locals.get(name)
        step = step.tb_next
    return value
