"""The site table says what a model declares: kinds, plates, shapes."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.reparam import (
    HaarReparam,
    LocScaleReparam,
    ProjectedNormalReparam,
    SplitReparam,
    TransformReparam,
)
from torch.distributions import constraints

from vipack.program import read_sites
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.sites.sites import base_distribution, has_density


def model(x, y):
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("groups", 3, dim=-2):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), scale).to_event(1))
        with pyro.plate("rows", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            mean = pyro.deterministic("mean", x + loc.sum(-1))
            pyro.sample("y", dist.Normal(mean + k, scale).mask(True), obs=y)
    pyro.factor("penalty", -scale)


def guide(x, y):
    pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("groups", 3, dim=-2):
        pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))


@pytest.fixture
def table():
    data = torch.zeros(4), torch.zeros(3, 4)
    guide_trace = poutine.trace(guide).get_trace(*data)
    return read_sites(poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data), guide_trace)


@pytest.mark.parametrize(
    ("name", "kind", "distribution", "plates", "batch", "event", "in_guide"),
    [
        ("scale", "latent", "HalfNormal", (), (), (), True),
        ("loc", "latent", "Normal", ("groups",), (3, 1), (2,), True),
        ("k", "enumerated", "Categorical", ("groups", "rows"), (3, 4), (), False),
        ("mean", "deterministic", "Delta", ("groups", "rows"), (), (3, 4), False),  # Pyro calls all of it event
        ("y", "observed", "Normal", ("groups", "rows"), (3, 4), (), False),
        ("penalty", "factor", "Unit", (), (), (), False),
    ],
)
def test_a_site_is_read(table, name, kind, distribution, plates, batch, event, in_guide):
    site = table[name]
    assert (site.kind, site.distribution, site.plates) == (kind, distribution, plates)
    assert (site.batch_shape, site.event_shape, site.in_guide) == (batch, event, in_guide)
    assert site.is_latent == (kind == "latent")


def test_sites_come_in_the_order_of_the_program(table):
    assert [site.name for site in table] == ["scale", "loc", "k", "mean", "y", "penalty"]
    assert [site.name for site in table.of_kind("latent", "observed")] == ["scale", "loc", "y"]
    assert table.plates == {"groups": 3, "rows": 4}
    with pytest.raises(KeyError):
        table["rows"]


def test_every_batch_dimension_bears_its_plates_name(table):
    assert table["loc"].dim_names == ("groups", None)
    assert table["y"].dim_names == ("groups", "rows")
    assert table["scale"].dim_names == ()


def test_supports_are_the_models(table):
    assert table["scale"].support is constraints.nonnegative or table["scale"].support is constraints.positive
    assert table["penalty"].support is None


def test_without_a_guide_every_unobserved_site_is_a_latent():
    trace = poutine.trace(model).get_trace(torch.zeros(4), torch.zeros(3, 4))
    table = read_sites(trace, None)
    assert {site.name for site in table.of_kind("latent")} == {"scale", "loc", "k"}


def test_the_table_reads_as_text(table):
    lines = str(table).splitlines()
    assert lines[0].split() == ["site", "kind", "distribution", "plates", "batch", "event", "guide"]
    assert lines[2].split() == ["loc", "latent", "Normal", "groups", "(3,", "1)", "(2,)", "yes"]
    assert lines[-1] == "plates: groups (3), rows (4)"
    assert len({line.index("(") for line in lines[1:4]}) > 0
    assert all(line == line.rstrip() for line in lines)


def test_a_subsampled_plate_has_its_full_size():
    def subsampled(x):
        with pyro.plate("rows", 100, subsample_size=4) as rows:
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[rows])

    table = read_sites(poutine.trace(subsampled).get_trace(torch.zeros(100)), None)
    assert table.plates == {"rows": 100}
    assert table["x"].batch_shape == (4,)


def test_the_distribution_itself_is_found():
    fn = dist.Gamma(torch.ones(3), 1.0).expand([2, 3]).to_event(1).mask(torch.tensor(True))
    assert type(base_distribution(fn)).__name__ == "Gamma"


# --- what handlers make of sites


def vectors():
    pyro.sample("a", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    with pyro.plate("rows", 2):
        pyro.sample("b", dist.Normal(0.0, 1.0))
    pyro.sample("p", dist.ProjectedNormal(torch.ones(3)))
    pyro.sample("l", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.1))


REPARAMS = {
    "a": [LocScaleReparam(0.3), HaarReparam(dim=-1), SplitReparam([1, 3], -1)],
    "b": [LocScaleReparam(0.0)],
    "p": [ProjectedNormalReparam()],
    "l": [TransformReparam()],
}


@pytest.mark.parametrize(
    ("site", "reparam"),
    [(site, each) for site, all_ in REPARAMS.items() for each in all_],
    ids=lambda v: type(v).__name__,
)
@pytest.mark.parametrize("plate", [False, True])
def test_what_a_reparametrisation_computes_is_deterministic(site, reparam, plate):
    program = poutine.reparam(vectors, config={site: reparam})
    if plate:
        program = pyro.plate("copies", 3, dim=-2)(program)
    with flat_priors_sampled():
        table = read_sites(poutine.trace(program).get_trace(), None)
    assert [each.name for each in table.of_kind("deterministic")] == [site]
    assert [each.name for each in table.of_kind("observed")] == ["x"]
    assert any(each.name.startswith(f"{site}_") for each in table.of_kind("latent"))


def test_a_computed_value_may_bear_a_density_all_the_same():
    """SplitReparam puts the density of the whole on it; LocScaleReparam has given it to the noise."""
    for reparam, expected in ((SplitReparam([1, 3], -1), True), (LocScaleReparam(0.0), False)):
        with flat_priors_sampled():
            trace = poutine.trace(poutine.reparam(vectors, config={"a": reparam})).get_trace()
        assert has_density(trace.nodes["a"]) == expected


def test_a_site_that_an_intervention_replaces_is_no_part_of_the_table():
    table = read_sites(poutine.trace(poutine.do(vectors, {"b": torch.zeros(2)})).get_trace(), None)
    assert {site.name for site in table} == {"a", "b", "p", "l", "x"}
    assert table["b"].kind == "latent"
    assert table["b"].plates == ("rows",)


def test_what_a_handler_hides_is_not_in_the_table():
    table = read_sites(poutine.trace(poutine.block(vectors, hide=["x", "p"])).get_trace(), None)
    assert {site.name for site in table} == {"a", "b", "l"}


def test_sequential_enumeration_is_for_guides():
    def discrete():
        pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "sequential"})
        pyro.sample("m", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})

    trace = poutine.trace(discrete).get_trace()
    table = read_sites(trace, poutine.Trace())
    assert (table["k"].kind, table["m"].kind) == ("latent", "enumerated")
