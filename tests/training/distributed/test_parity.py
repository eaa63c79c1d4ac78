"""Two processes with batches of B rows take the steps of one process with batches of 2B, on the same random numbers."""

import warnings

import numpy as np
import pytest
import torch

import vipack as vi
from tests.training.distributed.conftest import RUNS, started
from tests.training.distributed.programs import BATCH, CASES, Joined, N, SameNoise
from tests.training.distributed.together import IN_SHARED_MEMORY
from vipack.training import trainer as trainer_module
from vipack.training.distributed.shards import shard_of
from vipack.training.training_batches import training_batches

MORE = (
    "every row:traced:float64",
    "hierarchical:traced:float64",
    "hierarchical:interpreted:float64",
    "mixture:interpreted:float64",
    "topics:interpreted:float64",
    "flow:interpreted:float64",
    "regression:interpreted:float32",
    "regression:compiled:float64",
    "vae:interpreted:float64",
    "vae:traced:float32",
    "topics:compiled:float64",
)
EVERY_RUN = [*RUNS, *(pytest.param(run, marks=pytest.mark.slow) for run in MORE)]


@pytest.fixture(scope="module")
def more_together(start, tmp_path_factory):
    return started(start, tmp_path_factory.mktemp("more"), MORE)


@pytest.fixture
def ranks(request, run):
    """What a run comes to, by rank."""
    both = request.getfixturevalue("together" if run in RUNS else "more_together")
    return [each[run] for each in both]


@pytest.fixture(scope="module")
def alone():
    """The losses of one process that sees the rows and the random numbers of both, by program and type."""
    known = {}

    def losses(program, dtype):
        if (program, dtype) not in known:
            known[program, dtype] = _fit_alone(CASES[program], dtype)
        return known[program, dtype]

    return losses


def _fit_alone(case, dtype):
    def joined(rows, batch_size, loss, seed, observe=None, *, shard=None):
        own = [training_batches(rows, None, loss, seed, shard=shard_of(r, 2, N, batch_size)) for r in (0, 1)]
        return Joined(rows.rows, own)

    with pytest.MonkeyPatch.context() as patch:
        if case.batch_size is not None:
            patch.setattr(trainer_module, "training_batches", joined)
        with SameNoise(BATCH, 2), warnings.catch_warnings():
            warnings.simplefilter("ignore", vi.errors.TrustWarning)  # after so few steps
            return vi.fit(case.model, case.guide, engine="eager", **case.options(getattr(torch, dtype)))


@pytest.mark.parametrize("run", EVERY_RUN)
def test_two_processes_take_the_steps_of_one(ranks, alone, run):
    program, tier, dtype = run.split(":")
    assert ranks[0]["engine"].startswith(tier), ranks[0]["engine"]
    single = alone(program, dtype)
    tolerance = 1e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(ranks[0]["losses"], single.losses, rtol=tolerance)
    for name, value in single.params.items():
        torch.testing.assert_close(ranks[0]["params"][name], value, rtol=100 * tolerance, atol=100 * tolerance)


@pytest.mark.parametrize("run", EVERY_RUN)
def test_gradients_are_added_up_in_shared_memory_where_they_are_many(ranks, run):
    shares = run.split(":")[0] in IN_SHARED_MEMORY
    for each in ranks:
        assert all(each["shared memory"])
        assert bool(each["shared memory"]) == shares


@pytest.mark.parametrize("run", EVERY_RUN)
def test_all_processes_have_the_same_fit(ranks, run):
    one, other = ranks
    assert one["engine"] == other["engine"]
    assert torch.equal(one["losses"], other["losses"])
    for kind in ("params", "draw"):
        assert one[kind].keys() == other[kind].keys()
        assert all(torch.equal(one[kind][name], other[kind][name]) for name in one[kind])


@pytest.mark.parametrize("tier", ["eager", "interpreted"])
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(together, tier):
    for each in together:
        runs = each["cut off"][tier]
        assert runs["cut off"].keys() == runs["undisturbed"].keys()
        assert all(torch.equal(runs["cut off"][name], value) for name, value in runs["undisturbed"].items())


def test_one_process_goes_on_with_the_file_of_two(together, together_folder):
    case = CASES["topics"]
    options = {**case.options(torch.float64), "steps": 80, "average": True, "engine": "eager"}
    path = together_folder / "eager-undisturbed.pt"
    alone = vi.fit(case.model, case.guide, checkpoint=path, distributed=True, **options)
    for name, value in together[0]["cut off"]["eager"]["undisturbed"].items():
        torch.testing.assert_close(alone.params[name], value, rtol=0, atol=0)
    loaded = vi.load(path, case.model, case.guide, data=case.data)
    assert loaded.steps == 80
    assert loaded.resume(steps=3).steps == 83


def test_each_process_draws_for_itself_unless_told_otherwise(together):
    own, same = (together[0]["shares"][name] for name in ("own", "same"))
    assert torch.equal(own, together[1]["shares"]["own"])
    assert not torch.equal(own, same)
