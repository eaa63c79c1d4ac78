"""The site table: what a model and its guide declare, read from one run of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pyro.distributions import Delta, RelaxedBernoulliStraightThrough, RelaxedOneHotCategoricalStraightThrough
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_factor, site_is_subsample
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from vipack.compat.autoguides import is_marked_deterministic, mask_of
from vipack.compat.supports import support_of
from vipack.display import Readable, block, grid
from vipack.errors import SiteError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Site",
    "SiteTable",
    "base_distribution",
    "has_density",
    "is_deterministic",
    "is_latent",
    "read_sites",
    "rounds_draws",
    "sample_nodes",
]

Kind = Literal["latent", "enumerated", "observed", "deterministic", "factor"]

_HEAD = ("site", "kind", "distribution", "plates", "batch", "event", "guide")
_WRAPPERS = ("Independent", "ExpandedDistribution", "MaskedDistribution", "CountedLatent", "FilledData")


@dataclass(frozen=True, repr=False)
class Site(Readable):
    """One named statement of the model.

    Attributes:
        kind: ``latent`` (the guide gives it), ``enumerated`` (discrete, summed out by TraceEnum_ELBO), ``observed``,
            ``deterministic`` or ``factor``.
        plates: names of the plates it stands in, outermost (leftmost dimension) first.
        batch_shape: shape of independent draws; one dimension for each vectorized plate, size 1 where it has none.
        event_shape: shape of one draw.
    """

    name: str
    kind: Kind
    distribution: str
    plates: tuple[str, ...]
    plate_dims: tuple[int, ...]
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    support: Constraint | None
    in_guide: bool

    def __str__(self) -> str:
        plates = f", plates {', '.join(self.plates)}" if self.plates else ""
        return (
            f"{self.name}: {self.kind} {self.distribution}{plates}, batch {self.batch_shape}, event {self.event_shape}"
        )

    @property
    def is_latent(self) -> bool:
        """Whether the guide draws it."""
        return self.kind == "latent"

    @property
    def is_free(self) -> bool:
        """Whether a latent is continuous and can take other values: probabilities of a single outcome cannot."""
        if self.support is None:
            return True
        if self.support.is_discrete:
            return False
        try:
            shape = biject_to(self.support).inverse_shape(self.batch_shape + self.event_shape)
        except NotImplementedError:  # a support that has no bijection
            return True
        return 0 not in shape

    @property
    def dim_names(self) -> tuple[str | None, ...]:
        """The plate of each batch dimension, left to right; None where no plate stands."""
        by_dim = dict(zip(self.plate_dims, self.plates, strict=True))
        size = len(self.batch_shape)
        return tuple(by_dim.get(i - size) for i in range(size))


@dataclass(frozen=True, repr=False)
class SiteTable(Readable):
    """The sites of a model in the order in which it runs, and its plates.

    Attributes:
        plates: name -> size; of the batch plate, the number of all rows.
        seen: name -> how many of them the run saw, for plates of which it saw some only.
    """

    sites: tuple[Site, ...]
    plates: dict[str, int]
    seen: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __getitem__(self, name: str) -> Site:
        for site in self.sites:
            if site.name == name:
                return site
        raise KeyError(name)

    def of_kind(self, *kinds: Kind) -> tuple[Site, ...]:
        """The sites of the given kinds, in order."""
        return tuple(site for site in self.sites if site.kind in kinds)

    def __str__(self) -> str:
        rows = [_HEAD, *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, self._sizes()])

    def to_frame(self) -> pd.DataFrame:
        """One row a site, with what ``str()`` shows of it."""
        import pandas as pd

        return pd.DataFrame(
            [cells[1:] for cells in self._cells()], [s.name for s in self.sites], _HEAD[1:]
        ).rename_axis("site")

    def _repr_html_(self) -> str:
        return grid(self._cells(), _HEAD) + block(self._sizes())

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                s.name,
                s.kind,
                s.distribution,
                ", ".join(s.plates) or "-",
                str(s.batch_shape),
                str(s.event_shape),
                "yes" if s.in_guide else "-",
            )
            for s in self.sites
        ]

    def _sizes(self) -> str:
        return "plates: " + (", ".join(f"{name} ({self._size(name)})" for name in self.plates) or "none")

    def _size(self, plate: str) -> str:
        size = str(self.plates[plate])
        return f"{self.seen[plate]} of {size}" if plate in self.seen else size


def read_sites(model_trace: Trace, guide_trace: Trace | None, batch_plate: tuple[str, int] | None = None) -> SiteTable:
    """The site table of a traced model.

    Args:
        guide_trace: says which sites the guide gives; None: not known.
        batch_plate: name of the plate that a minibatch is rows of, and the number of all its rows.

    Raises:
        SiteError: the value of a site is no tensor.
    """
    sites: list[Site] = []
    plates: dict[str, int] = {}
    run_sizes: dict[str, int] = {}
    given = set() if guide_trace is None else {n for n, s in guide_trace.nodes.items() if s["type"] == "sample"}
    for name, node in model_trace.nodes.items():
        if node["type"] != "sample":
            continue
        for frame in node["cond_indep_stack"]:
            whole = frame.full_size or frame.size
            if batch_plate is not None and frame.name == batch_plate[0]:
                whole = batch_plate[1]
            plates[frame.name] = whole
            if frame.size < whole:
                run_sizes[frame.name] = frame.size
        if site_is_subsample(node):
            continue
        sites.append(_site(name, node, name in given, unknown=guide_trace is None))
    return SiteTable(tuple(sites), plates, run_sizes)


def _site(name: str, node: dict[str, Any], in_guide: bool, unknown: bool) -> Site:
    fn = node["fn"]
    frames = [f for f in node["cond_indep_stack"] if f.vectorized]
    frames.sort(key=lambda frame: frame.dim)
    value = node["value"]
    if not isinstance(value, Tensor):
        raise SiteError(
            f"site {name!r}: its value is a {type(value).__name__} ({str(value)[:40]}), expected a tensor; make it one with "
            "torch.as_tensor."
        )
    event_dim = getattr(fn, "event_dim", 0)
    shape = tuple(value.shape) if not site_is_factor(node) else tuple(getattr(fn, "batch_shape", ()))
    split = len(shape) - event_dim
    return Site(
        name=name,
        kind=_kind(node, in_guide or unknown),
        distribution=type(base_distribution(fn)).__name__,
        plates=tuple(frame.name for frame in frames),
        plate_dims=tuple(frame.dim for frame in frames),
        batch_shape=shape[:split],
        event_shape=shape[split:],
        support=support_of(fn) if not site_is_factor(node) else None,
        in_guide=in_guide,
    )


def _kind(node: dict[str, Any], given: bool) -> Kind:
    if is_deterministic(node):
        return "deterministic"
    if site_is_factor(node):
        return "factor"
    if node["is_observed"]:
        return "observed"
    if (
        not given
        and node["infer"].get("enumerate") == "parallel"
        and getattr(node["fn"], "has_enumerate_support", False)
    ):
        return "enumerated"
    return "latent"


def base_distribution(fn: Any) -> Any:
    """The distribution itself, without ``to_event``, ``expand`` and ``mask`` around it."""
    while type(fn).__name__ in _WRAPPERS:
        fn = fn.base_dist
    return fn


def rounds_draws(fn: Any) -> bool:
    """Whether a distribution rounds its draws and scores them by what they were before, which their numbers do not say."""
    return isinstance(base_distribution(fn), RelaxedOneHotCategoricalStraightThrough | RelaxedBernoulliStraightThrough)


def sample_nodes(trace: Trace) -> dict[str, dict[str, Any]]:
    """The ``pyro.sample`` statements of a trace by name, without the rows that plates draw."""
    return {
        name: node for name, node in trace.nodes.items() if node["type"] == "sample" and not site_is_subsample(node)
    }


def is_latent(node: Mapping[str, Any]) -> bool:
    """Whether a node of a trace is an unobserved ``pyro.sample`` statement."""
    return node["type"] == "sample" and not node["is_observed"] and not site_is_subsample(node)


def is_deterministic(node: Mapping[str, Any]) -> bool:
    """Whether a sample node records a value that was computed: by ``pyro.deterministic``, or by a reparametrisation.

    ``LocScaleReparam`` and its kin leave an observed Delta behind, without the mark of ``pyro.deterministic``.
    """
    return is_marked_deterministic(node["infer"]) or (
        node["is_observed"] and isinstance(base_distribution(node["fn"]), Delta)
    )


def has_density(node: Mapping[str, Any]) -> bool:
    """Whether a sample node may add to a log density: a computed value does where its Delta bears one that counts."""
    if not is_deterministic(node):
        return True
    fn, masks = node["fn"], [node["mask"]]
    while type(fn).__name__ in _WRAPPERS:
        masks.append(mask_of(fn))
        fn = fn.base_dist
    return not any(mask is False for mask in masks)
