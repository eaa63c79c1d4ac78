"""Data in every form that users have it in: the same fit, and every row once an epoch."""

import math
import warnings

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from pyro.infer.autoguide import AutoNormal
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler, TensorDataset

import vipack as vi
from vipack.errors import DataError
from vipack.training.data import ArrayRows
from vipack.training.reading_data import read_data

N = 10
X = torch.randn(N, generator=torch.Generator().manual_seed(0))
Y = 2 * X + 1
TABLE = torch.stack([X, Y], 1)
SPARSE = scipy.sparse.random(N, 4, density=0.4, format="csr", random_state=0, dtype=np.float32)


def regression(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def of_a_table(table):
    regression(table[:, 0], table[:, 1])


def of_counts(counts):
    w = pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    mean = counts @ w
    with pyro.plate("data", len(mean)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.ones(len(mean)))


class Named(Dataset):
    """Rows as dicts, as data sets of pictures or texts have them."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return {"x": X[index], "y": Y[index]}


def rows_of(data, fixed=None, dtype=None):
    return read_data(data, fixed, dtype, torch.device("cpu"))


def stream_of(data, batch_size, seed=0):
    return rows_of(data).stream(batch_size, torch.Generator().manual_seed(seed))


# --- forms

FORMS = {
    "tuple of tensors": (regression, (X, Y)),
    "dict of tensors": (regression, {"x": X, "y": Y}),
    "dict in another order": (regression, {"y": Y, "x": X}),
    "tensors that require grad": (regression, (X.clone().requires_grad_(True), Y)),
    "NumPy": (regression, (X.numpy(), Y.numpy())),
    "NumPy, read only and backwards": (regression, tuple(np.flip(np.flip(v.numpy()).copy()) for v in (X, Y))),
    "NumPy, big-endian": (regression, (X.numpy().astype(">f4"), Y.numpy())),
    "NumPy and a tensor": (regression, (X.numpy(), Y)),
    "pandas series": (regression, (pd.Series(X.numpy()), pd.Series(Y.numpy()))),
    "pandas with its own index": (regression, {"x": pd.Series(X.numpy(), index=range(5, 15)), "y": Y}),
    "a pandas array": (regression, (pd.array(X.numpy(), dtype="Float32"), Y)),
    "pandas nullable series": (regression, (pd.Series(X.numpy(), dtype="Float32"), Y)),
    "a matrix": (of_a_table, TABLE),
    "a tuple of a matrix": (of_a_table, (TABLE,)),
    "a data frame": (of_a_table, pd.DataFrame(TABLE.numpy(), columns=["x", "y"])),
    "a TensorDataset": (regression, TensorDataset(X, Y)),
    "a Dataset of dicts": (regression, Named()),
    "a DataLoader of all rows": (regression, DataLoader(TensorDataset(X, Y), batch_size=N)),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_fit(name):
    model, data = FORMS[name]
    expected = vi.fit(regression, AutoNormal, data=(X, Y), steps=3)
    fit = vi.fit(model, AutoNormal, data=data, steps=3)
    assert fit.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-6)
    assert fit.params["AutoNormal.locs.w"].dtype == torch.float32


@pytest.mark.parametrize("name", [n for n in FORMS if "DataLoader" not in n])
def test_every_form_is_cut_into_the_same_batches(name):
    model, data = FORMS[name]
    expected = vi.fit(regression, AutoNormal, data=(X, Y), steps=7, batch_size=4)
    fit = vi.fit(model, AutoNormal, data=data, steps=7, batch_size=4)
    assert fit.losses.tolist() == pytest.approx(expected.losses.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    "matrix",
    [SPARSE, SPARSE.tocoo(), SPARSE.tocsc(), scipy.sparse.csr_array(SPARSE), SPARSE.astype(np.float64)],
    ids=["csr", "coo", "csc", "csr_array", "float64"],
)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_sparse_matrix_gives_the_fit_of_the_dense_one(matrix, batch_size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = vi.fit(of_counts, AutoNormal, data=matrix, steps=4, batch_size=batch_size)
    dense = vi.fit(of_counts, AutoNormal, data=torch.tensor(SPARSE.toarray()), steps=4, batch_size=batch_size)
    assert fit.losses.tolist() == pytest.approx(dense.losses.tolist(), rel=1e-5)


def test_a_sparse_tensor_gives_the_fit_of_the_dense_one():
    sparse = rows_of(SPARSE).full().args[0]
    assert sparse.layout == torch.sparse_csr
    dense = vi.fit(of_counts, AutoNormal, data=torch.tensor(SPARSE.toarray()), steps=4, batch_size=4)
    for batch_size in (None, 4):
        fit = vi.fit(of_counts, AutoNormal, data=sparse, steps=4, batch_size=batch_size)
        if batch_size:
            assert fit.losses.tolist() == pytest.approx(dense.losses.tolist(), rel=1e-5)


def test_a_model_without_arguments_takes_an_empty_tuple():
    def model():
        regression(X, Y)

    assert vi.fit(model, AutoNormal, data=(), steps=2).steps == 2
    assert rows_of(()).num_rows is None
    assert rows_of(()).full().args == ()


def test_fixed_arguments_come_with_every_batch_whole():
    weights = torch.ones(3)

    def model(x, weights, scale=1.0, name=""):
        seen.append((len(x), len(weights), scale, name))
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w * weights.sum(), scale), obs=x)

    seen: list[tuple] = []
    vi.fit(
        model, AutoNormal, data=X, fixed={"weights": weights.numpy(), "scale": 2.0, "name": "a"}, steps=5, batch_size=4
    )
    assert {(rows, *rest) for rows, *rest in seen} == {(n, 3, 2.0, "a") for n in (3, 4)}  # 3: a check of the plate


# --- dtype


@pytest.mark.parametrize(
    ("data", "dtype", "expected"),
    [
        (X, None, torch.float32),
        (X.double(), None, torch.float64),
        (X.double().numpy(), None, torch.float32),
        ((X.double().numpy(), Y.double()), None, torch.float64),
        ((X.double().numpy(), Y), None, torch.float32),
        (pd.Series(X.double().numpy()), None, torch.float32),
        (torch.arange(N), None, torch.float32),
        (X, torch.float64, torch.float64),
        (X.double(), torch.float32, torch.float32),
        (X.half(), torch.float32, torch.float32),
        (X.half().numpy(), None, torch.float32),
        (TensorDataset(X.double()), None, torch.float64),
        (DataLoader(TensorDataset(X.double())), None, torch.float64),
        (TensorDataset(X), torch.float64, torch.float64),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, torch.dtype) else str(value),
)
def test_the_type_of_a_fit(data, dtype, expected):
    rows = rows_of(data, dtype=dtype)
    assert rows.dtype == expected
    for value in rows.full().args:
        assert value.dtype == (expected if value.is_floating_point() else torch.int64)


def test_numpy_takes_torchs_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        assert rows_of(X.numpy()).dtype == torch.float64
        assert rows_of(X).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_fixed_tensors_have_a_say_and_are_converted():
    assert rows_of(X.numpy(), {"scale": torch.ones(1, dtype=torch.float64)}).dtype == torch.float64
    assert rows_of(X, {"scale": np.ones(1)}).fixed["scale"].dtype == torch.float32


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.int8, np.int32, np.int64, bool])
def test_whole_numbers_stay_what_they_are(kind):
    values = np.array([0, 1, 1], dtype=kind)
    (found,) = rows_of(values).full().args
    assert not found.is_floating_point()
    assert found.tolist() == values.tolist()


def test_the_users_arrays_are_not_changed():
    x, y = X.double().numpy().copy(), Y.clone()
    before = x.copy(), y.clone()
    vi.fit(regression, AutoNormal, data=(x, y), steps=3, batch_size=4)
    assert np.array_equal(x, before[0])
    assert torch.equal(y, before[1])
    assert x.dtype == np.float64


# --- batches


@pytest.mark.parametrize("batch_size", [1, 3, 4, 5, 9])
@pytest.mark.parametrize("form", ["arrays", "dataset", "sparse"])
def test_every_row_comes_once_an_epoch(batch_size, form):
    numbers = torch.arange(1.0, N + 1)
    data = {
        "arrays": (numbers, -numbers),
        "dataset": TensorDataset(numbers, -numbers),
        "sparse": (scipy.sparse.csr_matrix(numbers[:, None].numpy()), -numbers),
    }[form]
    stream = stream_of(data, batch_size)
    assert stream.per_epoch == N / batch_size
    batches, epochs = [], []
    for _ in range(math.ceil(20 * stream.per_epoch)):
        batches.append(next(stream))
        epochs.append(stream.epoch)
    firsts, seconds = zip(*[batch.args for batch in batches], strict=True)
    first = torch.cat([f.to_dense().reshape(-1) for f in firsts])
    assert torch.equal(first, -torch.cat(seconds))  # rows stay together
    assert torch.equal(first, numbers[torch.cat([batch.indices for batch in batches])])
    orders = first[: 20 * N].reshape(20, N)
    assert all(sorted(order) == numbers.tolist() for order in orders.tolist())
    assert len({tuple(order) for order in orders.tolist()}) == 20
    assert epochs == [step * batch_size // N for step in range(len(batches))]  # of a batch's first row
    assert all(len(batch.indices.unique()) == batch_size for batch in batches)


def test_rows_that_complete_a_batch_are_no_others_than_the_rest():
    """Each row stands equally often at each place of an epoch, though none comes twice in a batch."""
    counts = torch.zeros(5, 5)
    for seed in range(4_000):
        stream = stream_of(torch.arange(5.0), 3, seed)
        order = torch.cat([next(stream).indices for _ in range(4)])[5:10]
        counts[torch.arange(5), order] += 1
    assert ((counts / 4_000 - 0.2).abs() < 0.03).all()


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_many_batches_at_once_are_those_that_come_one_by_one(taken, batch_size):
    """Over the ends of epochs, too, where these divide the rows; the stream then stands where it would have stood."""
    one_by_one, at_once = stream_of(X, batch_size), stream_of(X, batch_size)
    for _ in range(taken):
        next(one_by_one), next(at_once)
    found = []
    while len(found) < 23:
        size, in_a_row = at_once.upcoming()
        found += list(at_once.indices(min(in_a_row, 23 - len(found))))
        assert all(len(rows) == size for rows in found[-1:])
        assert in_a_row > 23
    for rows in found:
        assert torch.equal(rows, next(one_by_one).indices)
    assert at_once.epoch == one_by_one.epoch
    resumed = stream_of(X, batch_size, seed=123)
    resumed.load_state(at_once.state())
    assert torch.equal(next(resumed).indices, next(one_by_one).indices)


def test_the_seed_decides_the_order():
    def order(seed):
        stream = stream_of(X, 3, seed)
        return [next(stream).indices.tolist() for _ in range(9)]

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.parametrize("form", ["arrays", "dataset", "loader"])
@pytest.mark.parametrize("taken", [0, 1, 3, 4, 6, 8])
def test_a_stream_goes_on_where_its_state_was_taken(taken, form):
    """Four batches an epoch: in the middle, at the end and at the start of one."""
    batch_size = None if form == "loader" else 3

    def fresh(seed):
        loader = DataLoader(TensorDataset(X), batch_size=3, shuffle=True)
        return stream_of({"arrays": X, "dataset": TensorDataset(X), "loader": loader}[form], batch_size, seed)

    original = fresh(0)
    for _ in range(taken):
        next(original)
    state = original.state()
    expected = [next(original).args[0] for _ in range(9)]
    resumed = fresh(123)
    resumed.load_state(state)
    assert all(torch.equal(next(resumed).args[0], batch) for batch in expected)
    assert resumed.epoch == original.epoch


def test_all_rows_are_one_batch_in_their_own_order():
    for batch_size in (None, N):
        stream = stream_of(X, batch_size)
        assert stream.per_epoch == 1
        batch = next(stream)
        assert torch.equal(batch.args[0], X)
        assert batch.indices is None
        next(stream)
        assert stream.epoch == 1


def test_a_loader_makes_its_own_batches():
    loader = DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True)
    rows = rows_of(loader)
    assert rows.num_rows == N
    stream = rows.stream(None, torch.Generator().manual_seed(0))
    batches = [next(stream) for _ in range(3)]
    assert [len(batch.indices) for batch in batches] == [4, 4, 2]
    assert sorted(torch.cat([batch.args[0] for batch in batches]).tolist()) == sorted(X.tolist())
    assert torch.equal(rows.full().args[0], X)
    assert not rows.indexed


def test_a_loaders_own_way_of_collating_is_used_for_all_rows_too():
    def collate(rows):
        return {"x": torch.stack([x for x, _ in rows]), "y": torch.stack([y for _, y in rows])}

    loader = DataLoader(TensorDataset(X, Y), batch_size=4, collate_fn=collate)
    assert set(rows_of(loader).full().kwargs) == {"x", "y"}
    fit = vi.fit(regression, AutoNormal, data=loader, steps=4)
    assert fit.posterior.draws(3).log_joint.isfinite().all()


@pytest.mark.parametrize("options", [{"batch_size": 5}, {"batch_size": 6, "drop_last": True}], ids=str)
def test_a_loader_is_scaled_to_all_rows(options):
    fit = vi.fit(regression, AutoNormal, data=DataLoader(TensorDataset(X, Y), **options), steps=1)
    assert fit._trainer.program.batch_plate.num_rows == N


def test_a_loader_of_all_rows_keeps_their_order():
    """A guide with parameters for each row needs it, shuffled or not."""
    loader = DataLoader(TensorDataset(X), batch_size=N, shuffle=True)
    assert torch.equal(next(stream_of(loader, None)).args[0], X)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(TensorDataset(X), batch_size=None), "batch_size=None, so the number of its rows is not known"),
        (DataLoader(TensorDataset(X), sampler=SubsetRandomSampler([0, 1, 2])), "sampler takes 3 rows of the 10"),
    ],
    ids=["no batches", "a subset"],
)
def test_a_loader_of_unknown_rows_is_refused(loader, message):
    with pytest.raises(DataError, match=message):
        vi.fit(regression, AutoNormal, data=loader, steps=1)


# --- which data they are


def test_the_same_data_have_the_same_fingerprint():
    prints = {rows_of(data).fingerprint() for data in ((X, Y), (X.clone(), Y), (X.numpy(), Y.double().numpy()))}
    assert len(prints) == 1
    assert rows_of(SPARSE).fingerprint() == rows_of(SPARSE.tocoo()).fingerprint()
    assert rows_of(Named()).fingerprint() == rows_of(Named()).fingerprint()


@pytest.mark.parametrize(
    ("data", "fixed", "dtype"),
    [
        ((X, Y + 1e-6), None, None),
        ((Y, X), None, None),
        ((X.flip(0), Y.flip(0)), None, None),
        ((X[:-1], Y[:-1]), None, None),
        ((X.reshape(2, 5), Y), None, None),
        ((X, Y), {"scale": 1.0}, None),
        ((X, Y), None, torch.float64),
        ({"x": X, "y": Y}, None, None),
        (TensorDataset(X, Y), None, None),
    ],
    ids=["a value", "the order", "the rows", "their number", "the shape", "fixed", "type", "names", "a data set"],
)
def test_other_data_have_another_fingerprint(data, fixed, dtype):
    assert rows_of(data, fixed, dtype).fingerprint() != rows_of((X, Y)).fingerprint()


def test_another_matrix_has_another_fingerprint():
    other = SPARSE.copy()
    other.data[0] += 1
    moved = SPARSE.copy()
    moved.indices[0] = (moved.indices[0] + 1) % 4
    assert len({rows_of(matrix).fingerprint() for matrix in (SPARSE, other, moved)}) == 3


@pytest.mark.parametrize(
    ("data", "fixed"),
    [
        (X, None),
        ((X, Y), {"scale": 2.0, "name": "a", "flag": True, "none": None}),
        ({"x": X, "y": Y}, {"weights": torch.ones(2)}),
        ((SPARSE, X), None),
        ((), None),
        (torch.arange(N), None),
    ],
    ids=["one", "tuple", "dict", "sparse", "none", "integers"],
)
def test_data_come_back_from_a_file_as_they_were(data, fixed, tmp_path):
    rows = rows_of(data, fixed)
    torch.save(rows.state(), tmp_path / "data")
    again = rows_of(*ArrayRows.structure(torch.load(tmp_path / "data", weights_only=True)))
    assert again.fingerprint() == rows.fingerprint()
    assert again.num_rows == rows.num_rows
    assert [type(v) for v in again.full().args] == [type(v) for v in rows.full().args]
    assert list(again.full().kwargs) == list(rows.full().kwargs)


def test_a_view_takes_no_more_of_a_file_than_it_shows(tmp_path):
    torch.save(rows_of(torch.randn(100_000)[:10]).state(), tmp_path / "data")
    assert (tmp_path / "data").stat().st_size < 5_000


def test_what_is_no_plain_value_is_not_kept():
    assert rows_of(X, {"anything": object()}).state() is None


def test_parts_have_names_for_messages():
    assert list(rows_of(X).arrays) == ["data"]
    assert list(rows_of((X, Y)).arrays) == ["data[0]", "data[1]"]
    assert list(rows_of({"x": X}, {"scale": 1.0}).arrays) == ["x", "scale"]


# --- the rows that tell most


def test_the_extreme_rows_are_in_the_batch_that_is_checked():
    values = torch.zeros(100)
    values[37], values[61], values[90] = -5.0, 7.0, float("nan")
    rows = rows_of((values, torch.arange(100)))
    first = next(rows.stream(6, torch.Generator().manual_seed(0)))
    batch = rows.extremes(first)
    assert len(batch.indices) == 6
    assert {0, 90, 99} <= set(batch.indices.tolist())  # of a column with NaN only the NaN is known to be found
    rows = rows_of(torch.nan_to_num(values))
    assert {37, 61} <= set(rows.extremes(next(rows.stream(6, torch.Generator()))).indices.tolist())
    sparse = scipy.sparse.csr_matrix(torch.nan_to_num(values)[:, None].numpy())
    rows = rows_of(sparse)
    assert {37, 61} <= set(rows.extremes(next(rows.stream(6, torch.Generator()))).indices.tolist())
