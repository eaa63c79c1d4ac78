import numpy as np
import pytest

from vipack.datasets import Images, Table
from vipack.errors import DataError, UsageError


def images(pixels, labels=None):
    return Images("squares", pixels, np.arange(len(pixels)) if labels is None else labels, "a test", "none")


def test_a_table_gives_its_columns_by_name():
    table = Table("t", {"x": np.arange(3.0), "y": np.ones(3)}, "a test", "none")
    assert table.num_rows == 3
    assert table["x"].tolist() == [0.0, 1.0, 2.0]
    assert table.to_frame().shape == (3, 2)
    with pytest.raises(UsageError, match="no column 'z'; it has x, y"):
        table["z"]


@pytest.mark.parametrize("columns", [{}, {"x": np.zeros(0)}, {"x": np.zeros(2), "y": np.zeros(3)}, {"x": np.eye(2)}])
def test_a_table_needs_columns_of_one_length(columns):
    with pytest.raises(DataError, match="columns of one length"):
        Table("t", columns, "a test", "none")


def test_images_are_float32_in_the_unit_interval():
    found = images(np.linspace(0, 1, 24).reshape(2, 3, 4))
    assert found.images.dtype == np.float32
    assert found.labels.dtype == np.int64
    assert found.rows.shape == (2, 12)
    np.testing.assert_array_equal(found.rows[1], found.images[1].ravel())


def test_image_splits_are_disjoint_exhaustive_and_seeded():
    found = images(np.zeros((10, 2, 2)))
    kept, tested = found.split(0.3, seed=1)
    assert (kept.num_images, tested.num_images) == (7, 3)
    assert sorted([*kept.labels, *tested.labels]) == list(range(10))
    assert found.split(0.3, seed=1)[1].labels.tolist() == tested.labels.tolist()
    assert found.split(0.3, seed=2)[1].labels.tolist() != tested.labels.tolist()


def test_images_are_taken_by_index_slice_or_mask():
    found = images(np.zeros((4, 2, 2)))
    assert found.take([3, 1]).labels.tolist() == [3, 1]
    assert found.take(slice(2)).labels.tolist() == [0, 1]
    assert found.take(found.labels > 1).labels.tolist() == [2, 3]
    assert found.take(2).images.shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((2, 4)), None, r"expected \(N, H, W\)"),
        (np.zeros((0, 4, 4)), None, r"expected \(N, H, W\)"),
        (np.zeros((2, 4, 4)), np.zeros(3), "2 images but labels"),
        (np.full((1, 2, 2), 255.0), None, r"pixels lie in \[255, 255\]"),
        (np.full((1, 2, 2), np.nan), None, "pixels lie in"),
    ],
)
def test_images_that_cannot_be_are_refused(pixels, labels, message):
    with pytest.raises(DataError, match=message):
        images(pixels, labels)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1, 0.01, 0.99])
def test_a_split_that_leaves_a_part_empty_is_refused(fraction):
    with pytest.raises(UsageError, match="held_out"):
        images(np.zeros((4, 2, 2))).split(fraction)
