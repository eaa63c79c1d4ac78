"""Maps of a model's latents that may leave its posterior as it is: exchanges of components, and flips of signs."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from vipack.program import SiteTable
from vipack.program.sites.signed_permutations import SignedPermutation
from vipack.program.sites.sites import Site

__all__ = ["Candidate", "Coordinates", "exchanges", "flips", "rotations"]

_LARGEST_DIM = 64  # along which components are exchanged and flipped
_MOST_PAIRS = 8  # components, up to which all pairs are exchanged; beyond, neighbours
_MOST_BUNDLES = 6  # of one size, up to which all their subsets are tried; beyond, those of at most three
_MOST_REFLECTED = 3  # intervals that an exchange of two may reflect
_MOST_SITES = 8  # up to which pairs and triples of whole sites are flipped
_FEW_SITES = 6  # up to which any two sites of one shape are exchanged
_NUMBERED = re.compile(r"^(.*?)_?(\d+)$")
_ANGLE = 0.7


@dataclass(frozen=True)
class Candidate:
    """A map to be tested.

    Attributes:
        kind: "relabelling", "sign" or "reflection".
        sites: whose values it changes.
        family: what is exchanged together; maps of one family differ in the components.
        pair: the components that are exchanged; None of a flip.
    """

    move: SignedPermutation
    kind: str
    sites: tuple[str, ...]
    family: tuple[str, ...] = ()
    pair: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Axis:
    """Components side by side: `positions` ``(K, n)`` in the vector of latents."""

    label: str
    sites: tuple[str, ...]
    positions: Tensor
    plate: str | None = None

    @property
    def size(self) -> int:
        return len(self.positions)


class Coordinates:
    """The continuous latents as one constrained vector ``(P,)``, site after site.

    Attributes:
        sites: in the order of the vector.
        sign, offset: what reflects each number: -1 and 0 on the reals, -1 and the sum of its ends in an interval; sign 1 of
            numbers that cannot be reflected.
    """

    def __init__(self, table: SiteTable, names: Sequence[str]) -> None:
        self.sites = tuple(table[name] for name in names)
        self.shapes = {site.name: torch.Size(site.batch_shape + site.event_shape) for site in self.sites}
        self.positions: dict[str, Tensor] = {}
        start, signs, offsets = 0, [], []
        for site in self.sites:
            shape = self.shapes[site.name]
            self.positions[site.name] = torch.arange(start, start + shape.numel()).reshape(shape)
            start += shape.numel()
            sign, offset = _reflection(site, shape)
            signs.append(sign)
            offsets.append(offset)
        self.size = start
        empty = torch.empty(0, dtype=torch.float64)
        self.sign, self.offset = torch.cat([*signs, empty]), torch.cat([*offsets, empty])

    def flat(self, latents: dict[str, Tensor]) -> Tensor:
        """``(S, P)`` of draws ``site -> (S, *shape)``."""
        return torch.cat([latents[site.name].reshape(-1, self.shapes[site.name].numel()) for site in self.sites], -1)

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """The inverse of :meth:`flat`."""
        pieces = flat.split([shape.numel() for shape in self.shapes.values()], -1)
        return {
            name: piece.reshape(len(flat), *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def inside(self, flat: Tensor) -> Tensor:
        """Whether points ``(S, P)`` lie in the support of every site ``(S,)``: an exchange may undo an order."""
        fine = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
        for site, value in zip(self.sites, self.named(flat).values(), strict=True):
            if site.support is not None:
                fine &= site.support.check(value).reshape(len(flat), -1).all(1)
        return fine

    def reflects(self, positions: Tensor) -> bool:
        """Whether all these numbers can be reflected."""
        return bool((self.sign[positions] < 0).all()) and positions.numel() > 0

    def on_reals(self, positions: Tensor) -> bool:
        """Whether all these are real numbers."""
        return self.reflects(positions) and bool((self.offset[positions] == 0).all())

    def move(self, exchanged: Sequence[tuple[Tensor, Tensor]], reflected: Sequence[Tensor]) -> SignedPermutation:
        """Exchange positions pair by pair, and reflect others."""
        identity = SignedPermutation.identity(self.size)
        index, sign, offset = identity.index, identity.sign, identity.offset
        for one, other in exchanged:
            index[one], index[other] = other.clone(), one.clone()
        for positions in reflected:
            sign[positions], offset[positions] = self.sign[positions], self.offset[positions]
        return SignedPermutation(index, sign, offset)

    def axes(self) -> list[_Axis]:
        """All dimensions of sites, and series of numbered sites, in which components may stand side by side."""
        axes = []
        for site in self.sites:
            where = self.positions[site.name]
            plates: tuple[str | None, ...] = (*site.dim_names, *(None,) * len(site.event_shape))
            for dim, (size, plate) in enumerate(zip(where.shape, plates, strict=True)):
                if 2 <= size <= _LARGEST_DIM:
                    label = f"{site.name}.{dim}"
                    axes.append(_Axis(label, (site.name,), where.movedim(dim, 0).reshape(size, -1), plate))
        return [*axes, *self._numbered(), *self._alike()]

    def _numbered(self) -> Iterator[_Axis]:
        """Sites such as ``mu_0, mu_1``."""
        series: dict[str, dict[int, Site]] = defaultdict(dict)
        for site in self.sites:
            matched = _NUMBERED.match(site.name)
            if matched:
                series[matched[1]][int(matched[2])] = site
        for stem, members in series.items():
            ordered = [members[number] for number in sorted(members)]
            if 2 <= len(ordered) <= _LARGEST_DIM and len({_form(site) for site in ordered}) == 1:
                stacked = torch.stack([self.positions[site.name].reshape(-1) for site in ordered])
                yield _Axis(f"{stem}*", tuple(site.name for site in ordered), stacked, plate=f"{sorted(members)}")

    def _alike(self) -> Iterator[_Axis]:
        """Any two sites of one shape and support, where there are few."""
        if len(self.sites) > _FEW_SITES:
            return
        for one, other in itertools.combinations(self.sites, 2):
            numbered = _NUMBERED.match(one.name) and _NUMBERED.match(other.name)
            if _form(one) == _form(other) and not numbered:
                stacked = torch.stack([self.positions[site.name].reshape(-1) for site in (one, other)])
                yield _Axis(f"{one.name}|{other.name}", (one.name, other.name), stacked)


def exchanges(coordinates: Coordinates) -> Iterator[Candidate]:
    """Two components exchanged, in one dimension or in several of the same size at once; smaller sets first.

    Where there are two components, intervals may be reflected with them, as w to 1 - w; and the signs of what is exchanged.
    """
    whole = [site for site in coordinates.sites if _reflected_interval(coordinates, site)][:_MOST_REFLECTED]
    for size, bundles in _bundles(coordinates.axes()).items():
        most = len(bundles) if len(bundles) <= _MOST_BUNDLES else 3
        pairs = _pairs(size)
        for count in range(1, most + 1):
            for subset in itertools.combinations(bundles, count):
                axes = [axis for bundle in subset for axis in bundle]
                if _overlap(axes):
                    continue
                for chosen in _subsets(whole if size == 2 else []):
                    yield from _exchanged(coordinates, axes, pairs, chosen)


def _exchanged(
    coordinates: Coordinates, axes: Sequence[_Axis], pairs: Sequence[tuple[int, int]], reflected: Sequence[Site]
) -> Iterator[Candidate]:
    names = {name for axis in axes for name in axis.sites} | {site.name for site in reflected}
    sites = tuple(site.name for site in coordinates.sites if site.name in names)
    moved = {name for axis in axes for name in axis.sites}
    if moved & {site.name for site in reflected}:
        return
    intervals = [coordinates.positions[site.name].reshape(-1) for site in reflected]
    family = (*(axis.label for axis in axes), *(site.name for site in reflected))
    for i, j in pairs:
        swapped = [(axis.positions[i], axis.positions[j]) for axis in axes]
        yield Candidate(coordinates.move(swapped, intervals), "relabelling", sites, family, (i, j))
        both = torch.cat([torch.cat(pair) for pair in swapped])
        if coordinates.on_reals(both) and not reflected:
            yield Candidate(coordinates.move(swapped, [both]), "relabelling", sites, (*family, "-"), (i, j))


def flips(coordinates: Coordinates) -> Iterator[Candidate]:
    """Signs of whole sites, of single components, and of those that may go together; smaller sets first."""
    whole = [site for site in coordinates.sites if coordinates.reflects(coordinates.positions[site.name])]
    axes = [axis for axis in coordinates.axes() if coordinates.reflects(axis.positions) and len(axis.sites) == 1]
    by_size: dict[int, list[_Axis]] = defaultdict(list)
    for axis in axes:
        by_size[axis.size].append(axis)
    for count in (1, 2, 3):
        if count == 1 or len(whole) <= _MOST_SITES:
            for sites in itertools.combinations(whole, count):
                yield _flipped(coordinates, [(s.name, coordinates.positions[s.name].reshape(-1)) for s in sites])
        for size, group in by_size.items():
            for some in itertools.combinations(group, count):
                if not _overlap(some) and (count == 1 or len(group) <= _MOST_SITES):
                    for k in range(size):
                        yield _flipped(coordinates, [(axis.sites[0], axis.positions[k]) for axis in some])


def _flipped(coordinates: Coordinates, named: Sequence[tuple[str, Tensor]]) -> Candidate:
    positions = torch.cat([where for _, where in named])
    kind = "sign" if coordinates.on_reals(positions) else "reflection"
    return Candidate(coordinates.move([], [positions]), kind, tuple(name for name, _ in named))


def rotations(coordinates: Coordinates) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Sites, and a matrix ``(P, P)`` that turns two of their components into each other; a continuum of maps each."""
    by_size: dict[int, list[_Axis]] = defaultdict(list)
    for axis in coordinates.axes():
        if len(axis.sites) == 1 and coordinates.on_reals(axis.positions):
            by_size[axis.size].append(axis)
    cos, sin = torch.tensor(_ANGLE).double().cos(), torch.tensor(_ANGLE).double().sin()
    for group in by_size.values():
        for count in (1, 2, 3):
            for axes in itertools.combinations(group, count):
                if _overlap(axes) or (count > 1 and len(group) > _MOST_SITES):
                    continue
                matrix = torch.eye(coordinates.size, dtype=torch.float64)
                for axis in axes:
                    one, other = axis.positions[0], axis.positions[1]
                    matrix[one, one], matrix[other, other] = cos, cos
                    matrix[one, other], matrix[other, one] = -sin, sin
                yield tuple(axis.sites[0] for axis in axes), matrix


