import pytest
import torch
from torch import nn

from vipack.errors import UsageError
from vipack.vae.networks import MLP, ConvDecoder, ConvEncoder


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (64, 64), (7, 7), (30, 18), (13, 28)])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_decoder_gives_back_the_size_that_an_encoder_read(size, depth):
    shape = (3, *size)
    features = ConvEncoder(shape, (4, 8)[:depth], width=10)(torch.randn(2, *shape))
    assert features.shape == (2, 10)
    images = ConvDecoder(10, shape, (8, 4)[2 - depth :], features=5)(features)
    assert images.shape == (2, 5, *size)


@pytest.mark.parametrize("activation", [nn.SiLU, nn.ReLU, nn.Tanh], ids=lambda kind: kind.__name__)
def test_first_weights_keep_the_size_of_signals(activation):
    torch.manual_seed(0)
    x = torch.randn(64, 100)
    features = MLP(100, (400,) * 4, activation)(x)
    assert 0.2 < float(features.detach().square().mean().sqrt()) < 2
    images = torch.randn(16, 3, 32, 32)
    features = ConvEncoder((3, 32, 32), (16, 32, 64), activation=activation)(images)
    assert 0.2 < float(features.detach().square().mean().sqrt()) < 2
    pixels = ConvDecoder(20, (3, 32, 32), (64, 32, 16), activation=activation)(torch.randn(16, 20))
    assert 0.2 < float(pixels.detach().square().mean().sqrt()) < 2


def test_a_perceptron_flattens_what_it_reads():
    assert MLP(64)(torch.randn(2, 1, 8, 8)).shape == (2, 400)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="MLP: inputs and each width in hidden must be at least 1"):
        MLP(0)
    with pytest.raises(UsageError, match="MLP: inputs"):
        MLP(3, ())
    with pytest.raises(UsageError, match=r"ConvEncoder: shape must be \(C, H, W\)"):
        ConvEncoder((28, 28))
    with pytest.raises(UsageError, match="ConvDecoder: 4 convolutions halve 8 x 8 pixels down to none"):
        ConvDecoder(3, (1, 8, 8), (8,) * 4)
    with pytest.raises(TypeError, match="MLP takes no argument 'width'"):
        MLP(3, width=5)
