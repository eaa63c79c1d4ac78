"""Copies of itself that a posterior has, exactly: maps of its latents that leave log p(x, z) as it is."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vipack.diagnostics.regions import Overlap, overlap
from vipack.diagnostics.symmetries_of_modes import suggested_by
from vipack.diagnostics.symmetry_candidates import Candidate, Coordinates, exchanges, flips, rotations
from vipack.display import Readable
from vipack.posterior import Posterior
from vipack.program.sites.signed_permutations import SignedPermutation
from vipack.types import Estimate

__all__ = ["Copies", "find_copies"]

_TESTED = 16  # draws at which log p(x, z) must not change
_ROUNDING = 8.0  # units in the last place, of log p(x, z) and of the numbers that it is a sum of
_MOST_CANDIDATES = 4_000
_MOST_NUMBERS = 400_000_000  # of all their evaluations: a second or two
_FEW_CANDIDATES = 200  # where each is a run of the model by itself
_MOST_ELEMENTS = 1_000  # of a group that is written out
_FEWER_DRAWS = 300  # for each of many maps


@dataclass(frozen=True, repr=False)
class Copies(Readable):
    """Regions of equal mass that exact symmetries of the posterior carry into each other; the draws hold one of them.

    Attributes:
        count: regions, that of the draws among them; 1 where there is one.
        sites: whose values differ between them.
        kinds: what carries one into another, as "relabelling of mu, w".
        broken: a symmetry of the posterior that the draws have in part only, in words; empty where there is none.
        moves: one map to each region, the identity first; empty where there are too many.
        coordinates: the order of the numbers that they map.
    """

    count: int
    sites: tuple[str, ...] = ()
    kinds: str = ""
    broken: str = ""
    moves: tuple[SignedPermutation, ...] = field(default=(), compare=False)
    coordinates: Coordinates | None = field(default=None, compare=False)

    @property
    def log_count(self) -> float:
        """What they add to the log evidence of one, nats."""
        return math.log(self.count)

    def added_to(self, evidence: Estimate) -> Estimate:
        """The log evidence of all regions, of that of one."""
        return Estimate(evidence.value + self.log_count, evidence.se)

    @property
    def within(self) -> str:
        """What draws of one region stand for, to follow "TRUST"; empty where there is one region."""
        return f"within one of {self.count:,} equal modes ({self.kinds})" if self.count > 1 else ""

    def __str__(self) -> str:
        if self.count == 1:
            return self.broken or "no symmetry makes copies of the draws' region"
        return f"the posterior has {self.count:,} equal modes ({self.kinds}), of which the draws hold one"

    def nearest(self, flat: Tensor, distance: Callable[[Tensor], Tensor]) -> Tensor:
        """The image of each of ``(N, P)`` points that is nearest to the draws, by ``distance`` ``(N,)`` of points."""
        best, least = flat, distance(flat)
        for move in self.moves[1:]:
            image = move(flat)
            there = distance(image)
            closer = there < least
            best, least = torch.where(closer[:, None], image, best), torch.where(closer, there, least)
        return best


def find_copies(
    posterior: Posterior,
    latents: dict[str, Tensor],
    *,
    names: Sequence[str],
    modes: Sequence[Mapping[str, Tensor]] = (),
) -> Copies:
    """Test exchanges of components, flips of signs and rotations at some of the draws.

    A map that leaves log p(x, z) as it is, at draws of a region, carries this region to another of the same mass, or to
    itself, which a nearest-neighbour test tells: draws and their images can then not be told apart. For a group of maps,
    the regions are as many as the group has elements for each element that leaves the region where it is.

    Args:
        latents: draws ``site -> (S, *shape)``, constrained.
        names: of the continuous latents.
        modes: of the posterior, constrained, ``site -> shape``; maps of one to another are tested too.
    """
    coordinates = Coordinates(posterior.table, names)
    z = coordinates.flat(latents)
    tests = _Tests(posterior, coordinates, z)
    accepted = tests.accepted(list(suggested_by(coordinates, modes, z.double())))
    turned = tests.turned()
    if turned:
        return Copies(
            1,
            turned,
            broken=f"the posterior is unchanged by rotations of {_listed(turned)}: a continuum of copies, "
            "of which the draws hold a part",
        )
    if not accepted:
        return Copies(1, coordinates=coordinates)
    draws = z.double()
    kinds = {id(c): overlap(draws, c.move(draws)) for c in accepted}
    for candidate in accepted:
        if kinds[id(candidate)] is Overlap.PARTIAL:
            return Copies(
                1,
                candidate.sites,
                broken=f"the posterior is unchanged by {_said([candidate])}, but the draws are not: they hold one side and a part of the other",
                moves=tuple(_closure([c.move for c in accepted]) or ()),
                coordinates=coordinates,
            )
    apart = [c for c in accepted if kinds[id(c)] is Overlap.APART]
    if not apart:
        return Copies(1, coordinates=coordinates)
    count, moves, broken = _regions(accepted, apart, draws)
    sites = tuple(s.name for s in coordinates.sites if any(s.name in c.sites for c in apart))
    return Copies(count, sites, _said(apart), broken, moves, coordinates)


class _Tests:
    """Which candidates leave log p(x, z) as it is."""

    def __init__(self, posterior: Posterior, coordinates: Coordinates, z: Tensor) -> None:
        self._posterior, self._coordinates, self._draws = posterior, coordinates, z.double()
        spread = torch.linspace(0, len(z) - 1, min(_TESTED, len(z))).round().long()
        self._z = z[spread.to(z.device)]
        self._base = self._log_p(self._z)
        loops = posterior.vectorizer.chosen.get("model") == "loop"
        budget = _MOST_NUMBERS // max(1, posterior.numbers)
        self._most = _FEW_CANDIDATES if loops else max(50, min(_MOST_CANDIDATES, budget))

    def accepted(self, suggested: Sequence[Candidate] = ()) -> list[Candidate]:
        """Maps that change nothing, without those that are made of smaller ones."""
        stages = [itertools.islice(make(self._coordinates), self._most) for make in (flips, exchanges)]
        candidates = [*(candidate for stage in stages for candidate in stage), *suggested]
        unchanged = self._unchanged([lambda z, c=c: c.move(z) for c in candidates])  # type: ignore[misc]
        kept: list[Candidate] = []
        families: list[tuple[set[str], tuple[int, int]]] = []
        seen: set[bytes] = set()
        for candidate, same in zip(candidates, unchanged, strict=True):
            if not same or candidate.move.key in seen:
                continue
            if candidate.pair is not None:
                family = set(candidate.family)
                if any(smaller < family and candidate.pair == pair for smaller, pair in families):
                    continue
                families.append((family, candidate.pair))
            seen.add(candidate.move.key)
            kept.append(candidate)
        return _independent(kept)

    def turned(self) -> tuple[str, ...]:
        """Sites whose components can be rotated into each other, where the draws are not the same after it."""
        some = list(itertools.islice(rotations(self._coordinates), self._most))
        unchanged = self._unchanged([lambda z, m=matrix: z @ m.to(z).T for _, matrix in some])  # type: ignore[misc]
        for (sites, matrix), same in zip(some, unchanged, strict=True):
            if same and overlap(self._draws, self._draws @ matrix.to(self._draws).T) is not Overlap.SAME:
                return sites
        return ()

    def _unchanged(self, maps: Sequence[Callable[[Tensor], Tensor]]) -> list[bool]:
        if not maps:
            return []
        first = self._same(torch.stack([each(self._z[0]) for each in maps]), self._base[:1].expand(len(maps)))
        result = first.tolist()
        survivors = [index for index, same in enumerate(result) if same]
        if survivors:
            images = torch.cat([maps[index](self._z) for index in survivors])
            same = self._same(images, self._base.repeat(len(survivors))).view(len(survivors), -1).all(1)
            for index, fine in zip(survivors, same.tolist(), strict=True):
                result[index] = fine
        return result

    def _same(self, images: Tensor, base: Tensor) -> Tensor:
        eps = torch.finfo(self._z.dtype).eps
        allowed = _ROUNDING * eps * (base.abs() + self._posterior.numbers)
        return self._coordinates.inside(images) & ((self._log_p(images) - base).abs() <= allowed)

    def _log_p(self, z: Tensor) -> Tensor:
        return self._posterior.at(self._coordinates.named(z))[1].double()


def _independent(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Exchanges, and those flips that are no products of smaller ones."""
    exchanged = [c for c in candidates if c.pair is not None]
    kept: list[Candidate] = []
    rows: list[int] = []  # of the flips kept, reduced, as bits
    for candidate in sorted((c for c in candidates if c.pair is None), key=lambda c: int(c.move.moved.sum())):
        bits = int("".join("1" if flipped else "0" for flipped in candidate.move.moved.tolist()), 2)
        for row in rows:
            bits = min(bits, bits ^ row)
        if bits:
            rows.append(bits)
            kept.append(candidate)
    return [*kept, *exchanged]


