"""Advice fits the model and the guide."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import nn

import vipack as vi
from vipack.diagnostics.advice import richer
from vipack.guides import Amortized, Flow

Y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def factors(y):
    with pyro.plate("row", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("y", dist.Normal(torch.cat([z, z.sum(-1, keepdim=True)], -1), 1.0).to_event(1), obs=y)


def hierarchy(y):
    tau = pyro.sample("tau", dist.HalfCauchy(1.0))
    with pyro.plate("row", len(y)):
        theta = pyro.sample("theta", dist.Normal(0.0, tau))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y[:, 0])


def line(y):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(slope * y[:, 1], sigma), obs=y[:, 0])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, y):
        loc, log_scale = self.layer(y).split(2, -1)
        return loc, log_scale.exp()


def by_hand(network):
    def guide(y):
        encoder = pyro.module("encoder", network)
        with pyro.plate("row", len(y)):
            pyro.sample("z", dist.Normal(*encoder(y)).to_event(1))

    return guide


def advice(model, guide):
    return " / ".join(richer(vi.fit(model, guide, data=Y, steps=0, progress=False).posterior))


@pytest.mark.parametrize(
    "guide", [by_hand(Encoder()), Amortized(factors, Encoder(), ["z"])], ids=["by hand", "Amortized"]
)
def test_a_network_gets_advice_about_networks(guide):
    said = advice(factors, guide)
    assert "network" in said
    assert "non-centred" not in said
    assert "AutoMultivariateNormal" not in said


def test_scales_of_other_latents_may_be_non_centred_and_noise_may_not():
    assert "non-centred" in advice(hierarchy, AutoNormal)
    assert "non-centred" not in advice(line, AutoNormal)
    assert "non-centred" not in advice(factors, AutoNormal)


def test_what_the_guide_is_already_is_not_advised():
    assert "AutoMultivariateNormal" in advice(line, AutoNormal)
    said = advice(line, AutoMultivariateNormal)
    assert "AutoMultivariateNormal" not in said
    assert "flow" in said
    assert "flow already" in advice(line, Flow)


def test_a_bad_verdict_gives_this_advice():
    found = vi.fit(factors, by_hand(Encoder()), data=Y, steps=0, progress=False).diagnose(500)
    assert found.verdict is vi.diagnostics.Verdict.DISTRUST
    assert any("network" in each for each in found.advice)
