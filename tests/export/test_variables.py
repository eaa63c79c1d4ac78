import numpy as np
import pytest

from vipack.export.variables import Variable, axis_names, without_clashes

PLATES = {"school": 8, "year": 3, "one": 1}


def variable(shape: tuple[int, ...], *dims: str, sampled: bool = False) -> Variable:
    return Variable(np.zeros(((1, 5) if sampled else ()) + shape), dims, sampled)


@pytest.mark.parametrize(
    ("shape", "plate_dims", "event_dim", "expected"),
    [
        ((), {}, 0, []),
        ((8,), {-1: "school"}, 0, ["school"]),
        ((3, 8), {-1: "school", -2: "year"}, 0, ["year", "school"]),
        ((3, 1), {-2: "year"}, 0, ["year", None]),
        ((8, 4), {-1: "school"}, 1, ["school", "x_dim_0"]),
        ((3, 1, 2, 2), {-2: "year"}, 2, ["year", None, "x_dim_0", "x_dim_1"]),
        ((1,), {-1: "one"}, 0, ["one"]),
        ((1,), {-1: "school"}, 0, [None]),
        ((1,), {}, 0, [None]),
        ((1,), {}, 1, ["x_dim_0"]),
        ((4,), {}, 0, ["x_dim_0"]),
        ((4,), {-1: "school"}, 0, ["x_dim_0"]),
        ((4, 8, 2), {-1: "school"}, 1, ["x_dim_0", "school", "x_dim_1"]),
    ],
)
def test_an_axis_is_its_plates_or_its_own_and_placeholders_are_dropped(shape, plate_dims, event_dim, expected):
    assert axis_names("x", shape, plate_dims, PLATES, event_dim) == expected


def test_names_that_do_not_clash_stay():
    groups = {"posterior": {"mu": variable((), sampled=True), "theta": variable((8,), "school", sampled=True)}}
    assert without_clashes(groups) == groups


def test_a_dimension_called_like_a_variable_of_any_group_is_renamed_in_every_group():
    found = without_clashes(
        {"posterior": {"z": variable((4,), "x")}, "constant_data": {"x": variable((4, 2), "x", "k")}}
    )
    assert found["posterior"]["z"].dims == ("x_dim",)
    assert found["constant_data"]["x"].dims == ("x_dim", "k")


def test_a_renamed_dimension_avoids_names_that_are_taken():
    found = without_clashes({"g": {"x": variable((4,), "x"), "x_dim": variable((2,), "k")}})
    assert found["g"]["x"].dims == ("x_dim_dim",)


def test_sites_and_plates_called_chain_or_draw_leave_the_sample_dimensions_alone():
    found = without_clashes({"posterior": {"draw": variable((4,), "chain", sampled=True)}})
    assert list(found["posterior"]) == ["draw_site"]
    assert found["posterior"]["draw_site"].dims == ("chain_dim",)


def test_slashes_become_dots_and_stay_apart():
    found = without_clashes({"g": {"scope.z": variable(()), "scope/z": variable((3,), "scope/plate")}})
    assert list(found["g"]) == ["scope.z", "scope.z_site"]
    assert found["g"]["scope.z_site"].dims == ("scope.plate",)


def test_one_name_for_two_sizes_keeps_the_first():
    found = without_clashes(
        {"g": {"a": variable((4,), "data"), "b": variable((5,), "data"), "c": variable((5,), "data")}}
    )
    assert [v.dims for v in found["g"].values()] == [("data",), ("b_data",), ("c_data",)]


def test_two_sizes_in_two_groups_need_no_new_name():
    found = without_clashes({"g": {"a": variable((4,), "data")}, "h": {"a": variable((5,), "data")}})
    assert found["g"]["a"].dims == found["h"]["a"].dims == ("data",)


def test_labels_follow_their_dimension():
    kept = Variable(np.zeros(2), ("x",), labels={"x": np.array([3, 7])})
    found = without_clashes({"g": {"x": kept}})["g"]["x"]
    assert list(found.labels) == ["x_dim"]
    np.testing.assert_array_equal(found.labels["x_dim"], [3, 7])
