"""Private names of Pyro's automatic guides, losses and distributions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Normal
from pyro.infer.autoguide import AutoCallable, AutoDiagonalNormal, AutoHierarchicalNormalMessenger, AutoNormal
from torch import Tensor

from vipack.compat.messengers import without_handlers
from vipack.compat.names import PrivateName, named
from vipack.errors import UsageError

__all__ = [
    "ReadsModel",
    "can_copy_guides",
    "hierarchical_sites",
    "inside_guide",
    "is_marked_deterministic",
    "lacking_for_guides",
    "mask_of",
    "model_of",
    "networks_given",
    "set_model",
    "set_up",
    "traces_of",
    "unpacked",
    "with_nesting_guessed_by",
]


def _nothing() -> None:
    pass


def _normal() -> None:
    pyro.sample("z", Normal(0.0, 1.0))


def _of_prototype(name: str) -> Any:
    with without_handlers(), torch.random.fork_rng([]), pyro.get_param_store().scope():
        guide = AutoDiagonalNormal(_normal)
        guide()
    return getattr(guide, name)


_OWN_GUIDES = "vipack's own guides and the ladder do not work; Pyro's do"

CONTEXT = named(
    "pyro",
    "PyroModule._pyro_context",
    lambda: AutoNormal(_nothing)._pyro_context,
    without="objectives that look at many draws do not train automatic guides",
)
UNPACK = named(
    "pyro", "AutoContinuous._unpack_latent", "pyro.infer.autoguide:AutoContinuous._unpack_latent", without=_OWN_GUIDES
)
PROTOTYPE = named(
    "pyro", "AutoGuide._setup_prototype", "pyro.infer.autoguide:AutoGuide._setup_prototype", without=_OWN_GUIDES
)
_OF_GUIDES = [
    UNPACK,
    PROTOTYPE,
    *(
        named("pyro", f"{kind}.{name}", f"pyro.infer.autoguide:{kind}.{name}", without=_OWN_GUIDES)
        for kind, name in (
            ("AutoGuide", "_create_plates"),
            ("AutoContinuous", "_init_loc"),
            ("AutoContinuous", "_loc_scale"),
        )
    ),
    *(
        named("pyro", f"AutoGuide.{name}", functools.partial(_of_prototype, name), without=_OWN_GUIDES)
        for name in ("_prototype_frames", "_cond_indep_stacks", "_unconstrained_shapes")
    ),
]
MODEL = named(
    "pyro",
    "AutoGuide._model",
    lambda: AutoNormal(_nothing)._model,
    without="an automatic guide that is handed over as an object is trained itself, rather than a copy",
)
HIERARCHICAL = named(
    "pyro",
    "AutoHierarchicalNormalMessenger._hierarchical_sites",
    lambda: AutoHierarchicalNormalMessenger(_nothing)._hierarchical_sites,
    without="a prior without a mean, which AutoHierarchicalNormalMessenger does not take, is not found beforehand",
)
NESTING = named(
    "pyro",
    "ELBO._guess_max_plate_nesting",
    "pyro.infer:ELBO._guess_max_plate_nesting",
    without="a run that is resumed may draw other numbers than one that was not interrupted",
)
TRACES = named("pyro", "ELBO._get_traces", "pyro.infer:ELBO._get_traces", without="Beta and its kin cannot be trained")
MASK = named(
    "pyro",
    "MaskedDistribution._mask",
    lambda: Normal(0.0, 1.0).mask(False)._mask,
    without="latents and data that .mask() leaves out are not told apart from others",
)
LOG_MATMUL = named(
    "pyro", "pyro.distributions.hmm._logmatmulexp", without="the density of a DiscreteHMM is evaluated draw by draw"
)
DETERMINISTIC = named(
    "pyro",
    "infer['_deterministic']",
    lambda: _deterministic_infer()["_deterministic"],
    without="what pyro.deterministic records is known by its Delta",
)


def lacking_for_guides() -> str:
    """Why vipack's own guides do not work here; empty where they do."""
    return next((name.message for name in _OF_GUIDES if not name.there), "")


def inside_guide(guide: Any) -> contextlib.AbstractContextManager[Any]:
    """Inside the block, a guide's parameters are ``pyro.param`` statements, as they are in a call of it.

    Raises:
        UsageError: this Pyro cannot be told so.
    """
    _require(CONTEXT)
    context: contextlib.AbstractContextManager[Any] = guide._pyro_context
    return context


def unpacked(guide: Any, u: Tensor) -> Iterable[tuple[Any, Tensor]]:
    """The sites of an automatic guide, each with its slice of an unconstrained vector."""
    _require(UNPACK)
    sites: Iterable[tuple[Any, Tensor]] = guide._unpack_latent(u)
    return sites


