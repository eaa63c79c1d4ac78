"""Running user code once: the pair of traces, and the user's own exceptions explained by site and source line."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import linecache
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import init_to_median
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from vipack.compat.supports import support_of
from vipack.errors import GuideError, ModelError, SignatureError, SiteError, VipackError
from vipack.program.running.mismatches import RowCounts, collision, stands_twice, unlike_its_plate

__all__ = [
    "Arguments",
    "arguments_left_out",
    "check_signature",
    "explained",
    "explanation",
    "mixes_types",
    "named_arguments",
    "trace_model",
    "trace_pair",
    "without_trace_shapes",
]

_LIBRARIES = (
    *(str(Path(file).parent) for file in (pyro.__file__, torch.__file__, Path(__file__).parents[1]) if file),
    contextlib.__file__,
    functools.__file__,
)

_MIXED = re.compile(
    r"dtype|scalar type|\b(Float|float)\b.*\b(Double|double)\b|\b(Double|double)\b.*\b(Float|float)\b", re.S
)
_INTEGERS = re.compile(r"\b(Byte|Char|Short|Int|Long|Bool|unsigned char|signed char|short int|long int|int|bool)\b")

_SPARSE = re.compile(r"sparse|CSR|resize_reduction", re.IGNORECASE)


@dataclass(frozen=True)
class Arguments:
    """What the model and the guide are called with; `indices` are the data's rows ``(B,)`` in it, None for all.

    Attributes:
        numbers: what the objective reads beside, tensors ``()``.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    indices: Tensor | None = None
    numbers: tuple[Tensor, ...] = ()

    @property
    def lengths(self) -> frozenset[int]:
        """The leading sizes of its tensors."""
        values = (*self.args, *self.kwargs.values())
        return frozenset(len(value) for value in values if isinstance(value, Tensor) and value.dim())

    def __deepcopy__(self, memo: dict[int, Any]) -> Arguments:
        for value in (*self.args, *self.kwargs.values(), *self.numbers):
            if isinstance(value, Tensor) and value.layout != torch.strided:  # torch copies no sparse tensor so
                memo[id(value)] = value.clone()
        args, kwargs = copy.deepcopy(self.args, memo), copy.deepcopy(self.kwargs, memo)
        return Arguments(args, kwargs, copy.deepcopy(self.indices, memo), copy.deepcopy(self.numbers, memo))

    def __str__(self) -> str:
        described = [_describe(value) for value in self.args]
        described += [f"{name}={_describe(value)}" for name, value in self.kwargs.items()]
        return ", ".join(described) or "no arguments"


def trace_pair(model: Callable[..., Any], guide: Callable[..., Any], arguments: Arguments) -> tuple[Trace, Trace]:
    """Traces of one draw of the guide and of the model replayed against it, in that order.

    Raises:
        VipackError: the guide or the model raised; see :func:`explained`.
    """
    messenger = poutine.unwrap(guide)
    with explained("guide", arguments):
        if isinstance(messenger, Messenger):  # a GuideMessenger runs the model itself
            guide(*arguments.args, **arguments.kwargs)
            model_trace, guide_trace = messenger.get_traces()
            return guide_trace, model_trace
        guide_trace = poutine.trace(guide).get_trace(*arguments.args, **arguments.kwargs)
    with explained("model, replayed against the guide,", arguments):
        return guide_trace, trace_model(poutine.replay(model, trace=guide_trace), arguments)


def trace_model(model: Callable[..., Any], arguments: Arguments) -> Trace:
    """One trace of the model."""
    return poutine.trace(model).get_trace(*arguments.args, **arguments.kwargs)


def trace_prior(model: Callable[..., Any], arguments: Arguments) -> Trace:
    """One trace of the model alone, its latents drawn from the prior or, where it cannot run on such a draw, typical.

    Raises:
        VipackError: the model raised both times; see :func:`explained`.
    """
    try:
        with explained("model", arguments):
            return trace_model(model, arguments)
    except ModelError:
        with explained("model", arguments), _TypicalValues():
            return trace_model(model, arguments)


