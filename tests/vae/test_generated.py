"""What is generated, beside training data and data held out: copies, variety and likeness where the answer is known."""

import pytest
import torch

from vipack.errors import DataError
from vipack.vae.generated import judge_generated


def draws(count, seed, spread=1.0, shift=0.0):
    return shift + spread * torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


TRAIN, NEW = draws(2_000, 1), draws(600, 2)


def test_new_draws_of_the_same_distribution_pass():
    report = judge_generated(draws(600, 3), TRAIN, NEW)
    assert abs(report.copying) < 3.5
    assert not report.copies
    assert report.duplicates < 0.035
    assert report.precision > 0.9
    assert report.recall > 0.9
    assert report.told_apart == pytest.approx(0.5, abs=0.06)
    assert "no copies" in str(report)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_training_data_with_a_little_noise_are_copies(share):
    count = int(600 * share)
    copies = torch.cat([TRAIN[:count] + 0.05 * draws(count, 4), draws(600 - count, 5)])
    report = judge_generated(copies, TRAIN, NEW)
    assert report.copies
    assert report.duplicates > 0.5 * share


def test_little_variety_lacks_recall_and_noise_lacks_precision():
    narrow, wide = judge_generated(draws(600, 6, 0.3), TRAIN, NEW), judge_generated(draws(600, 7, 3.0), TRAIN, NEW)
    assert narrow.recall < 0.3 < 0.9 < narrow.precision
    assert wide.precision < 0.4
    assert wide.copying > 3
    assert min(narrow.told_apart, wide.told_apart) > 0.7


def test_classes_are_those_of_the_nearest_training_observation():
    train = torch.cat([draws(300, 8), draws(300, 9, shift=10.0)])
    labels = torch.cat([torch.zeros(300), torch.ones(300)])
    generated = torch.cat([draws(75, 10), draws(225, 11, shift=10.0)])
    assert judge_generated(generated, train, train[::2], labels).classes == {0: 0.25, 1: 0.75}


def test_what_cannot_be_compared_is_told():
    with pytest.raises(DataError, match="generated: 10 observations"):
        judge_generated(TRAIN[:10], TRAIN, NEW)
    with pytest.raises(DataError, match=r"held out.*shape \(3,\).*\(6,\)"):
        judge_generated(NEW, TRAIN, NEW[:, :3])
    with pytest.raises(DataError, match="not finite"):
        judge_generated(NEW / 0.0, TRAIN, NEW)
