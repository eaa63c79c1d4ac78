"""Every kind of file gives the rows of the array that was written to it, and says what is wrong with a bad one."""

import os
import pickle

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

import vipack as vi
from vipack.errors import DataError, DtypeError, UsageError

N, D = 57, 5
TABLE = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
SPARSE = scipy.sparse.random(N, 8, density=0.3, format="csr", random_state=0, dtype=np.float32)
RANGES = ((0, 1), (0, N), (3, 17), (N - 1, N), (9, 31))
NAMES = [f"x{i}" for i in range(D)]


def npy(folder):
    np.save(folder / "t.npy", TABLE)
    return vi.stream(folder / "t.npy")


def npy_by_columns(folder):
    np.save(folder / "t.npy", np.asfortranarray(TABLE))
    return vi.stream(folder / "t.npy")


def npy_of_bytes_the_other_way_round(folder):
    np.save(folder / "t.npy", TABLE.astype(">f4"))
    return vi.stream(folder / "t.npy")


def memory_map(folder):
    TABLE.tofile(folder / "t.bin")
    return vi.stream(np.memmap(folder / "t.bin", np.float32, "r", shape=(N, D)))


def memory_map_after_a_header(folder):
    (folder / "t.bin").write_bytes(b"x" * 5_000 + TABLE.tobytes())
    return vi.stream(np.memmap(folder / "t.bin", np.float32, "r", offset=5_000, shape=(N, D)))


def rows_of_a_larger_map(folder):
    np.save(folder / "t.npy", np.r_[TABLE[::-1], TABLE])
    return vi.stream(np.load(folder / "t.npy", mmap_mode="r")[N:])


def columns_of_a_wider_map(folder):
    np.save(folder / "t.npy", np.c_[TABLE[:, :2], TABLE, TABLE[:, :1]])
    return vi.stream(np.load(folder / "t.npy", mmap_mode="r")[:, 2 : 2 + D])


def every_second_row(folder):
    np.save(folder / "t.npy", np.repeat(TABLE, 2, 0))
    return vi.stream(np.load(folder / "t.npy", mmap_mode="r")[::2])


def hdf5_path(folder):
    with h5py.File(folder / "t.h5", "w") as file:
        file.create_dataset("x", data=TABLE, chunks=(10, D))
    return vi.stream(folder / "t.h5", key="x")


def hdf5_dataset(folder):
    hdf5_path(folder)
    return vi.stream(h5py.File(folder / "t.h5", "r")["x"])


def parquet(folder):
    pq.write_table(pa.table(dict(zip(NAMES, TABLE.T, strict=True))), folder / "t.parquet", row_group_size=13)
    return vi.stream(folder / "t.parquet")


def parquet_folder(folder):
    for k, rows in enumerate((TABLE[:20], TABLE[20:41], TABLE[41:])):
        pq.write_table(pa.table(dict(zip(NAMES, rows.T, strict=True))), folder / f"{k}.parquet", row_group_size=8)
    return vi.stream(folder)


def arrow(folder):
    table = pa.table(dict(zip(NAMES, TABLE.T, strict=True)))
    with pa.ipc.new_file(folder / "t.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=11)
    return vi.stream(folder / "t.arrow")


DENSE = [
    npy, npy_by_columns, npy_of_bytes_the_other_way_round, memory_map, memory_map_after_a_header, rows_of_a_larger_map,
    columns_of_a_wider_map, every_second_row, hdf5_path, hdf5_dataset, parquet, parquet_folder, arrow,
]  # fmt: skip


@pytest.mark.parametrize("make", DENSE, ids=lambda make: make.__name__)
def test_any_range_of_rows_is_that_of_the_array(make, tmp_path):
    source = make(tmp_path)
    assert source.shape == TABLE.shape
    for start, stop in RANGES:
        np.testing.assert_array_equal(source.read(start, stop), TABLE[start:stop])


def write_csr(folder, matrix=SPARSE, **others):
    pieces = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, **others}
    for name, piece in pieces.items():
        np.save(folder / f"{name}.npy", piece)
    return folder


def csr_in_hdf5(folder):
    with h5py.File(folder / "t.h5ad", "w") as file:  # as AnnData writes it
        group = file.create_group("X")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(SPARSE, name)
        group.attrs["shape"], group.attrs["encoding-type"] = SPARSE.shape, "csr_matrix"
    return vi.stream(folder / "t.h5ad")


@pytest.mark.parametrize("make", [lambda folder: vi.stream(write_csr(folder), num_columns=8), csr_in_hdf5])
def test_any_range_of_sparse_rows_is_that_of_the_matrix(make, tmp_path):
    source = make(tmp_path)
    assert source.shape == SPARSE.shape
    assert source.is_sparse
    for start, stop in RANGES:
        assert (source.read(start, stop) != SPARSE[start:stop]).nnz == 0


def test_the_width_of_a_sparse_matrix_may_lie_beside_it(tmp_path):
    write_csr(tmp_path, shape=SPARSE.shape)
    assert vi.stream(tmp_path).shape == SPARSE.shape
    (tmp_path / "shape.npy").unlink()
    with pytest.raises(UsageError, match=r"number of columns.*num_columns="):
        vi.stream(tmp_path)


def test_one_column_of_a_table_is_a_vector(tmp_path):
    parquet(tmp_path)
    source = vi.stream(tmp_path / "t.parquet", columns="x3")
    np.testing.assert_array_equal(source.read(10, 30), TABLE[10:30, 3])
    two = vi.stream(tmp_path / "t.parquet", columns=["x3", "x0"])
    np.testing.assert_array_equal(two.read(10, 30), TABLE[10:30, [3, 0]])
    with pytest.raises(UsageError, match=r"no column 'z'.*x0, x1"):
        vi.stream(tmp_path / "t.parquet", columns="z")


