"""A model and a guide as one program that owns its parameters, and how it runs."""

from __future__ import annotations

import contextlib
import copy
import copyreg
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide, init_to_mean, init_to_median
from pyro.infer.autoguide.effect import AutoMessenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from vipack.compat.autoguides import can_copy_guides, model_of, set_model
from vipack.entry import entry
from vipack.errors import GuideError, ModelError, VipackError
from vipack.lock import alone
from vipack.pickling import check_picklable
from vipack.program.densities.filling import MaskedData
from vipack.program.densities.masking import MaskedLatents, Treatment, treatments
from vipack.program.densities.substitution import Given, Widened
from vipack.program.densities.values import unvalidated
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.running.params import Parameters
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, check_signature, explained, trace_model, trace_pair, trace_prior
from vipack.program.running.step_numbers import numbers_of_step
from vipack.program.sites.agreement import check_discreteness, check_prototype
from vipack.program.sites.plates import BatchPlate, PlateCall, evaluated_plates, recorded_plates, subsampled
from vipack.program.sites.starts import checked_starts

__all__ = ["GivenGuide", "Program", "make_guide"]


class Program:
    """Model and guide with parameters of their own, runnable on the full data or on a minibatch.

    Attributes:
        model: the user's callable, unchanged.
        guide: the user's callable, or this fit's own copy of an AutoGuide.
        parameters: the tensors that training changes.
        batch_plate: the plate that minibatches are rows of, once known.
        plates: how the model opens each of its plates on the data that it was initialised with.
        masked: what is done about latents that a mask leaves out, by name; known once initialised.
        remake: makes such a program anew, from what the user gave; None for one that is never copied.
        fills: whether observed values that a mask leaves out are filled; plain Pyro does not.
        widened: of a program of float64, the sites whose float32 draws were made float64.
    """

    remake: functools.partial[Program] | None = None

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        dtype: torch.dtype,
        device: torch.device,
        fills: bool = True,
    ) -> None:
        self.model = model
        self.guide = guide
        self.parameters = Parameters(dtype, device)
        self.parameters.programs = (model, guide)
        self.batch_plate: BatchPlate | None = None
        self.plates: dict[str, PlateCall] = {}
        self.masked: dict[str, Treatment] = {}
        self.fills = fills
        self.widened: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process modules and names are others, so a program is made again and given its parameters."""
        if self.remake is None:
            return copyreg.__newobj__, (Program,), self.__dict__  # type: ignore[attr-defined]
        check_picklable(model=self.model, guide=self.remake.keywords["guide"])
        return _rebuilt, (self.remake, self.parameters.state())

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        if self.remake is not None:
            memo[id(self)] = own = _rebuilt(copy.deepcopy(self.remake, memo), self.parameters.state())
            return own
        memo[id(self)] = own = Program.__new__(Program)
        own.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return own

    @contextlib.contextmanager
    def bound(
        self,
        arguments: Arguments,
        *,
        values: Mapping[str, Tensor] | None = None,
        buffers: dict[str, Tensor] | None = None,
        training: bool = True,
    ) -> Iterator[None]:
        """Everything that running the model or guide on `arguments` needs: parameters, dtype, device, batch rows.

        Args:
            values: unconstrained parameters in place of the program's own.
            buffers: modules' buffers in place of the program's own.
            training: False evaluates: modules in evaluation mode and every plate whole, or as large as new data.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(alone())  # all that follows is one for all threads
            stack.enter_context(_defaults(self.parameters.dtype, self.parameters.device))
            stack.enter_context(self.parameters.bound(values, buffers=buffers, training=training))
            if self.parameters.dtype == torch.float64 and not self.parameters.shared:
                stack.enter_context(Widened(self.widened))
            if self.masked:  # outermost, so that it sees each message with all masks and scales
                stack.enter_context(MaskedLatents(self.masked))
            if self.fills:
                stack.enter_context(MaskedData())
            if arguments.numbers:
                stack.enter_context(numbers_of_step(arguments.numbers))
            if arguments.indices is not None and self.batch_plate is not None:
                stack.enter_context(subsampled(self.batch_plate, arguments.indices))
            elif not training:
                stack.enter_context(evaluated_plates(self.batch_plate, self.plates, arguments.lengths))
            yield

    def initialise(self, arguments: Arguments) -> None:
        """Run guide and model once, so that parameters and the prototypes of automatic guides come to be.

        Raises:
            SignatureError, ModelError, SiteError, SupportError, GuideError: the model or guide cannot be run on `arguments`.
        """
        check_signature("model", self.model, arguments)
        check_signature("guide", self.guide, arguments)
        with contextlib.ExitStack() as stack:
            # What validation would raise here, the check finds too, and names.
            for context in (self.bound(arguments), unvalidated(), flat_priors_sampled(), checked_starts()):
                stack.enter_context(context)
            stack.enter_context(torch.no_grad())
            if isinstance(self.guide, AutoGuide | AutoMessenger):
                check_prototype(self.guide, trace_prior(self.model, arguments))
            else:
                self._compare_with_prior(arguments)
            with recorded_plates() as opened:
                guide_trace, model_trace = self.traces(arguments)
            self.plates = {name: calls[-1] for name, calls in opened.items()}
            self.masked = self.treatments_of(guide_trace, model_trace, arguments)

    def treatments_of(self, guide_trace: Trace, model_trace: Trace, arguments: Arguments) -> dict[str, Treatment]:
        """What is done about latents that a mask leaves out on `arguments`; to be called inside :meth:`bound`."""

        def run(latents: Mapping[str, Tensor]) -> Trace:
            with seeded(0), Given(latents), explained("model", arguments):
                return trace_model(self.model, arguments)

        return treatments(guide_trace, model_trace, run)

    def _compare_with_prior(self, arguments: Arguments) -> None:
        # A model may fail everywhere in its prior, but not where the user's guide draws.
        with contextlib.suppress(ModelError):
            prior = trace_prior(self.model, arguments)
            with explained("guide", arguments):
                check_discreteness(prior, trace_model(self.guide, arguments))

    def traces(self, arguments: Arguments) -> tuple[Trace, Trace]:
        """Guide trace and model trace of one draw; to be called inside :meth:`bound`."""
        return trace_pair(self.model, self.guide, arguments)


