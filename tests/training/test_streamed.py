"""Fits on rows in files: the same as on rows in memory, every row once an epoch, in bounded memory, resumed bit for bit."""

import itertools
import os
import tracemalloc

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer.autoguide import AutoNormal
from torch.utils.data import IterableDataset

import vipack as vi
from vipack.errors import DataError, SupportError, UsageError
from vipack.training.reading_data import read_data
from vipack.training.streamed import StreamedRows

N = 640
TABLE = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
TABLE[:, 2] = TABLE[:, :2] @ [1.0, -2.0] + 0.3 * TABLE[:, 2]
CPU = torch.device("cpu")


def model(table):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(table)):
        pyro.sample("y", dist.Normal(table[:, :2] @ w, 0.5), obs=table[:, 2])


def of_two(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "t.npy", TABLE)
    return tmp_path / "t.npy"


def fit(data, program=model, **options):
    options = {"batch_size": 48, "steps": 40, "engine": "traced", "seed": 3, "progress": False, **options}
    return vi.fit(program, AutoNormal, data=data, **options)


def rows_of(data, dtype=None):
    return read_data(data, None, dtype, CPU)


def order_of(rows, batch_size, number, seed=0):
    stream = rows.stream(batch_size, torch.Generator().manual_seed(seed))
    return torch.stack([next(stream).indices for _ in range(number)])


# --- the same as from memory


def test_rows_of_one_window_train_bit_for_bit_as_from_memory(path):
    from_file, from_memory = fit(vi.stream(path)), fit(TABLE)
    np.testing.assert_array_equal(from_file.losses, from_memory.losses)
    for name, value in from_memory.params.items():
        assert torch.equal(from_file.params[name], value)