@contextlib.contextmanager
def explained(what: str, arguments: Arguments) -> Iterator[None]:
    """Turn an exception of the user's `what` (model or guide) into one that says where it was and what it was given.

    Raises:
        SiteError: two statements share a name, or the guide observes a latent.
        ShapeError: a site does not have the size of its plate.
        GuideError: an automatic guide cannot handle a site.
        ModelError: anything else.
    """
    watcher = _LastSite()
    try:
        with watcher:
            yield
    except VipackError as error:
        plain = without_trace_shapes(error)
        if plain is error:
            raise
        raise plain from error.__cause__
    except Exception as error:
        where = f"after site {watcher.name!r}" if watcher.name else "before its first site"
        raise explanation(what, error, arguments, where) from error


def without_trace_shapes(error: VipackError) -> VipackError:
    """`error`, raised inside a program, without the table of all sites that Pyro adds to it."""
    text, added, _ = str(error).partition("Trace Shapes:")
    return type(error)(text.rstrip()) if added else error


def explanation(what: str, error: Exception, arguments: Arguments, where: str) -> VipackError:
    """What :func:`explained` makes of `error`; `where` says how far `what` had come."""
    cure = "Call it by hand with the same arguments to see the whole traceback."
    if mixes_types(error):
        cure = (
            "Tensors that the program holds itself are of another floating-point type than the data: convert them, or pass "
            "dtype= as they have it."
        )
    if numbers := _whole_numbers(error, arguments):
        cure = (
            f"Whole numbers of the data ({numbers}) reach a layer that takes floats: convert them, before the fit or in the "
            "program, as in x.float() / 255 for pixels."
        )
    if _is_of_sparse(error, arguments):
        cure = (
            "SciPy's sparse matrices reach the program as CSR tensors, which torch cannot compute this with: make it dense by "
            "x.to_dense(), or use vipack.sparse.BagOfWords, which takes counts as they are."
        )
    if "on the same device" in str(error):
        cure = (
            "A tensor that the program holds itself stays where it is: pass it in data or fixed, which the fit moves."
        )
    return _recognised(what, error, arguments) or ModelError(
        f"the {what} raised {type(error).__name__} {where}{_source(error)}: {_message(error)}; it was called with "
        f"{arguments}. {cure}"
    )


def _whole_numbers(error: Exception, arguments: Arguments) -> str:
    """Types of the data's whole numbers, where torch refused to compute with such; empty otherwise."""
    if not isinstance(error, RuntimeError) or not _INTEGERS.search(str(error)):
        return ""
    values = (value for value in (*arguments.args, *arguments.kwargs.values()) if isinstance(value, Tensor))
    types = (value.dtype for value in values if not value.is_floating_point() and not value.is_complex())
    return ", ".join(dict.fromkeys(map(str, types)))


def _is_of_sparse(error: Exception, arguments: Arguments) -> bool:
    """Whether torch refused to compute with a sparse tensor of the data."""
    if not isinstance(error, RuntimeError) or not _SPARSE.search(str(error)):
        return False
    values = (*arguments.args, *arguments.kwargs.values())
    return any(isinstance(value, Tensor) and value.layout != torch.strided for value in values)


def mixes_types(error: BaseException) -> bool:
    """Whether torch refused to compute with tensors of different floating-point types, be it as the cause of `error`."""
    if error.__cause__ is not None and mixes_types(error.__cause__):
        return True
    return isinstance(error, RuntimeError) and bool(_MIXED.search(str(error)))


