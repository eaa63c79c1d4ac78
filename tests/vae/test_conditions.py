import pytest
import torch

from vipack.errors import DataError, ShapeError, UsageError
from vipack.vae import Covariates, Labels

X = torch.zeros(3, 5)


def test_labels_become_indicators():
    encoded = Labels(3).encode(torch.tensor([2, 0, 1]), X)
    assert encoded.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert encoded.dtype == X.dtype
    both = Labels(2, 3).encode(torch.tensor([[1, 2], [0, 0], [1, 1]]), X)
    assert both.tolist() == [[0, 1, 0, 0, 1], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0]]


def test_covariates_stay_what_they_are():
    y = torch.randn(3, 2)
    assert torch.equal(Covariates(2).encode(y, X), y)
    assert Covariates(1).encode(y[:, 0], X).shape == (3, 1)
    assert Covariates(1).encode(torch.tensor([1, 2, 3]), X).dtype == X.dtype


def test_wrong_values_and_shapes_are_refused():
    for bad in (3.0, -1.0, 0.5):
        with pytest.raises(DataError, match=rf"y: expected labels from 0 to 2, found \[{bad}\]"):
            Labels(3).encode(torch.tensor([0, 1, bad]), X)
    with pytest.raises(DataError, match=r"y: expected labels from 0 to 1, 0 to 2, found \[3\]"):
        Labels(2, 3).encode(torch.tensor([[1, 2], [0, 3], [1, 1]]), X)
    with pytest.raises(ShapeError, match=r"y: expected labels from 0 to 2 of shape \(3,\).* found \(4,\)"):
        Labels(3).encode(torch.tensor([0, 1, 2, 0]), X)
    with pytest.raises(ShapeError, match=r"y: expected 2 column\(s\) of covariates of shape \(3, 2\).* found \(3,\)"):
        Covariates(2).encode(torch.zeros(3), X)
    with pytest.raises(DataError, match="found list"):
        Labels(3).encode([0, 1, 2], X)
    with pytest.raises(UsageError, match="each number of classes must be at least 2"):
        Labels(1)
    with pytest.raises(UsageError, match="num_columns must be at least 1"):
        Covariates(0)
