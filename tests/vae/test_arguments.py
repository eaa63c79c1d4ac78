"""Whatever a builder is given by mistake, it is one clear error that names the builder."""

from typing import Any

import pytest
import torch
from torch import nn

import vipack as vi
from vipack.errors import UsageError, VipackError
from vipack.vae import likelihoods, networks, posteriors, priors


def layered(read: int) -> dict[str, Any]:
    """Options of layers, the second of which reads so many numbers."""
    return {
        "encoders": [networks.MLP(4, (3,)), networks.MLP(read, (3,))],
        "decoders": [networks.MLP(2, (3,)), networks.MLP(2, (3,))],
        "likelihood": likelihoods.Bernoulli(4),
        "num_latents": (2, 2),
        "prior": None,
    }


def single() -> dict[str, Any]:
    options = dict.fromkeys(["encoder", "decoder", "prior", "posterior", "condition"])
    return {**options, "likelihood": likelihoods.Bernoulli(4), "num_latents": 2, "head": True}


def few_labels() -> dict[str, Any]:
    options = dict.fromkeys(["encoder", "decoder", "classifier", "class_probs", "prior", "posterior"])
    return {**options, "likelihood": likelihoods.Bernoulli(4), "num_latents": 2, "num_classes": 3, "alpha": 1.0}


COUNTS = {"shape": 4, "library": False}
FLOW = {"num_layers": 2, "hidden": (3,)}
BUILDERS: dict[Any, Any] = {
    vi.vae.VAE: single,
    vi.vae.SemiSupervisedVAE: few_labels,
    vi.vae.HierarchicalVAE: lambda: layered(2),
    vi.vae.LadderVAE: lambda: layered(3),
    vi.vae.Covariates: lambda: {"num_columns": 2},
    likelihoods.Bernoulli: lambda: {"shape": 4},
    likelihoods.ContinuousBernoulli: lambda: {"shape": 4},
    likelihoods.Gaussian: lambda: {"shape": 4, "scale": "feature", "floor": 1e-3},
    likelihoods.Categorical: lambda: {"shape": 4, "num_classes": 3},
    likelihoods.Poisson: lambda: COUNTS,
    likelihoods.NegativeBinomial: lambda: COUNTS,
    likelihoods.ZeroInflatedNegativeBinomial: lambda: COUNTS,
    likelihoods.DiscretizedLogisticMixture: lambda: {"shape": (3, 2, 2), "components": 2, "levels": 8, "linked": True},
    likelihoods.MixedColumns: lambda: {"columns": {"a": likelihoods.Binary()}},
    likelihoods.Categories: lambda: {"num_classes": 2},
    priors.MixturePrior: lambda: {"num_components": 2},
    priors.VampPrior: lambda: {"num_components": 2},
    priors.FlowPrior: lambda: FLOW,
    posteriors.FullNormal: lambda: {"rank": 1},
    posteriors.CouplingFlow: lambda: FLOW,
    posteriors.AutoregressiveFlow: lambda: FLOW,
    networks.MLP: lambda: {"inputs": 4, "hidden": (3,), "activation": nn.Tanh},
    networks.ConvEncoder: lambda: {"shape": (1, 8, 8), "channels": (2,), "width": 3, "activation": nn.Tanh},
    networks.ConvDecoder: lambda: {"inputs": 2, "shape": (1, 8, 8), "channels": (2,), "features": 3},
}
MISTAKES: list[Any] = [
    None, "ab", b"x", 3, -1, 0, 1.5, float("nan"), True, [], [1, "a"], (0,), [[1]], {"a": 1}, {1: 2}, object(), nn.Tanh, nn.Tanh(),
    torch.ones(2), torch.ones(()), len,
]  # fmt: skip


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda kind: kind.__name__)
def test_every_mistake_in_every_argument_is_an_error_that_names_the_builder_or_no_mistake(builder):
    builder(**BUILDERS[builder]())
    refused = []
    for option in BUILDERS[builder]():
        for mistake in MISTAKES:
            try:
                builder(**{**BUILDERS[builder](), option: mistake})
            except VipackError as error:
                refused.append((option, mistake, str(error)))
    names = (builder.__name__, "site 'x'", "coder", "classifier", "condition")
    assert not [each for each in refused if not any(name in each[2] for name in names)]
    assert refused


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: likelihoods.MixedColumns([likelihoods.Binary()]), "MixedColumns: expected a dict from names to .* found a list"),
        (lambda: likelihoods.Bernoulli(None), r"Bernoulli: shape must be a whole number or a sequence, each a whole number, found None"),
        (lambda: networks.MLP(4, 3), "MLP: hidden must be a sequence, each a whole number, found 3 of type int"),
        (lambda: networks.MLP(4, activation=nn.Tanh()), r"MLP: activation must be a class of Module, found Tanh\(\) of type Tanh"),
        (lambda: priors.MixturePrior("20"), "MixturePrior: num_components must be a whole number, found '20' of type str"),
        (lambda: networks.ConvEncoder((1, 8, 8), width=0), "ConvEncoder: width must be at least 1, found 0"),
        (lambda: networks.ConvDecoder(2, (1, 8, 8), (4, 0)), r"ConvDecoder: channels must be at least 1, found \(4, 0\)"),
    ],
)  # fmt: skip
def test_the_message_says_what_was_expected(build, message):
    with pytest.raises(UsageError, match=message):
        build()


def test_an_error_of_the_users_own_network_stays_its_own():
    class Broken(nn.Module):
        def __init__(self) -> None:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        networks.MLP(4, (3,), Broken)
