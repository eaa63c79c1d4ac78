"""A model's graph as SVG: sites, what they depend on, and the plates around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from vipack.program import SiteTable
from vipack.report.graph_layout import Layout, Node, law_of, lay_out

__all__ = ["MOST_SITES", "graph_in_words", "model_graph"]

MOST_SITES = 60  # of a graph that can be read
_MARGIN, _HEAD = 6.0, 7.0


def model_graph(table: SiteTable, edges: Mapping[str, Sequence[str]]) -> Markup:
    """The graph, whose colours follow the page, with its description in words for who does not see it.

    Args:
        edges: site -> the sites that it depends on.
    """
    sizes = {name: f"{size:,}" for name, size in table.plates.items()}
    layout = lay_out(tuple(table), sizes, edges)
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    drawn = [
        *_plates(layout),
        *(
            _edge(layout.nodes[source], layout.nodes[name], layout)
            for name, sources in edges.items()
            for source in sources
        ),
        *(_node(node) for node in layout.nodes.values()),
    ]
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="Graph of the model">'
        '<svg class="graph" role="img" aria-labelledby="graph-title graph-words" width="{}" height="{}" viewBox="{} {} {} {}">'
        '<title id="graph-title">Graph of the model</title><desc id="graph-words">{}</desc>{}</svg></div>'
    ).format(
        round(width), round(height), -_MARGIN, -_MARGIN, round(width), round(height),
        graph_in_words(table, edges), Markup("").join(drawn),
    )  # fmt: skip


def graph_in_words(table: SiteTable, edges: Mapping[str, Sequence[str]]) -> str:
    """A sentence a site: its kind, its distribution, its plates and what it depends on."""
    sentences = []
    for site in table:
        plates = f" in {' and '.join(site.plates)}" if site.plates else ""
        sources = edges.get(site.name, ())
        given = f", given {', '.join(sources)}" if sources else ""
        law = "" if site.kind in ("deterministic", "factor") else f" {site.distribution}"
        sentences.append(f"{site.name}: {site.kind}{law}{plates}{given}.")
    return " ".join(sentences)


def _plates(layout: Layout) -> list[Markup]:
    shape = Markup(
        '<rect class="plate" x="{}" y="{}" width="{}" height="{}" rx="8"/><text class="small size" x="{}" y="{}">{}</text>'
    )
    drawn = []
    for box in layout.boxes:
        corner = box.x, box.y, box.width, box.height, box.x + box.width - 9, box.y + box.height - 8
        drawn.append(shape.format(*map(_short, corner), box.label))
    return drawn


def _node(node: Node) -> Markup:
    left, top = node.x - node.width / 2, node.y - node.height / 2
    round_by = 4 if node.site.kind == "factor" else node.height / 2
    law = law_of(node.site)
    return Markup(
        '<rect class="node {}" x="{}" y="{}" width="{}" height="{}" rx="{}"/><text x="{}" y="{}">{}</text>'
        '<text class="small" x="{}" y="{}">{}</text>'
    ).format(
        node.site.kind, _short(left), _short(top), _short(node.width), _short(node.height), _short(round_by),
        _short(node.x), _short(node.y - 2), node.site.name, _short(node.x), _short(node.y + 13), law,
    )  # fmt: skip


def _edge(source: Node, target: Node, layout: Layout) -> Markup:
    """A line from border to border, bent around a node that stands in between."""
    bend = _bend(source, target, layout)
    middle_x, middle_y = (source.x + target.x) / 2 + bend, (source.y + target.y) / 2
    start_x, start_y = _border(source, middle_x, middle_y)
    end_x, end_y = _border(target, middle_x, middle_y)
    length = math.hypot(end_x - middle_x, end_y - middle_y) or 1.0
    along_x, along_y = (end_x - middle_x) / length, (end_y - middle_y) / length
    base_x, base_y = end_x - _HEAD * along_x, end_y - _HEAD * along_y
    side_x, side_y = -along_y * _HEAD / 2, along_x * _HEAD / 2
    points = ((end_x, end_y), (base_x + side_x, base_y + side_y), (base_x - side_x, base_y - side_y))
    return Markup('<path class="edge" d="M{},{}Q{},{} {},{}"/><polygon class="head" points="{}"/>').format(
        _short(start_x), _short(start_y), _short(middle_x), _short(middle_y), _short(base_x), _short(base_y),
        " ".join(f"{_short(x)},{_short(y)}" for x, y in points),
    )  # fmt: skip


def _bend(source: Node, target: Node, layout: Layout) -> float:
    """How far to the side a curve passes what stands between its ends; 0 where nothing does."""
    for node in layout.nodes.values():
        if node is source or node is target:
            continue
        if not min(source.y, target.y) < node.y < max(source.y, target.y):
            continue
        share = (node.y - source.y) / (target.y - source.y)
        crossing = source.x + share * (target.x - source.x)
        if abs(crossing - node.x) < node.width / 2 + 4:
            side = 1.0 if crossing >= node.x else -1.0
            return side * (node.width + 40)
    return 0.0


def _border(node: Node, x: float, y: float) -> tuple[float, float]:
    """Where the line from the centre to (x, y) leaves the node."""
    across, down = x - node.x, y - node.y
    if across == 0 and down == 0:
        return node.x, node.y
    scale = min(
        (node.width / 2) / abs(across) if across else math.inf, (node.height / 2) / abs(down) if down else math.inf
    )
    return node.x + across * min(scale, 1.0), node.y + down * min(scale, 1.0)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
