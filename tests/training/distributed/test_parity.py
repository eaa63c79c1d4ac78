"""Two processes with batches of B rows take the steps of one process with batches of 2B, on the same random numbers."""

import numpy as np
import pytest
import torch

import vipack as vi
from tests.training.distributed.programs import BATCH, CASES, N, Joined, SameNoise
from vipack.training import trainer as trainer_module
from vipack.training.distributed.shards import shard_of
from vipack.training.training_batches import training_batches

TIERS = {
    "regression": ("eager", "interpreted"),
    "every row": ("traced",),
    "hierarchical": ("traced", "interpreted"),
    "mixture": ("interpreted",),
    "vae": ("eager", "interpreted"),
    "topics": ("traced", "interpreted"),
    "flow": ("interpreted",),
}
RUNS = [
    *(f"{name}:{tier}:float64" for name, tiers in TIERS.items() for tier in tiers),
    "regression:interpreted:float32",
    "vae:traced:float32",
]


@pytest.fixture(scope="module")
def together(start, tmp_path_factory):
    """What two processes come to, run by run, by rank."""
    folder = tmp_path_factory.mktemp("together")
    processes = start("-m", "tests.training.distributed.together", str(folder), *RUNS)
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


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
    def joined(rows, batch_size, loss, seed, shard=None):
        own = [training_batches(rows, None, loss, seed, shard_of(r, 2, N, batch_size)) for r in (0, 1)]
        return Joined(rows.rows, own)

    with pytest.MonkeyPatch.context() as patch:
        if case.batch_size is not None:
            patch.setattr(trainer_module, "training_batches", joined)
        with SameNoise(BATCH, 2):
            return vi.fit(case.model, case.guide, engine="eager", **case.options(getattr(torch, dtype)))


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_take_the_steps_of_one(together, alone, run):
    program, tier, dtype = run.split(":")
    assert together[0][run]["engine"].startswith(tier), together[0][run]["engine"]
    single = alone(program, dtype)
    tolerance = 1e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(together[0][run]["losses"], single.losses, rtol=tolerance)
    for name, value in single.params.items():
        torch.testing.assert_close(together[0][run]["params"][name], value, rtol=100 * tolerance, atol=100 * tolerance)


@pytest.mark.parametrize("run", RUNS)
def test_all_processes_have_the_same_fit(together, run):
    one, other = (each[run] for each in together)
    assert one["engine"] == other["engine"]
    assert torch.equal(one["losses"], other["losses"])
    for kind in ("params", "draw"):
        assert one[kind].keys() == other[kind].keys()
        assert all(torch.equal(one[kind][name], other[kind][name]) for name in one[kind])