def test_views_of_the_same_rows_read_the_file_once(tmp_path, monkeypatch):
    np.save(tmp_path / "t.npy", TABLE)
    table = np.load(tmp_path / "t.npy", mmap_mode="r")
    x, y = vi.stream(table[:, :4]), vi.stream(table[:, 4])
    reads = []
    read = type(x._file).read
    monkeypatch.setattr(type(x._file), "read", lambda self, *range_: reads.append(range_) or read(self, *range_))
    np.testing.assert_array_equal(x.read(5, 20), TABLE[5:20, :4])
    np.testing.assert_array_equal(y.read(5, 20), TABLE[5:20, 4])
    assert len(reads) == 1


def test_rows_of_a_file_can_be_pickled(tmp_path):
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(npy(tmp_path))).read(2, 9), TABLE[2:9])


# --- what is wrong with a file


def test_a_truncated_array_says_how_many_rows_are_whole(tmp_path):
    npy(tmp_path)
    os.truncate(tmp_path / "t.npy", 128 + 4 * D * 31 + 3)
    with pytest.raises(DataError, match=r"t\.npy: is truncated: 57 rows .* which is 31 whole rows"):
        vi.stream(tmp_path / "t.npy")


def test_a_map_that_is_cut_off_while_it_is_read_is_an_error_and_no_crash(tmp_path):
    source = npy(tmp_path)
    os.truncate(tmp_path / "t.npy", 300)
    with pytest.raises(DataError, match=r"t\.npy: has changed since it was opened \(it had 1,268 bytes, and has 300\)"):
        source.read(0, 5)


def test_a_file_that_is_written_to_is_an_error(tmp_path):
    source = npy(tmp_path)
    os.utime(tmp_path / "t.npy", ns=(0, 0))
    with pytest.raises(DataError, match="has changed since it was opened"):
        source.read(0, 5)


def test_a_file_without_rows_a_broken_one_and_none(tmp_path):
    np.save(tmp_path / "empty.npy", TABLE[:0])
    with pytest.raises(DataError, match=r"empty\.npy: has shape \(0, 5\)"):
        vi.stream(tmp_path / "empty.npy")
    (tmp_path / "broken.npy").write_bytes(b"PK not an array")
    with pytest.raises(DataError, match=r"broken\.npy: is no \.npy file"):
        vi.stream(tmp_path / "broken.npy")
    with pytest.raises(DataError, match=r"none\.npy: no such file"):
        vi.stream(tmp_path / "none.npy")
    (tmp_path / "table.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match=r"table\.xlsx: is of no kind"):
        vi.stream(tmp_path / "table.xlsx")


def test_types_that_are_no_numbers(tmp_path):
    np.save(tmp_path / "c.npy", TABLE.astype(np.complex64))
    with pytest.raises(DtypeError, match=r"c\.npy: complex numbers"):
        vi.stream(tmp_path / "c.npy")
    np.save(tmp_path / "s.npy", np.array(["a", "b"]))
    with pytest.raises(DtypeError, match=r"s\.npy: values of type <U1"):
        vi.stream(tmp_path / "s.npy")
    pq.write_table(pa.table({"x": [1.0], "name": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(DtypeError, match=r"column 'name' is of type string.*columns="):
        vi.stream(tmp_path / "t.parquet")


def test_a_schema_that_changes_midway_names_file_and_column(tmp_path):
    pq.write_table(pa.table({"x": [1.0], "y": [2.0]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"x": [1.0], "y": [2]}), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet: column 'y' is of type int64, and of type double in .*0\.parquet"):
        vi.stream(tmp_path)
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet: has no column 'y', which .*0\.parquet has"):
        vi.stream(tmp_path)


def test_a_truncated_table(tmp_path):
    parquet(tmp_path)
    os.truncate(tmp_path / "t.parquet", 500)
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read as a table"):
        vi.stream(tmp_path / "t.parquet")


def test_an_integer_column_with_a_gap_names_its_row(tmp_path):
    pq.write_table(pa.table({"k": pa.array([1, 2, 3, None, 5])}), tmp_path / "t.parquet", row_group_size=2)
    with pytest.raises(DataError, match=r"row 3, column 'k' has no value"):
        vi.stream(tmp_path / "t.parquet", columns="k").read(2, 4)


def test_sparse_files_that_do_not_belong_together(tmp_path):
    write_csr(tmp_path, data=SPARSE.data[:-3])
    with pytest.raises(DataError, match=r"indptr ends at 137 values for 57 rows, data has 134 and indices 137"):
        vi.stream(tmp_path, num_columns=8)
    write_csr(tmp_path)
    with pytest.raises(DataError, match=r"indices\.npy: row \d+ has column [67], and the matrix has 6 columns"):
        vi.stream(tmp_path, num_columns=6).read(0, N)


def test_hdf5_names_what_it_has(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["x"], file["y"] = TABLE, TABLE[:, 0]
    with pytest.raises(UsageError, match="holds several arrays; name one of x, y by key="):
        vi.stream(tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5", "r") as file:
        source = vi.stream(file["x"])
    with pytest.raises(DataError, match=r"rows 0 to 3 cannot be read.*closed"):
        source.read(0, 3)


def test_options_of_other_kinds_are_refused(tmp_path):
    npy(tmp_path)
    with pytest.raises(UsageError, match="columns is for Parquet"):
        vi.stream(tmp_path / "t.npy", columns="x")
    with pytest.raises(UsageError, match="block_rows must be a positive integer, found 0"):
        vi.stream(tmp_path / "t.npy", block_rows=0)
    with pytest.raises(UsageError, match=r"found a ndarray.*What lies in memory is data= itself"):
        vi.stream(TABLE)
