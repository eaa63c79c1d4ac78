"""A replayed function gives what it gives when it is run, for any number of draws."""

import pytest
import torch

from vipack.program.running.replay import Replay, captured


def one(draw):
    return {"sum": draw["x"].sum(), "pair": (draw["x"] * draw["y"], draw["y"].exp())}


@pytest.mark.parametrize("count", [1, 4, 6, 9])
def test_chunks_are_what_vmap_gives(count):
    draws = {"x": torch.randn(count, 3), "y": torch.randn(count)}
    parts = list(Replay(one, 4)(draws))
    expected = torch.vmap(one)(draws)
    assert [len(part["sum"]) for part in parts] == [4] * (count // 4) + [count % 4] * bool(count % 4)
    torch.testing.assert_close(torch.cat([part["sum"] for part in parts]), expected["sum"])
    for place in (0, 1):
        torch.testing.assert_close(torch.cat([part["pair"][place] for part in parts]), expected["pair"][place])


def test_the_function_is_run_once_and_draws_anew_each_time():
    calls = []

    def noisy(draw):
        calls.append(1)
        return draw["x"] + torch.randn(())

    first, second = Replay(noisy, 50)({"x": torch.zeros(100)})
    assert len(calls) == 1
    assert len(torch.cat([first, second]).unique()) == 100


def test_operations_that_nothing_needs_are_left_out():
    graph = captured(lambda x: (x.exp().sum(), x + 1)[1], torch.ones(2))
    assert not any("exp" in str(node.target) for node in graph.graph.nodes)


def test_a_number_that_the_example_decides_is_refused():
    with pytest.raises(RuntimeError, match="value out of a tracing tensor"):
        captured(lambda x: x * float(x.sum()), torch.ones(2))


def test_what_a_program_makes_of_numbers_keeps_its_type_where_the_default_type_is_another():
    def function(x):
        moved = torch.zeros(3).index_put((torch.tensor([1]),), x[:1])
        return (
            moved,
            torch.full((3,), 0.1),
            torch.arange(3.0),
            torch.eye(2),
            torch.rand(2),
            torch.zeros(2, dtype=torch.int64),
        )

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        graph = captured(function, torch.zeros(2))
    finally:
        torch.set_default_dtype(before)
    results = graph(torch.ones(2, dtype=torch.float64))
    assert [result.dtype for result in results] == [torch.float64] * 5 + [torch.int64]
    assert results[1][0] == 0.1