def _regions(
    accepted: Sequence[Candidate], apart: Sequence[Candidate], draws: Tensor
) -> tuple[int, tuple[SignedPermutation, ...], str]:
    """How many images the draws' region has, a map to each where these are few, and what speaks against the count."""
    group = _closure([c.move for c in accepted]) or _closure([c.move for c in apart])
    if group is None:
        return _order(apart), (), ""
    regions: list[SignedPermutation] = []
    few = draws[:: max(1, len(draws) // _FEWER_DRAWS)]
    stabilizer = []
    for move in group:
        kind = overlap(few, move(few)) if bool(move.moved.any()) else Overlap.SAME
        if kind is Overlap.PARTIAL:
            broken = "the posterior is unchanged by products of exchanges and flips, of which the draws hold a part"
            return 1, (), broken
        if kind is Overlap.SAME:
            stabilizer.append(move)
    seen: set[bytes] = set()
    for move in group:  # the images of the region under g and under h g are one, for every h that leaves it in place
        if move.key not in seen:
            regions.append(move)
            seen.update(still.then(move).key for still in stabilizer)
    return len(regions), tuple(regions), ""


def _closure(generators: Sequence[SignedPermutation]) -> list[SignedPermutation] | None:
    """All products, the identity first; None where they are too many."""
    identity = SignedPermutation.identity(len(generators[0].index))
    members = {identity.key: identity}
    waiting = [identity]
    while waiting:
        move = waiting.pop(0)
        for generator in generators:
            product = move.then(generator)
            if product.key not in members:
                members[product.key] = product
                waiting.append(product)
                if len(members) > _MOST_ELEMENTS:
                    return None
    return list(members.values())


def _order(generators: Sequence[Candidate]) -> int:
    """Of the group of independent flips, and of exchanges of components, n! for each n that can be exchanged."""
    order: int = 2 ** sum(c.pair is None for c in generators)
    pairs: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for candidate in generators:
        if candidate.pair is not None:
            pairs[candidate.family].append(candidate.pair)
    for family in pairs.values():
        blocks: list[set[int]] = []
        for pair in family:
            joined = set(pair).union(*(block for block in blocks if block & set(pair)))
            blocks = [block for block in blocks if not block & joined] + [joined]
        order *= math.prod(math.factorial(len(block)) for block in blocks)
    return order


def _said(candidates: Sequence[Candidate]) -> str:
    """As "relabelling of mu, w; sign of t"."""
    named: dict[str, dict[str, None]] = defaultdict(dict)
    for candidate in candidates:
        named[candidate.kind].update(dict.fromkeys(candidate.sites))
    words = {"relabelling": "relabelling of", "sign": "sign of", "reflection": "reflection of"}
    return "; ".join(f"{words[kind]} {_listed(tuple(sites))}" for kind, sites in named.items())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