def _recognised(what: str, error: Exception, arguments: Arguments) -> VipackError | None:
    """A better account of those errors of Pyro's that have one usual cause."""
    text = _message(error)
    what = what.partition(",")[0]
    if match := re.match(r"Multiple (\w+) sites named '(.+?)'", text):
        return stands_twice(what, error, match[1], match[2])
    if match := re.match(r'at plates "(.+?)" and "(.+?)", collide at dim=(-\d+)', text):
        return collision(what, match[1], match[2], int(match[3]))
    if match := re.match(r"site (.+) must be sampled in trace", text):
        return SiteError(
            f"guide site {match[1]!r} is observed in the guide and a latent of the model; remove obs= there, so that the "
            "guide draws it."
        )
    if match := re.match(r"Continuous inference cannot handle discrete sample site '(.+?)'", text):
        return GuideError(
            f"site {match[1]!r} is a discrete latent, which this automatic guide cannot draw; sum it out, by marking the "
            "model with pyro.infer.config_enumerate and passing loss=pyro.infer.TraceEnum_ELBO(), or write a guide for it."
        )
    if match := re.match(r"(\w+) found no latent variables", text):
        return GuideError(
            f"guide: the model has no latent site that {match[1]} could draw; observe less, or pass an empty guide, as in "
            "guide=lambda *args, **kwargs: None, to maximise the likelihood over the model's parameters."
        )
    if match := re.match(r"Shape mismatch inside plate\('(.+?)'\) at site (.+) dim (-\d+), (\d+) vs (\d+)", text):
        plate, site, *numbers = match.groups()
        rows = RowCounts(arguments.lengths, arguments.indices is not None)
        return unlike_its_plate(what, error, rows, plate, site, *map(int, numbers))
    return None


def check_signature(what: str, program: Callable[..., Any], arguments: Arguments) -> None:
    """
    Raises:
        SignatureError: `arguments` do not fit the callable's signature.
    """
    signature = _signature(program)
    if signature is None:
        return
    try:
        signature.bind(*arguments.args, **arguments.kwargs)
    except TypeError as error:
        raise SignatureError(
            f"the {what} takes {signature}, but data and fixed make the call ({arguments}): {error}; "
            "a tuple in data is positional arguments, a dict keyword arguments, and fixed adds keyword arguments."
        ) from error


def named_arguments(program: Callable[..., Any], arguments: Arguments) -> dict[str, Any]:
    """What the program is called with, positional arguments under its own names for them where it has some."""
    signature = _signature(program)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in signature.parameters.values() if p.kind in positional] if signature else []
    names += [f"data[{i}]" for i in range(len(names), len(arguments.args))]
    return {**dict(zip(names, arguments.args, strict=False)), **arguments.kwargs}


def arguments_left_out(program: Callable[..., Any], arguments: Arguments) -> set[str]:
    """The program's own arguments that the call leaves at their default."""
    signature = _signature(program)
    return set() if signature is None else set(signature.parameters) - set(named_arguments(program, arguments))


def _signature(program: Callable[..., Any]) -> inspect.Signature | None:
    target = program.forward if isinstance(program, torch.nn.Module) else poutine.unwrap(program)
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


class _LastSite(Messenger):  # type: ignore[misc]
    """Remembers the sample site that was last reached."""

    name: str | None = None

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not site_is_subsample(msg):
            self.name = msg["name"]


class _TypicalValues(Messenger):  # type: ignore[misc]
    """Sets continuous latents to their prior median, as far as it can be had, or to the middle of their support."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        support = support_of(msg["fn"])
        if msg["done"] or msg["is_observed"] or site_is_subsample(msg) or support is None or support.is_discrete:
            return
        with torch.no_grad():
            msg["value"] = init_to_median(msg)
        msg["done"] = True


def _source(error: BaseException) -> str:
    """``, at file.py:12: `line` `` of the innermost frame that belongs to the user."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_LIBRARIES):
            line = linecache.getline(frame.filename, frame.lineno or 0).strip()
            quoted = f": `{line}`" if line else ""
            return f", at {Path(frame.filename).name}:{frame.lineno}{quoted}"
    return ""


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        kind = "" if value.layout == torch.strided else "CSR " if value.layout == torch.sparse_csr else "sparse "
        return f"{kind}tensor{tuple(value.shape)}"
    return type(value).__name__ if value is not None else "None"


def _message(error: Exception, limit: int = 400) -> str:
    text = str(error).partition("Trace Shapes:")[0]  # Pyro adds its table of all sites
    text = " ".join(text.split()).rstrip(".") or _innermost(error)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _innermost(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"in {frames[-1].name} of {Path(frames[-1].filename).name}" if frames else "no message"
