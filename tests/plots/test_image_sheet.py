import numpy as np
import pytest
import torch

from vipack import plots
from vipack.errors import UsageError

RNG = np.random.default_rng(0)


def pixels(ax) -> np.ndarray:
    return ax.images[0].get_array()


def test_images_stand_row_by_row_with_a_gap():
    sheet = RNG.uniform(size=(5, 4, 3))
    (ax,) = plots.images(sheet, columns=2)
    drawn = pixels(ax)
    assert drawn.shape == (3 * 5 + 1, 2 * 4 + 1)
    np.testing.assert_array_equal(drawn[1:5, 1:4], sheet[0])
    np.testing.assert_array_equal(drawn[1:5, 5:8], sheet[1])
    np.testing.assert_array_equal(drawn[11:15, 1:4], sheet[4])
    assert drawn.mask[0].all()
    assert drawn.mask[11:15, 5:8].all()  # the place of a sixth


@pytest.mark.parametrize(
    "values",
    [
        RNG.uniform(size=(4, 64)),
        RNG.uniform(size=(4, 1, 8, 8)),
        RNG.uniform(size=(4, 8, 8, 1)),
        RNG.uniform(size=(4, 8, 8, 3)),
        RNG.uniform(size=(4, 3, 8, 8)),
        RNG.integers(0, 256, size=(4, 8, 8), dtype=np.uint8),
        RNG.integers(0, 2, size=(4, 8, 8)).astype(bool),
        torch.rand(4, 8, 8),
        np.zeros((1, 8, 8)),
    ],
    ids=lambda values: f"{tuple(values.shape)}-{values.dtype}",
)
def test_every_layout_and_kind_of_number_is_drawn(values, render):
    (ax,) = plots.images(values)
    assert pixels(ax).shape[0] in (19, 10)
    render(ax)


def test_channels_first_and_last_give_the_same_picture():
    last = RNG.uniform(size=(4, 8, 8, 3))
    first = plots.images(np.moveaxis(last, 3, 1))[0]
    np.testing.assert_array_equal(pixels(first), pixels(plots.images(last)[0]))


def test_a_second_sheet_stands_beside_on_the_same_scale(render):
    axes = plots.images(RNG.uniform(0, 1, (9, 8, 8)), RNG.uniform(2, 3, (9, 8, 8)), titles=("new", "nearest"))
    assert [ax.get_title() for ax in axes] == ["new", "nearest"]
    assert axes[0].images[0].get_clim() == axes[1].images[0].get_clim()
    left, right = (ax.get_position() for ax in axes)
    render(axes)
    assert left.x1 < right.x0


def test_given_axes_are_used(own_axes):
    mine = own_axes(2)
    assert list(plots.images(np.zeros((2, 4, 4)), np.ones((2, 4, 4)), axes=mine)) == mine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sheet": np.zeros((4, 63))}, r"sheet: expected images .* found shape \(4, 63\)"),
        ({"sheet": np.zeros((0, 8, 8))}, "sheet: expected images"),
        ({"sheet": np.zeros((4, 8, 8, 2))}, "sheet: expected images"),
        ({"sheet": np.full((4, 8, 8), np.nan)}, "sheet: expected finite pixels"),
        ({"sheet": np.full((4, 8, 8, 3), 2.0)}, r"sheet: expected finite pixels, colour ones in \[0, 1\]"),
        ({"beside": np.zeros((3, 8, 8))}, "beside: expected 4 images, one for each of the sheet, found 3"),
        ({"titles": ("a", "b")}, "titles: expected 1, one for each sheet, found 2"),
        ({"columns": 0}, "columns: expected a positive integer"),
    ],
)
def test_what_is_no_image_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        plots.images(**{"sheet": np.zeros((4, 8, 8)), **arguments})
