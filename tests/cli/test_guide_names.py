import pytest
from pyro.infer import autoguide

from vipack.cli.guide_names import GUIDE_NAMES, guide_named
from vipack.errors import UsageError


@pytest.mark.parametrize("name", GUIDE_NAMES)
def test_every_name_makes_its_guide(name):
    made = guide_named(name)(lambda: None)
    assert type(made) is getattr(autoguide, GUIDE_NAMES[name][0])


@pytest.mark.parametrize("name", ["mean-field", "MeanField", "mean_field", "AutoNormal", "autonormal"])
def test_spelling_is_forgiven(name):
    assert guide_named(name) is autoguide.AutoNormal


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError) as caught:
        guide_named("best")
    assert [name for name in GUIDE_NAMES if name not in str(caught.value)] == []
