"""Where the nodes of a model's graph stand: rows in the order of dependence, and a box around each plate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vipack.program import Site

__all__ = ["Box", "Layout", "Node", "law_of", "lay_out"]

_GAP, _ROW_GAP, _PADDING, _LABEL = 22.0, 34.0, 14.0, 20.0
_HEIGHT = 42.0
_LETTER, _SMALL_LETTER = 7.6, 6.4  # widths of a letter, at the two sizes of text


@dataclass
class Node:
    """A site, centred at (x, y)."""

    site: Site
    width: float
    height: float = _HEIGHT
    x: float = 0.0
    y: float = 0.0


@dataclass
class Box:
    """A plate, or the whole, from its top left corner (x, y)."""

    label: str
    plates: tuple[str, ...]
    items: list[Node | Box] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class Layout:
    """Nodes and boxes on a sheet of some width and height."""

    nodes: dict[str, Node]
    boxes: tuple[Box, ...]
    width: float
    height: float


def lay_out(sites: Sequence[Site], sizes: Mapping[str, str], edges: Mapping[str, Sequence[str]]) -> Layout:
    """Nodes in rows, below what they depend on, those in plates within boxes, boxes within boxes.

    Args:
        sizes: plate -> its size, as text.
        edges: site -> the sites that it depends on.
    """
    nodes = {site.name: Node(site, _width(site)) for site in sites}
    root = Box("", ())
    boxes: dict[tuple[str, ...], Box] = {(): root}
    for site in sites:
        _box_of(site.plates, boxes, sizes).items.append(nodes[site.name])
    order = {site.name: number for number, site in enumerate(sites)}
    _measure(root, edges, order)
    _move(root, 0.0, 0.0, nodes)
    return Layout(nodes, tuple(box for box in boxes.values() if box is not root), root.width, root.height)


def _width(site: Site) -> float:
    return max(56.0, 20 + max(_LETTER * len(site.name), _SMALL_LETTER * len(law_of(site))))


def law_of(site: Site) -> str:
    """What stands under a site's name: its distribution, or what it is instead of drawn."""
    return site.kind if site.kind in ("deterministic", "factor") else site.distribution


def _box_of(plates: tuple[str, ...], boxes: dict[tuple[str, ...], Box], sizes: Mapping[str, str]) -> Box:
    """The box of sites in `plates`, within that of the longest beginning of these which is a box already, or becomes one."""
    if plates not in boxes:
        outer = _box_of(plates[:-1], boxes, sizes)
        name = plates[-1]
        boxes[plates] = Box(f"{name} ({sizes[name]})" if name in sizes else name, plates)
        outer.items.append(boxes[plates])
    return boxes[plates]


def _measure(box: Box, edges: Mapping[str, Sequence[str]], order: Mapping[str, int]) -> None:
    """Sizes of boxes, and positions of what is in each from its top left corner."""
    for item in box.items:
        if isinstance(item, Box):
            _measure(item, edges, order)
    top = _PADDING
    rows = _rows(box.items, edges, order)
    widths = [sum(item.width for item in row) + _GAP * (len(row) - 1) for row in rows]
    label = _SMALL_LETTER * len(box.label) + 2 * _PADDING
    box.width = max([*widths, label]) + 2 * _PADDING
    for row, width in zip(rows, widths, strict=True):
        left = (box.width - width) / 2
        height = max(item.height for item in row)
        for item in row:
            item.x, item.y = left, top + (height - item.height) / 2
            left += item.width + _GAP
        top += height + _ROW_GAP
    box.height = top - _ROW_GAP + _PADDING + (_LABEL if box.label else 0.0)


def _rows(
    items: list[Node | Box], edges: Mapping[str, Sequence[str]], order: Mapping[str, int]
) -> list[list[Node | Box]]:
    """Items by the longest chain of dependences that leads to each, in the order in which the model runs."""
    inside = {id(item): _names(item) for item in items}
    owner = {name: item for item in items for name in inside[id(item)]}
    first = {id(item): min(order[name] for name in inside[id(item)]) for item in items}
    above = {
        id(item): [
            owner[source]
            for name in inside[id(item)]
            for source in edges.get(name, ())
            if source in owner and owner[source] is not item
        ]
        for item in items
    }
    rank: dict[int, int] = {}

    def rank_of(item: Node | Box) -> int:
        if id(item) not in rank:
            rank[id(item)] = -1  # of boxes that depend on each other, whichever comes first stands above
            rank[id(item)] = max((rank_of(source) for source in above[id(item)]), default=-1) + 1
        return rank[id(item)]

    for item in sorted(items, key=lambda each: first[id(each)]):
        rank_of(item)
    rows: list[list[Node | Box]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for item in sorted(items, key=lambda each: first[id(each)]):
        rows[rank[id(item)]].append(item)
    return rows


def _names(item: Node | Box) -> list[str]:
    return [item.site.name] if isinstance(item, Node) else [name for each in item.items for name in _names(each)]


def _move(box: Box, left: float, top: float, nodes: dict[str, Node]) -> None:
    """From positions within boxes to those on the sheet, of nodes their centres."""
    for item in box.items:
        item.x, item.y = item.x + left, item.y + top
        if isinstance(item, Box):
            _move(item, item.x, item.y, nodes)
        else:
            item.x, item.y = item.x + item.width / 2, item.y + item.height / 2
