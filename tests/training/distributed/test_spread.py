"""What processes share out has the answer that one process has, and rows in files are dealt out as those in memory."""

import numpy as np
import pytest
import torch

from tests.training.distributed.spread import SHARED, starts
from vipack.distributed.sharing import own_stretch, shared_out
from vipack.training.streamed import StreamedRows


class Several:
    """One of several processes, as far as dealing out goes."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


@pytest.mark.parametrize(("number", "size"), [(7, 3), (2, 4), (0, 2), (6, 1)])
def test_every_job_is_one_processs(number, size):
    stretches = [own_stretch(Several(rank, size), number) for rank in range(size)]
    assert [job for own in stretches for job in own] == list(range(number))
    assert max(map(len, stretches)) - min(map(len, stretches)) <= 1


def test_alone_all_jobs_are_this_processs():
    assert shared_out(None, [1, 2, 3], lambda jobs: [10 * job for job in jobs], "") == [10, 20, 30]


@pytest.mark.parametrize("what", ["calibration", "comparison"])
def test_answers_are_those_of_one_process(together, what):
    alone = SHARED[what](False)
    for each in together:
        shared = each["shared"][what]
        assert shared.keys() == alone.keys()
        for name, value in alone.items():
            assert torch.equal(shared[name], value) if isinstance(value, torch.Tensor) else shared[name] == value


def test_topics_learned_from_batches_of_both_are_those_of_joint_batches(together):
    alone = SHARED["topics"](False)
    for each in together:
        for name, value in alone.items():
            torch.testing.assert_close(each["shared"]["topics"][name], value, rtol=1e-4, atol=1e-4)
    first, second = (each["shared"]["topics"]["components"] for each in together)
    assert torch.equal(first, second)


def test_starts_are_shared_out_and_all_have_the_best(together):
    one, other = (each["starts"] for each in together)
    assert str(one) == str(other)
    assert one[3]["bounds"][:2] == starts(2, False)["bounds"]  # of process 0, which trains them as one process does
    assert len(one[3]["bounds"]) == 3
    for of_some in one.values():
        value, se = of_some["elbo"]
        assert value == pytest.approx(max(of_some["bounds"]), abs=6 * se)
        assert len(of_some["losses"]) == 45
    assert all(np.isfinite(one[2]["bounds"]))


def test_rows_from_a_file_are_dealt_out_as_those_in_memory(together):
    for each in together:
        params = each["from a file"]
        assert all(torch.equal(params["file"][name], value) for name, value in params["memory"].items())


def test_what_processes_do_not_have_alike_is_an_error_in_all(together):
    for each in together:
        assert "DataError: batches: process 1 has 1, and others have more" in each["said"]["fewer batches"]
        assert "not about the same comparison: the fits have different parameters" in each["said"]["other fits"]


@pytest.mark.parametrize(
    ("first", "count", "size"), [(0, 2_500, 100), (2_500, 2_500, 100), (100, 30, 30), (127, 65, 10)]
)
def test_a_stretch_of_a_file_gives_each_of_its_rows_once_an_epoch(tmp_path, first, count, size):
    from vipack import stream

    np.save(tmp_path / "x.npy", np.arange(5_000, dtype=np.float32)[:, None])
    source = stream(tmp_path / "x.npy", block_rows=64, window_rows=300)
    rows = StreamedRows(source, {}, torch.float32, torch.device("cpu"))
    batches = rows.stretch(first, count, size, torch.Generator().manual_seed(0))
    seen = []
    for _ in range(-(-count // size)):
        batch = next(batches)
        assert torch.equal(batch.args[0][:, 0].long(), batch.indices)
        seen += batch.indices.tolist()
    assert sorted(seen[:count]) == list(range(first, first + count))
