"""A fit's random numbers are its own: torch's, NumPy's and Python's, whatever the process has drawn."""

import random

import numpy as np
import pyro
import pytest
import torch

from vipack.program import RandomState, seeded


def draw():
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()  # noqa: NPY002


def process_state():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002


def test_a_seed_starts_pyros_stream_and_gives_the_process_its_own_back():
    before = process_state()
    with seeded(5):
        found = draw()
    assert process_state() == before
    with seeded(0):
        pyro.set_rng_seed(5)
        assert draw() == found


@pytest.mark.skipif(torch.accelerator.is_available(), reason="its generator has to be told")
def test_a_seed_leaves_nothing_behind_for_devices_that_are_not_there():
    """Torch keeps each for every kind of device, with the text of the whole stack."""
    kept = len(torch.cuda._queued_calls)
    with seeded(5):
        assert len(torch.cuda._queued_calls) == kept


def test_the_process_gets_its_own_back_after_an_error():
    before = process_state()
    try:
        with seeded(5):
            draw()
            raise KeyError
    except KeyError:
        pass
    assert process_state() == before


def test_a_stream_goes_on_from_block_to_block():
    stream = RandomState.from_seed(1)
    with seeded(1):
        expected = [draw() for _ in range(4)]
    found = []
    for _ in range(4):
        with stream.active():
            found.append(draw())
        draw()  # the process's own, between
    assert found == expected


def test_a_stream_goes_on_from_its_state(tmp_path):
    stream = RandomState.from_seed(2)
    with stream.active():
        draw(), np.random.randn(), random.gauss(0, 1)  # noqa: NPY002  (leaves half of a pair of normals behind)
    torch.save(stream.state(), tmp_path / "state")
    again = RandomState.from_state(torch.load(tmp_path / "state", weights_only=True))
    with stream.active():
        expected = draw(), np.random.randn(), random.gauss(0, 1)  # noqa: NPY002
    with again.active():
        assert (draw(), np.random.randn(), random.gauss(0, 1)) == expected  # noqa: NPY002


def test_streams_do_not_touch_each_other():
    one, two = RandomState.from_seed(3), RandomState.from_seed(4)
    found = {"one": [], "two": []}
    for _ in range(3):
        for name, stream in (("one", one), ("two", two)):
            with stream.active():
                found[name].append(draw())
    for name, seed in (("one", 3), ("two", 4)):
        with seeded(seed):
            assert found[name] == [draw() for _ in range(3)]