def set_up(guide: Any, *args: Any, **kwargs: Any) -> None:
    """Let an automatic guide read its model and make its parameters, as its first call does."""
    _require(PROTOTYPE)
    guide._setup_prototype(*args, **kwargs)


def model_of(guide: Any) -> Any:
    """What an automatic guide keeps of its model, for :func:`set_model`; None where it does not say."""
    return guide._model if MODEL.there else None


def set_model(guide: Any, model: Any) -> None:
    """Put back what :func:`model_of` gave."""
    if MODEL.there:
        guide._model = model


def can_copy_guides() -> bool:
    """Whether an automatic guide can be copied with its model, which its own copy leaves out."""
    return MODEL.there


def networks_given(guide: Any) -> list[Any]:
    """Child modules of an automatic guide that its user wrote: the network of an amortised one, and a guide in a list."""
    given = [getattr(guide, "network", None) if getattr(guide, "amortized", False) else None]
    given += [getattr(guide, "_guide", None) if isinstance(guide, AutoCallable) else None]
    return [module for module in given if module is not None]


def hierarchical_sites(guide: AutoHierarchicalNormalMessenger) -> Iterable[str] | None:
    """The sites that the guide moves by the mean of their priors; None for all."""
    return guide._hierarchical_sites if HIERARCHICAL.there else ()


def with_nesting_guessed_by(loss: Any, guessing: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Let a loss count the plates of a program by our function, if it counts them at all.

    Args:
        guessing: makes our function from the loss's own.
    """
    own = getattr(loss, "_guess_max_plate_nesting", None)
    if own is not None and NESTING.there:
        loss._guess_max_plate_nesting = guessing(own)


def traces_of(elbo: Any, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterable[Any]:
    """Pairs of a model trace and a guide trace, one for each particle."""
    _require(TRACES)
    traces: Iterable[Any] = elbo._get_traces(model, guide, args, kwargs)
    return traces


def mask_of(fn: Any) -> Any:
    """The mask of a distribution that has one; None for another."""
    return getattr(fn, "_mask", None)


def is_marked_deterministic(infer: Any) -> bool:
    """Whether a site records what ``pyro.deterministic`` was given."""
    return bool(infer.get("_deterministic"))


def _require(name: PrivateName) -> None:
    if not name.there:
        raise UsageError(f"{name.message}; install a release of Pyro that vipack has been tested with.")


def _deterministic_infer() -> Any:
    with without_handlers():
        return poutine.trace(lambda: pyro.deterministic("y", torch.zeros(()))).get_trace().nodes["y"]["infer"]


class ReadsModel:
    """For a guide class of ours, before Pyro's class among its bases: what Pyro's keeps private, under public names.

    Raises:
        UsageError: when made, where this Pyro does without one of the names that our guides stand on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        missing = lacking_for_guides()
        if missing:
            raise UsageError(f"{missing}; pass a guide of Pyro's, such as AutoNormal.")
        super().__init__(*args, **kwargs)

    def read_model(self, *args: Any, **kwargs: Any) -> None:
        """Run the model once, and make what depends on its latents; called before the first draw."""
        super()._setup_prototype(*args, **kwargs)  # type: ignore[misc]

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        self.read_model(*args, **kwargs)

    def open_plates(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Name -> plate of the guide's own, for a call with these arguments."""
        plates: dict[str, Any] = self._create_plates(*args, **kwargs)  # type: ignore[attr-defined]
        return plates

    def start(self) -> Tensor:
        """``(D,)``: where the unconstrained latents start."""
        start: Tensor = self._init_loc()  # type: ignore[attr-defined]
        return start

    def slices_of(self, u: Tensor) -> dict[str, Tensor]:
        """Latent name -> its slice of unconstrained vectors ``(..., D)``."""
        return {site["name"]: piece for site, piece in self._unpack_latent(u)}  # type: ignore[attr-defined]

    def loc_and_scale(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """``(D,)`` each, where the family knows them."""
        loc, scale = self._loc_scale(*args, **kwargs)  # type: ignore[attr-defined]
        return loc, scale

    def frames_of(self, name: str) -> tuple[Any, ...]:
        """The plates that a latent stands in."""
        frames: tuple[Any, ...] = self._cond_indep_stacks[name]  # type: ignore[attr-defined]
        return frames

    def unconstrained_shape(self, name: str) -> tuple[int, ...]:
        """Of a latent."""
        shape: tuple[int, ...] = self._unconstrained_shapes[name]  # type: ignore[attr-defined]
        return shape

    def forget_plates(self, names: Collection[str]) -> None:
        """Open no plates of these names."""
        kept = {n: f for n, f in self._prototype_frames.items() if n not in names}  # type: ignore[has-type]
        self._prototype_frames = kept
