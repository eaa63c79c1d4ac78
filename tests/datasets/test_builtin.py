import sys

import numpy as np
import pytest

from vipack.datasets import digits, eight_schools
from vipack.errors import MissingExtraError


def test_eight_schools_has_the_published_figures():
    table = eight_schools()
    assert table["y"].sum() == 70
    assert table["sigma"].sum() == 100
    # The pooled mean and its standard error, as BDA3 section 5.5 gives them: 7.7 and 4.1.
    weights = table["sigma"] ** -2
    assert round(float(weights @ table["y"] / weights.sum()), 1) == 7.7
    assert round(float(weights.sum() ** -0.5), 1) == 4.1


def test_digits_are_scaled_to_the_unit_interval():
    found = digits()
    assert found.images.shape == (1797, 8, 8)
    assert (found.images.min(), found.images.max()) == (0.0, 1.0)
    assert np.unique(found.labels).tolist() == list(range(10))


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vipack\[topics\]'"):
        digits()


@pytest.mark.parametrize("load", [eight_schools, digits])
def test_each_names_its_source_and_licence(load):
    found = load()
    assert found.source
    assert found.licence
