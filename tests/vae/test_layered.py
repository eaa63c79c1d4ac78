import numpy as np
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

import vipack as vi
from vipack.errors import ShapeError, UsageError
from vipack.vae import HierarchicalVAE, Labels, LadderVAE
from vipack.vae.likelihoods import Bernoulli
from vipack.vae.networks import MLP
from vipack.vae.priors import MixturePrior, VampPrior

X = (torch.rand(24, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()
Y = torch.arange(24) % 3
both = pytest.mark.parametrize("kind", [HierarchicalVAE, LadderVAE], ids=lambda kind: kind.__name__)


def two_layers(kind, **options):
    torch.manual_seed(0)
    width = 0 if "condition" not in options else 3
    read = 4 if kind is HierarchicalVAE else 8  # the draw of the first layer, or its features
    encoders = [MLP(6 + width, (8,)), MLP(read, (8,))]
    decoders = [MLP(4 + width, (8,)), MLP(2, (8,))]
    return kind(encoders, decoders, likelihood=Bernoulli(6), num_latents=(4, 2), **options)


@both
def test_it_passes_the_check_and_trains(kind):
    vae = two_layers(kind).initialize(X)
    check = vi.check(vae.model, vae.guide, data=X, batch_size=8)
    assert check.ok, str(check)
    assert check.warnings == ()
    assert [(site.name, site.event_shape) for site in check.table] == [("z2", (2,)), ("z1", (4,)), ("x", (6,))]
    traced = vi.fit(vae.model, vae.guide, data=X, batch_size=8, steps=8, engine="traced")
    eager = vi.fit(vae.model, vae.guide, data=X, batch_size=8, steps=8, engine="eager")
    assert traced.engine.tier == "traced", traced.engine.reason
    np.testing.assert_allclose(traced.losses, eager.losses, rtol=1e-4)
    assert traced.posterior.rows_apart
    assert np.isfinite(traced.elbo(10).value)
    loss = Trace_ELBO(num_particles=3, vectorize_particles=True)
    assert np.isfinite(vi.fit(vae.model, vae.guide, data=X, steps=2, loss=loss, engine="eager").losses).all()


@both
def test_all_parameters_are_trained(kind):
    vae = two_layers(kind, prior=MixturePrior(3))
    before = vi.fit(vae.model, vae.guide, data=X, steps=0)
    after = vi.fit(vae.model, vae.guide, data=X, steps=3, engine="eager")
    assert [name for name, value in before.params.items() if torch.equal(value, after.params[name])] == []


@both
def test_a_condition_and_another_prior(kind):
    vae = two_layers(kind, condition=Labels(3), prior=MixturePrior(3)).initialize(X, Y)
    assert vi.check(vae.model, vae.guide, data=(X, Y)).ok


def test_the_ladder_s_posterior_is_the_product_of_two_normals():
    vae = two_layers(LadderVAE)
    trace = poutine.trace(vae.guide).get_trace(X)
    q = trace.nodes["z1"]["fn"].base_dist
    said = vae.heads[0](vae.encoders[0](X)).base_dist
    prior = vae.between[0](trace.nodes["z2"]["value"]).base_dist
    z = torch.randn(2, *q.loc.shape)
    one, two = (said.log_prob(point) + prior.log_prob(point) - q.log_prob(point) for point in z)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)  # a constant, whatever the point


def test_layers_must_be_as_many_as_their_networks():
    with pytest.raises(UsageError, match=r"HierarchicalVAE: num_latents, .* found num_latents=\(4, 2\), 1 encoders"):
        HierarchicalVAE([MLP(6)], [MLP(4), MLP(2)], likelihood=Bernoulli(6), num_latents=(4, 2))
    with pytest.raises(UsageError, match="VampPrior is a prior of one layer"):
        two_layers(HierarchicalVAE, prior=VampPrior(3))
    with pytest.raises(ShapeError, match="cannot be run on inputs of shape"):
        HierarchicalVAE([MLP(6), MLP(5)], [MLP(4), MLP(2)], likelihood=Bernoulli(6), num_latents=(4, 2))