class InOrder(torch.utils.data.Sampler):
    """Batches that a stream gave, for a loader over rows in memory."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        yield from self.batches

    def __len__(self):
        return len(self.batches)


def test_many_windows_train_as_the_same_rows_from_memory(path):
    stored = vi.stream(path, block_rows=7, window_rows=200)
    order = order_of(rows_of(stored), 64, 40, seed=3).tolist()
    assert len({index for batch in order[:10] for index in batch}) == N
    assert len({index for batch in order[:3] for index in batch} - set(range(300))) > 20  # from all over the file
    loader = torch.utils.data.DataLoader(torch.from_numpy(TABLE), batch_sampler=InOrder(order))
    from_file = fit(stored, batch_size=64, engine="eager")
    from_memory = fit(loader, batch_size=None, engine="eager", steps=40)
    np.testing.assert_allclose(from_file.losses[:10], from_memory.losses[:10], rtol=1e-6)


@pytest.mark.parametrize("engine", ["traced", "interpreted"])
def test_engines_get_the_same_batches(path, engine):
    stored = vi.stream(path, block_rows=7, window_rows=200)
    np.testing.assert_allclose(fit(stored, engine=engine).losses, fit(stored, engine="eager").losses, rtol=2e-5)


def kinds(folder):
    names = ["a", "b", "y"]
    pq.write_table(pa.table(dict(zip(names, TABLE.T, strict=True))), folder / "t.parquet", row_group_size=N)
    with h5py.File(folder / "t.h5", "w") as file:
        file["x"], file["y"] = TABLE[:, :2], TABLE[:, 2]
    table = np.load(folder / "t.npy", mmap_mode="r")
    h5 = h5py.File(folder / "t.h5", "r")
    return {
        "views of a map": (vi.stream(table[:, :2]), vi.stream(table[:, 2])),
        "HDF5": (h5["x"], h5["y"]),
        "Parquet": (vi.stream(folder / "t.parquet", columns=["a", "b"]), vi.stream(folder / "t.parquet", columns="y")),
        "a file and memory": (vi.stream(table[:, :2]), torch.from_numpy(TABLE[:, 2])),
        "a dict": {"y": vi.stream(table[:, 2]), "x": h5["x"]},
    }


def test_all_kinds_of_files_train_alike(path):
    expected = fit((TABLE[:, :2], TABLE[:, 2]), of_two, steps=20).losses
    for name, data in kinds(path.parent).items():
        np.testing.assert_allclose(fit(data, of_two, steps=20).losses, expected, rtol=1e-6, err_msg=name)


def test_sparse_rows_train_as_from_memory(tmp_path):
    matrix = scipy.sparse.random(200, 6, density=0.4, format="csr", random_state=0, dtype=np.float32)
    for name in ("data", "indices", "indptr"):
        np.save(tmp_path / f"{name}.npy", getattr(matrix, name))

    def program(counts):
        w = pyro.sample("w", dist.Normal(torch.zeros(6), 1.0).to_event(1))
        mean = counts @ w
        with pyro.plate("rows", len(mean)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.ones(len(mean)))

    from_file = fit(vi.stream(tmp_path, num_columns=6), program, steps=20)
    np.testing.assert_allclose(from_file.losses, fit(matrix, program, steps=20, engine="eager").losses, rtol=1e-5)
    many = vi.stream(tmp_path, num_columns=6, block_rows=9, window_rows=96)
    assert np.isfinite(fit(many, program, steps=20).losses).all()


def test_double_precision_in_the_file_is_converted_and_never_overflows_silently(tmp_path):
    table = TABLE.astype(np.float64)
    np.save(tmp_path / "t.npy", table)
    np.testing.assert_array_equal(fit(vi.stream(tmp_path / "t.npy")).losses, fit(table).losses)
    assert rows_of(vi.stream(tmp_path / "t.npy"), torch.float64).rows(torch.arange(2)).args[0].dtype == torch.float64
    table[501, 1] = 1e60
    np.save(tmp_path / "t.npy", table)
    with pytest.raises(DataError, match=r"t\.npy: row 501, column 1 is 1e\+60, which torch.float32 cannot hold"):
        fit(vi.stream(tmp_path / "t.npy"))


# --- every row once an epoch


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(2, 200),
    batch_size=st.integers(1, 40),
    block_rows=st.integers(1, 50),
    window_rows=st.integers(1, 90),
    seed=st.integers(0, 99),
)
def test_every_row_comes_once_an_epoch_and_never_twice_in_a_batch(num_rows, batch_size, block_rows, window_rows, seed):
    batch_size = min(batch_size, num_rows - 1)
    rows = rows_of((Numbers.of(num_rows, block_rows, window_rows),))
    batches = order_of(rows, batch_size, 1 + 4 * num_rows // batch_size, seed)
    flat = batches.flatten()
    for epoch in range(len(flat) // num_rows):
        assert flat[epoch * num_rows : (epoch + 1) * num_rows].sort().values.tolist() == list(range(num_rows))
    assert all(len(set(batch.tolist())) == batch_size for batch in batches)
    again = rows.stream(batch_size, torch.Generator().manual_seed(seed))
    assert torch.equal(torch.stack([next(again).args[0].long() for _ in range(5)]), batches[:5])


class Numbers(vi.sources.RowSource):
    """Rows that hold their own numbers."""

    name, dtype, row_shape, row_bytes = "numbers", np.dtype(np.float32), (), 4.0

    @classmethod
    def of(cls, num_rows, block_rows, window_rows):
        source = cls()
        source.num_rows, source.block_rows, source.window_rows = num_rows, block_rows, window_rows
        return source

    def read(self, start, stop):
        return np.arange(start, stop, dtype=np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(2, 40), st.integers(1, 30), st.integers(2, 90))
def test_a_stream_goes_on_from_its_state_wherever_it_stands(number, batch_size, block_rows, window_rows):
    rows = rows_of((Numbers.of(101, block_rows, window_rows),))
    one, two = (rows.stream(batch_size, torch.Generator().manual_seed(seed)) for seed in (0, 7))
    for _ in range(number):
        next(one)
    two.load_state(one.state())
    for _ in range(20):
        assert torch.equal(next(one).indices, next(two).indices)
    assert one.epoch == two.epoch


def test_rows_by_their_numbers_are_those_of_the_file(path):
    rows = rows_of(vi.stream(path, block_rows=10))
    indices = torch.tensor([5, 5, 639, 0, 17, 12, 300])
    call = rows.rows(indices)
    assert torch.equal(call.args[0], torch.from_numpy(TABLE)[indices])
    assert torch.equal(call.indices, indices)


def test_blocks_are_held_out_for_validation(path):
    rows = rows_of(vi.stream(path, block_rows=8))
    kept, others = rows.split(64, seed=0)
    both = torch.cat([kept.full().args[0], others.full().args[0]])
    assert (kept.num_rows, others.num_rows) == (N - 64, 64)
    assert torch.equal(both.sort(0).values, torch.from_numpy(TABLE).sort(0).values)
    fitted = fit(vi.stream(path, block_rows=8, window_rows=100), validation=0.1, steps=220)
    assert fitted.num_observations == N - 64
    assert fitted.history.elbo.notna().any()


# --- memory


def test_memory_goes_by_the_window_and_not_by_the_file(tmp_path):
    table = np.lib.format.open_memmap(tmp_path / "t.npy", "w+", np.float32, (400_000, 10))
    for start in range(0, len(table), 50_000):
        table[start : start + 50_000] = 1.0
    table.flush()
    stored = vi.stream(tmp_path / "t.npy", block_rows=500, window_rows=10_000)  # windows of 400 KB of a file of 16 MB
    stream = rows_of(stored).stream(1_000, torch.Generator().manual_seed(0))
    next(stream)
    tracemalloc.start()
    for _ in range(800):
        next(stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stream.epoch == 2
    assert peak < 3_000_000


def test_all_rows_at_once_are_refused_where_they_are_many(path, monkeypatch):
    monkeypatch.setattr("vipack.training.streamed.MOST_WHOLE", 1_000)
    with pytest.raises(UsageError, match=r"all 640 rows of .*t\.npy are asked for at once.*pass batch_size="):
        fit(vi.stream(path), batch_size=None)


def test_a_large_memory_map_is_read_in_pieces_and_a_small_one_is_not(path, monkeypatch):
    table = np.load(path, mmap_mode="r")
    assert not isinstance(rows_of(table), StreamedRows)
    monkeypatch.setattr("vipack.sources.opening.MOST_WHOLE", 1_000)
    assert isinstance(rows_of(table), StreamedRows)
    assert isinstance(rows_of((table[:, :2], TABLE[:, 2])), StreamedRows)
    np.testing.assert_array_equal(fit(table).losses, fit(TABLE).losses)


# --- going on


def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(path, tmp_path):
    def stored():
        return vi.stream(path, block_rows=8, window_rows=200)

    whole = fit(stored(), steps=90)
    file = tmp_path / "fit.pt"
    fit(stored(), steps=90, checkpoint=vi.Checkpoint(file, every_steps=10), callbacks=vi.Every(50, lambda _: True))
    again = fit(stored(), steps=90, checkpoint=vi.Checkpoint(file, every_steps=10))
    assert again.steps == 50  # the callback ended that run
    again.resume(steps=40)
    np.testing.assert_array_equal(again.losses, whole.losses)
    fit(stored(), steps=30).save(file)
    loaded = vi.load(file, model, AutoNormal, data=stored(), engine="traced")
    assert loaded.steps == 30
    assert np.array_equal(loaded.resume(steps=30).losses[:30], fit(stored(), steps=30).losses)


def test_a_checkpoint_knows_other_data(path, tmp_path):
    file = tmp_path / "fit.pt"
    fit(vi.stream(path), checkpoint=file)
    np.save(path, TABLE + 1)
    with pytest.raises(vi.errors.CheckpointError, match="data"):
        fit(vi.stream(path), checkpoint=file)


# --- what is wrong with the data


def test_nan_is_named_by_file_row_and_column(path):
    table = TABLE.copy()
    table[611, 1] = np.nan
    np.save(path, table)
    with pytest.raises(DataError, match=r"t\.npy: row 611, column 1 is NaN.*missing=True"):
        fit(vi.stream(path, block_rows=10, window_rows=100))
    table[611, 1] = -np.inf
    np.save(path, table)
    with pytest.raises(DataError, match=r"t\.npy: row 611, column 1 is -inf"):
        fit(vi.stream(path, block_rows=10, window_rows=100, missing=True))


def test_no_call_gets_past_rows_that_cannot_be_trained_on(path):
    table = TABLE.copy()
    table[611, 1] = np.nan
    np.save(path, table)
    stream = rows_of(vi.stream(path, block_rows=10, window_rows=100)).stream(48, torch.Generator().manual_seed(0))
    for _ in range(2):  # an engine that tries a faster tier goes on after an error
        with pytest.raises(DataError, match="row 611"):
            list(itertools.islice(stream, 40))


def test_missing_values_under_a_mask_may_be_nan(tmp_path):
    y = TABLE[:, 2].copy()
    y[::5] = np.nan
    np.save(tmp_path / "y.npy", y)

    def masked(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0).mask(~y.isnan()), obs=y.nan_to_num())

    losses = fit(vi.stream(tmp_path / "y.npy", missing=True, block_rows=10, window_rows=100), masked).losses
    assert np.isfinite(losses).all()


def test_columns_of_different_lengths_name_their_files(path):
    np.save(path.parent / "y.npy", TABLE[:-3, 2])
    with pytest.raises(DataError, match=r"data\['x'\]: 640 \(.*t\.npy\), data\['y'\]: 637 \(.*y\.npy\)"):
        fit({"x": vi.stream(path), "y": vi.stream(path.parent / "y.npy")}, of_two)


def test_a_file_that_changes_under_a_fit_ends_it(path):
    def change(progress):
        os.utime(path, ns=(0, 0))

    with pytest.raises(DataError, match=r"t\.npy: has changed since it was opened"):
        fit(vi.stream(path, block_rows=10, window_rows=100), callbacks=vi.Every(10, change))


def test_a_value_outside_the_support_is_named_when_it_is_read(tmp_path):
    counts = np.ones(N, np.float32)
    np.save(tmp_path / "k.npy", counts)

    def program(k):
        rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        with pyro.plate("rows", len(k)):
            pyro.sample("k", dist.Poisson(rate), obs=k)

    fit(vi.stream(tmp_path / "k.npy", block_rows=10, window_rows=100), program)
    rows = rows_of(vi.stream(tmp_path / "k.npy", block_rows=10, window_rows=100))
    last = order_of(rows, 48, N // 48, seed=3)[-1]  # a row that no step sees before the last batches of an epoch
    counts[last[-1]] = -1.0
    np.save(tmp_path / "k.npy", counts)
    with pytest.raises(SupportError, match="k"):
        fit(vi.stream(tmp_path / "k.npy", block_rows=10, window_rows=100), program)


def test_a_model_without_a_plate_is_told_so_although_not_all_rows_can_be_had(path, monkeypatch):
    monkeypatch.setattr("vipack.training.streamed.MOST_WHOLE", 1_000)

    def bare(table):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(table[:, :2] @ w, 0.5).to_event(1), obs=table[:, 2])

    with pytest.raises(vi.errors.PlateError, match="no plate"):
        fit(vi.stream(path), bare)


# --- rows one after another


class Rows(IterableDataset):
    def __init__(self, count=N, length=N):
        self.count, self.length = count, length

    def __iter__(self):
        for row in TABLE[: self.count]:
            yield torch.from_numpy(row[:2]), row[2]

    def __len__(self):
        return self.length


class Unsized(IterableDataset):
    def __iter__(self):
        yield from TABLE


def test_an_iterable_dataset_trains_by_every_row_once_an_epoch():
    # Rows of one window come in the order that rows in memory would.
    in_memory = fit((TABLE[:, :2], TABLE[:, 2]), of_two, engine="eager").losses
    np.testing.assert_allclose(fit(Rows(), of_two, engine="eager").losses[:13], in_memory[:13], rtol=1e-6)
    rows = rows_of(vi.stream(Rows(), window_rows=200))
    stream = rows.stream(32, torch.Generator().manual_seed(0))
    y = torch.cat([next(stream).args[1] for _ in range(20)])
    assert torch.equal(y.sort().values, torch.from_numpy(TABLE[:, 2]).sort().values)
    unsized = vi.stream(Unsized(), num_rows=N, window_rows=200)
    np.testing.assert_allclose(fit(unsized).losses, fit(unsized).losses)


def test_an_iterable_dataset_goes_on_from_its_state():
    rows = rows_of(vi.stream(Rows(), window_rows=150))
    one, two = (rows.stream(32, torch.Generator().manual_seed(seed)) for seed in (0, 7))
    for _ in range(33):
        next(one)
    two.load_state(one.state())
    for _ in range(30):
        assert torch.equal(next(one).args[1], next(two).args[1])


def test_an_iterable_dataset_that_does_not_give_what_it_said():
    with pytest.raises(DataError, match="Rows ended after 600 rows of the 640 that it said"):
        fit(Rows(600), of_two)
    with pytest.raises(DataError, match="gave more than the 600 rows"):
        fit(Rows(N, 600), of_two)
    with pytest.raises(DataError, match="Rows gave no row"):
        fit(Rows(0), of_two)
    with pytest.raises(DataError, match=r"Unsized has no length.*vipack\.stream\(dataset, num_rows=N\)"):
        fit(Unsized())


# --- answers


@pytest.fixture(scope="module")
def two_fits(tmp_path_factory):
    """One fit, once with its rows in memory and once with rows that are too many for it."""
    file = tmp_path_factory.mktemp("rows") / "t.npy"
    np.save(file, TABLE)
    in_memory = fit(TABLE, steps=200)
    in_memory.save(file.with_suffix(".pt"), data=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vipack.training.streamed.MOST_WHOLE", 1_000)
        patch.setattr("vipack.posterior.blocked_posterior._BLOCK", 250)
        stored = vi.load(
            file.with_suffix(".pt"), model, AutoNormal, data=vi.stream(file, block_rows=10), engine="traced"
        )
        yield in_memory, stored


def test_answers_of_shared_latents_are_those_from_memory(two_fits):
    in_memory, stored = two_fits
    assert torch.equal(stored.sample(20)["w"], in_memory.sample(20)["w"])
    torch.testing.assert_close(stored.log_weights(20), in_memory.log_weights(20), rtol=1e-6, atol=1e-3)
    assert stored.elbo(20).value == pytest.approx(in_memory.elbo(20).value, rel=1e-6)
    torch.testing.assert_close(stored.sample(20, resample=True)["w"], in_memory.sample(20, resample=True)["w"])
    one, two = (vi.diagnostics.loo(each, num_draws=100) for each in (in_memory, stored))
    assert one.names == two.names
    np.testing.assert_allclose(one.elpds, two.elpds, atol=1e-4)
    judged = stored.diagnose(200)
    assert judged.khat == pytest.approx(in_memory.diagnose(200).khat, abs=1e-3)
    assert "short chains and other modes: their density: all 640 observations" in str(judged)


def test_predictions_of_new_rows_in_a_file(two_fits, tmp_path):
    in_memory, stored = two_fits
    np.save(tmp_path / "new.npy", TABLE[:20])
    new = vi.stream(tmp_path / "new.npy")
    assert new.nbytes < 1_000
    predicted = stored.predict(10, data=new)["y"]
    assert torch.equal(predicted, in_memory.predict(10, data=TABLE[:20])["y"])


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.predict(10),
        lambda fit: fit.to_arviz(10),
        lambda fit: fit.predict(10, data=fit._trainer.rows._data),
        lambda fit: fit.posterior.log_likelihood(fit.sample(2)),
    ],
)
def test_what_needs_all_rows_at_once_says_so(two_fits, ask):
    with pytest.raises(UsageError, match=r"all 640 (observations|rows of .*) are asked for at once"):
        ask(two_fits[1])


def amortised(x):
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ torch.ones(2, 3), 0.5).to_event(1), obs=x)


def encoder(x):
    weights = pyro.param("weights", lambda: 0.1 * torch.ones(3, 2))
    scale = pyro.param("scale", lambda: torch.tensor(0.5), constraint=dist.constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x @ weights, scale).to_event(1))


def test_observations_with_latents_of_their_own_are_gone_through_in_blocks(path, monkeypatch):
    options = {"batch_size": 48, "steps": 20, "engine": "eager", "progress": False}
    in_memory = vi.fit(amortised, encoder, data=TABLE, **options)
    monkeypatch.setattr("vipack.training.streamed.MOST_WHOLE", 1_000)
    stored = vi.fit(amortised, encoder, data=vi.stream(path, block_rows=10), **options)
    np.testing.assert_array_equal(stored.losses, in_memory.losses)
    np.testing.assert_allclose(stored.log_evidence(20).rows, in_memory.log_evidence(20).rows, rtol=1e-4)
    new = vi.stream(path)
    np.testing.assert_allclose(stored.elbo(20, data=new).rows, in_memory.elbo(20, data=TABLE).rows, rtol=1e-4)
    torch.testing.assert_close(stored.encode().mean, in_memory.encode().mean)
    with pytest.raises(UsageError, match=r"latent 'z' belongs to the observations.*fit\.encode\(\)"):
        stored.sample()


def test_several_starts(path):
    from_file, from_memory = (fit(data, steps=20, restarts=2) for data in (vi.stream(path), TABLE))
    np.testing.assert_allclose(from_file.restarts, from_memory.restarts, rtol=1e-5)


def test_a_transform_of_a_batch(path):
    noise = {"table": vi.transforms.Noise(0.1)}
    from_file, from_memory = (fit(data, transform=noise, steps=15) for data in (vi.stream(path), TABLE))
    np.testing.assert_allclose(from_file.losses, from_memory.losses, rtol=1e-5)
