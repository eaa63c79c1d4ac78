import pytest
import torch

from vipack.errors import SupportError, UsageError
from vipack.vae.likelihoods import Categorical


@pytest.mark.parametrize("shape", [(4,), (2, 3, 3)])
def test_density_is_the_log_softmax_at_the_label(shape):
    likelihood = Categorical(shape, 5)
    logits, x = torch.randn(7, 5, *shape), torch.randint(5, (7, *shape))
    expected = logits.log_softmax(1).gather(1, x[:, None])[:, 0].flatten(1).sum(-1)
    torch.testing.assert_close(likelihood(logits).log_prob(x.float()), expected)


def test_the_encoder_reads_indicators():
    features = Categorical((1, 2, 2), 3).features(torch.tensor([[[[0.0, 2.0], [1.0, 0.0]]]]))
    assert features.shape == (1, 3, 2, 2)
    assert features[0, :, 0, 1].tolist() == [0, 0, 1]
    assert Categorical(2, 3).features(torch.tensor([[2.0, 0.0]])).reshape(3, 2)[:, 0].tolist() == [0, 0, 1]


def test_labels_out_of_range_are_refused():
    for bad in (3.0, -1.0, 0.5):
        with pytest.raises(SupportError, match=rf"from 0 to 2, found \[{bad}\]"):
            Categorical(2, 3).check(torch.tensor([[0.0, bad]]))
    with pytest.raises(UsageError, match="num_classes must be at least 2"):
        Categorical(2, 1)
