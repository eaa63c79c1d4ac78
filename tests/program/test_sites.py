"""The site table says what a model declares: kinds, plates, shapes."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import constraints

from vipack.program import read_sites
from vipack.program.sites import base_distribution


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