@entry
def _rebuilt(remake: Callable[[], Program], state: dict[str, dict[str, Tensor]]) -> Program:
    program = remake()
    program.parameters.load_state(state)
    return program


def make_guide(model: Callable[..., Any], guide: Any) -> Any:
    """A guide for this fit alone: a class or partial is called with the model, an AutoGuide is copied, else as given.

    Raises:
        GuideError: `guide` is not callable.
    """
    builder: Any = guide.func if isinstance(guide, functools.partial) else guide
    if isinstance(builder, type):
        if not issubclass(builder, torch.nn.Module | AutoGuide | AutoMessenger):
            raise GuideError(
                f"guide: {builder.__name__} is a class, but not a guide; pass an AutoGuide class such as AutoNormal, "
                "an instance of one, or a guide function."
            )
        try:
            built: Callable[..., Any] = guide(model, **_safe_start(builder))
        except VipackError:
            raise
        except Exception as error:
            raise GuideError(
                f"guide: {builder.__name__}(model) raised {type(error).__name__}: {error}; "
                "pass an instance, or functools.partial with the options that it needs."
            ) from error
        if not callable(built):
            raise GuideError(f"guide: {builder.__name__}(model) made a {type(built).__name__}, which is not callable.")
        return built
    if isinstance(guide, AutoGuide):
        return _own_copy(guide) if can_copy_guides() else guide
    if isinstance(guide, AutoMessenger):
        return copy.deepcopy(guide, {id(model): model for model in model_of(guide) or ()})
    if not callable(guide):
        raise GuideError(
            f"guide: expected a callable or an AutoGuide class, found {type(guide).__name__} {guide!r}; "
            "pass the object itself, as in vi.fit(model, AutoNormal, data=...)."
        )
    own: Callable[..., Any] = guide
    return own


class GivenGuide:
    """What the user gave as a guide, so that it can be copied: an AutoGuide that is pickled or copied loses its model."""

    def __init__(self, guide: Any) -> None:
        self.guide = guide

    def __reduce__(self) -> tuple[Any, ...]:
        if not (isinstance(self.guide, AutoGuide) and can_copy_guides()):
            return GivenGuide, (self.guide,)
        own = _own_copy(self.guide)
        return _given_again, (own, {name: model_of(p) for name, p in own.named_modules() if isinstance(p, AutoGuide)})


def _given_again(guide: AutoGuide, models: Mapping[str, Any]) -> GivenGuide:
    for name, model in models.items():
        set_model(guide.get_submodule(name), model)
    return GivenGuide(guide)


def _safe_start(builder: Any) -> dict[str, Any]:
    """Start from the median where a guide would start from the mean, which a heavy-tailed prior does not have."""
    try:
        start = inspect.signature(builder).parameters.get("init_loc_fn")
    except (TypeError, ValueError):
        return {}
    default = start.default if start is not None else None
    strategy = default.func if isinstance(default, functools.partial) else default
    return {"init_loc_fn": init_to_median} if strategy is init_to_mean else {}


def _own_copy(guide: AutoGuide) -> AutoGuide:
    """A deep copy that shares the model, so that this fit's prototype and parameters are its own."""
    guides = [(name, child) for name, child in guide.named_modules() if isinstance(child, AutoGuide)]
    links = [(model_of(child), child.master) for _, child in guides]
    shared = {
        id(child.prototype_trace): child.prototype_trace for _, child in guides if child.prototype_trace is not None
    }
    try:
        own: AutoGuide = copy.deepcopy(guide, shared)
    finally:
        # AutoGuide.__getstate__ takes the model and the master away from the very object that is being copied.
        for (_, child), (model, master) in zip(guides, links, strict=True):
            child.master = master
            set_model(child, model)
    for (name, _), (model, _) in zip(guides, links, strict=True):
        set_model(own.get_submodule(name), model)
    return own


@contextlib.contextmanager
def _defaults(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Tensors that the user's code makes without saying otherwise have the fit's dtype and device."""
    before = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        if device.type != "cpu":
            stack.enter_context(device)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
