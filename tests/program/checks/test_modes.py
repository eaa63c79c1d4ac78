"""Networks that are trained in evaluation mode are named, once; frozen parts and evaluations are left alone."""

from __future__ import annotations

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import vipack as vi
from vipack.errors import ModelError, ProgramWarning

X = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x))


def pair(encoder):
    decoder = nn.Linear(2, 16)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x.flatten(1).float())

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("rows", len(x)):
            loc, log_scale = encoder(x).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide


def fitted(encoder, data=X, steps=2, **options):
    return vi.fit(*pair(encoder), data=data, batch_size=8, steps=steps, progress=False, **options)


@pytest.mark.parametrize("part", ["all", "body"])
def test_layers_in_evaluation_mode_are_named_once_and_stay_in_it(part):
    encoder = Encoder()
    (encoder if part == "all" else encoder.body).eval()
    with pytest.warns(ProgramWarning, match=r"2 layer\(s\) \(BatchNorm2d, Dropout\).*\.train\(\)") as said:
        fit = fitted(encoder)
    assert len(said) == 1
    assert not encoder.body.training
    fit.to_pyro()
    assert encoder.body[1].num_batches_tracked == 0


@pytest.mark.parametrize("case", ["training", "frozen", "evaluated", "nothing to switch"])
def test_what_is_meant_is_left_alone(case):
    encoder, steps = Encoder(), 2
    if case == "frozen":
        encoder.body.eval().requires_grad_(False)
    if case == "evaluated":
        encoder.eval()
        steps = 0
    if case == "nothing to switch":
        encoder.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.0))
        encoder.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pyro's, of what is frozen
        warnings.simplefilter("error", ProgramWarning)
        fitted(encoder, steps=steps)


@pytest.mark.parametrize("how", ["register_hook", "register_post_accumulate_grad_hook"])
@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_hooks_on_gradients_that_a_fit_does_not_call_are_named(how, engine):
    encoder, seen = Encoder(), []
    getattr(encoder.head.weight, how)(seen.append)
    with pytest.warns(ProgramWarning, match=r"Linear.weight: has a gradient hook .* Train with vipack.SVI"):
        fitted(encoder, engine=engine)
    assert not seen


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("encoder", [Encoder(), nn.Sequential(nn.Flatten(), nn.Linear(16, 4))])
def test_bytes_that_reach_a_network_are_told_to_be_converted(encoder, dtype):
    with pytest.raises(ModelError, match=rf"{dtype}\) reach a layer that takes floats.*x.float\(\) / 255"):
        fitted(encoder, data=(X * 255).to(dtype))
