"""What is wrong in one process ends all of them, with one clear error each that says which it was."""

import os
import signal

import pytest

from tests.training.distributed.faults import FAULTS

# What process 0 and process 1 say.
SAID = {
    "other data": ("the data differ", "the data differ"),
    "other seed": ("the seeds differ (0 and 1)", "the seeds differ (0 and 1)"),
    "other steps": ("the numbers of steps differ (100 and 101)",) * 2,
    "fewer rows than processes": ("DataError: distributed: 1 rows cannot be dealt out to 2 processes",) * 2,
    "fewer rows in a batch": ("batch_size=1: the rows of one step over all 2 processes",) * 2,
    "no rows": ("the data have no rows",) * 2,
    "a model that branches on the rank": ("the model or the guide is another one there",) * 2,
    "a DataLoader": ("data is a DataLoader, which makes its own batches",) * 2,
    "no guide": ("climbs the ladder, in one process; pass a guide",) * 2,
    "restarts of other numbers": ("restarts differs (2 and 3)",) * 2,
    "a callback that raises": (
        "process 1 of 2 ended, and this one, 0, with it: ValueError: of the user",
        "of the user",
    ),
    "a callback that stops": ("20 steps, stopped by a callback",) * 2,
    "a disk that is full": ("run.pt: could not be written (the disk may be full",) * 2,
    "a file that is cut off": ("DataError: ",) * 2,
    "a file with NaN": ("row 45 is NaN",) * 2,
    "files of two schemas": ("DataError: ",) * 2,
    "interrupted": ("interrupted: Ctrl-C after",) * 2,
}


def lines(text):
    """What one process says of each fault, and the seconds that it took."""
    said = [line.split(" | ") for line in text.splitlines() if line.count(" | ") == 2]
    return {what: (answer, float(seconds)) for what, answer, seconds in said}


@pytest.fixture(scope="module")
def answers(start):
    processes = start("-m", "tests.training.distributed.faults", *FAULTS, "killed")
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, -signal.SIGKILL], "\n".join(outputs)
    return [lines(output) for output in outputs]


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_says_what_is_wrong(answers, what, rank):
    assert SAID[what][rank] in answers[rank][what][0]


def test_a_process_that_is_killed_is_named(answers):
    said, _ = answers[0]["killed"]
    assert said.startswith("ProcessError: process 1 of 2 ended without a word")


def test_a_disk_that_is_full_leaves_the_checkpoint_from_before(answers):
    assert answers[0]["checkpoint after it"][0] == "20 steps"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [("frozen", "process 1 of 2 has given no sign of life"), ("never done", "process 1 of 2 is alive")],
)
def test_a_process_that_hangs_is_named(start, what, said):
    first, second = start("-m", "tests.training.distributed.faults", what)
    output, _ = first.communicate(timeout=300)
    second.send_signal(signal.SIGKILL)
    answer, seconds = lines(output)[what]
    assert said in answer
    assert seconds < 30 + 10 * os.getloadavg()[0]


def test_half_an_environment_is_refused(monkeypatch):
    import vipack as vi
    from tests.training.distributed.faults import Y, model

    monkeypatch.setenv("RANK", "0")
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(vi.errors.UsageError, match="has RANK and no WORLD_SIZE, MASTER_ADDR, MASTER_PORT"):
        vi.fit(model, data=Y, steps=2, distributed=True)


@pytest.mark.parametrize("wrong", ["yes", 2, {"timeout": 3}])
def test_other_values_of_distributed_are_refused(wrong):
    import vipack as vi
    from tests.training.distributed.faults import Y, model

    with pytest.raises(vi.errors.UsageError, match="distributed: expected True or a vipack"):
        vi.fit(model, data=Y, steps=2, distributed=wrong)
