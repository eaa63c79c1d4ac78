"""Graphs of models: nothing overlaps, plates hold their sites and no others, arrows follow the model."""

import re
from itertools import combinations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from tests.report.programs import crossed, schools
from vipack.report.dependencies import dependencies
from vipack.report.graph_layout import lay_out
from vipack.report.model_graph import graph_in_words, model_graph


def posterior_of(model, data):
    return vi.fit(model, AutoNormal, data=data, steps=0, progress=False).posterior


def layout_of(posterior):
    edges, failure = dependencies(posterior)
    assert failure == ""
    return lay_out(tuple(posterior.table), {}, edges), edges


def inside(node, box):
    return (
        box.x < node.x - node.width / 2
        and node.x + node.width / 2 < box.x + box.width
        and box.y < node.y - node.height / 2
        and node.y + node.height / 2 < box.y + box.height
    )


def test_dependencies_are_those_of_the_model():
    _, edges = layout_of(posterior_of(schools, vi.datasets.eight_schools().columns))
    assert {name: set(sources) for name, sources in edges.items()} == {
        "mu": set(), "tau": set(), "z": set(), "theta": {"mu", "tau", "z"}, "y": {"theta"},
    }  # fmt: skip


def test_plates_hold_their_sites_and_no_others():
    for model, data in ((schools, vi.datasets.eight_schools().columns), (crossed, torch.zeros(3, 4))):
        layout, _ = layout_of(posterior_of(model, data))
        for box in layout.boxes:
            for node in layout.nodes.values():
                belongs = node.site.plates[: len(box.plates)] == box.plates
                assert inside(node, box) is belongs, (box.label, node.site.name)


def test_nodes_do_not_overlap_and_stand_below_what_they_depend_on():
    layout, edges = layout_of(posterior_of(crossed, torch.zeros(3, 4)))
    for a, b in combinations(layout.nodes.values(), 2):
        assert abs(a.x - b.x) >= (a.width + b.width) / 2 or abs(a.y - b.y) >= (a.height + b.height) / 2
    for name, sources in edges.items():
        assert all(layout.nodes[source].y < layout.nodes[name].y for source in sources)


def test_names_are_escaped_and_arrows_drawn():
    def model(y):
        a = pyro.sample("a<script>", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(a, 1.0), obs=y)

    posterior = posterior_of(model, torch.tensor(0.3))
    edges, _ = dependencies(posterior)
    drawn = model_graph(posterior.table, edges)
    assert "<script>" not in drawn
    assert drawn.count('class="edge"') == 1
    assert "y: observed Normal, given a<script>." in graph_in_words(posterior.table, edges)
    numbers = [float(n) for n in re.findall(r'(?:x|y|width|height)="(-?[\d.]+)"', drawn)]
    assert min(numbers) >= -6


def test_a_model_that_cannot_be_tracked_has_a_reason():
    def model(y):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        if type(a) is not torch.Tensor:
            raise TypeError("plain tensors only")
        pyro.sample("y", dist.Normal(a, 1.0), obs=y)

    edges, failure = dependencies(posterior_of(model, torch.tensor(0.3)))
    assert edges == {}
    assert failure == "TypeError: plain tensors only"
