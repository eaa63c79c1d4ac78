"""Rows are dealt out whole, evenly and without bias."""

import pytest
import torch

from vipack.errors import DataError, UsageError
from vipack.training.distributed.shards import seed_of, shard_of
from vipack.training.streams import ShuffledStream


@pytest.mark.parametrize(("num_rows", "size", "batch_size"), [(7, 3, 3), (10, 4, 6), (8, 8, None), (1_001, 7, 100)])
def test_every_row_belongs_to_one_process(num_rows, size, batch_size):
    shards = [shard_of(rank, size, num_rows, batch_size) for rank in range(size)]
    rows = [row for shard in shards for row in range(shard.first, shard.first + shard.num_rows)]
    assert rows == list(range(num_rows))
    assert max(s.num_rows for s in shards) - min(s.num_rows for s in shards) <= 1
    assert sum(shard.batch_size for shard in shards) == (batch_size or num_rows)
    assert all(1 <= shard.batch_size <= shard.num_rows for shard in shards)


@pytest.mark.parametrize(("num_rows", "size", "batch_size"), [(7, 3, 5), (10, 4, 6), (1_001, 7, 100)])
def test_every_row_counts_once_on_average_however_uneven_the_shards(num_rows, size, batch_size):
    shards = [shard_of(rank, size, num_rows, batch_size) for rank in range(size)]
    for shard in shards:
        scale, probability = num_rows / shard.batch_size, shard.batch_size / shard.num_rows
        assert shard.weight * scale * probability == pytest.approx(1.0, rel=1e-12)
    assert sum(shard.weight for shard in shards) == pytest.approx(1.0, rel=1e-12)  # of what all rows share


def test_a_process_sees_each_of_its_rows_once_an_epoch():
    shard = shard_of(1, 2, 21, 10)
    generator = torch.Generator().manual_seed(0)
    stream = ShuffledStream(lambda rows: rows, None, shard.num_rows, shard.batch_size, generator, shard.first)
    first = torch.cat([next(stream) for _ in range(2)])
    assert sorted(first.tolist()) == list(range(11, 21))
    assert sorted(stream.indices(2).reshape(-1).tolist()) == list(range(11, 21))


def test_what_cannot_be_dealt_out_is_refused():
    with pytest.raises(DataError, match="3 rows cannot be dealt out to 4 processes; start at most 3"):
        shard_of(0, 4, 3, None)
    with pytest.raises(DataError, match="the data have no rows"):
        shard_of(0, 2, None, None)
    with pytest.raises(UsageError, match=r"batch_size=3.*pass at least 4"):
        shard_of(0, 4, 100, 3)


def test_processes_have_seeds_of_their_own():
    assert seed_of(5, 0) == 5
    assert len({seed_of(seed, rank) for seed in range(20) for rank in range(20)}) == 400