def _bundles(axes: Sequence[_Axis]) -> dict[int, list[list[_Axis]]]:
    """Axes by size; those of one plate go together."""
    bundles: dict[int, dict[str, list[_Axis]]] = defaultdict(lambda: defaultdict(list))
    for axis in axes:
        bundles[axis.size][axis.label if axis.plate is None else f"plate {axis.plate}"].append(axis)
    return {size: list(named.values()) for size, named in bundles.items()}


def _overlap(axes: Sequence[_Axis]) -> bool:
    positions = torch.cat([axis.positions.reshape(-1) for axis in axes])
    return len(positions.unique()) < len(positions)


def _pairs(size: int) -> list[tuple[int, int]]:
    if size <= _MOST_PAIRS:
        return list(itertools.combinations(range(size), 2))
    return [(i, i + 1) for i in range(size - 1)]


def _subsets(items: Sequence[Site]) -> Iterator[tuple[Site, ...]]:
    for count in range(len(items) + 1):
        yield from itertools.combinations(items, count)


def _form(site: Site) -> tuple[Any, ...]:
    return site.batch_shape, site.event_shape, type(_base(site.support))


def _base(support: Any) -> Any:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _reflected_interval(coordinates: Coordinates, site: Site) -> bool:
    positions = coordinates.positions[site.name]
    return coordinates.reflects(positions) and isinstance(_base(site.support), type(constraints.unit_interval))


def _reflection(site: Site, shape: torch.Size) -> tuple[Tensor, Tensor]:
    sign, offset = torch.ones(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    base = _base(site.support)
    if base is None or isinstance(base, type(constraints.real)) or base is constraints.real_vector:
        sign = -sign
    elif isinstance(base, type(constraints.unit_interval)):
        ends = torch.as_tensor(base.lower_bound, dtype=torch.float64) + torch.as_tensor(base.upper_bound)
        if ends.dim() <= len(shape):
            sign, offset = -sign, offset + ends.detach().cpu().double()
    return sign.reshape(-1), offset.reshape(-1)
