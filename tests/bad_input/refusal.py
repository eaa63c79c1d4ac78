"""What a refusal is: one error of vipack's, with the words that help, before any step, leaving nothing behind."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pytest
import torch

import vipack as vi
from vipack.engine.eager import EagerStep
from vipack.errors import VipackError

CHECKED = set(inspect.signature(vi.check).parameters)


@dataclass(frozen=True)
class Case:
    """One bad input: the error that it must meet, words of the message (what is wrong, and the cure), and the call.

    Attributes:
        options: makes the arguments of ``vi.fit``.
        preflight: whether ``vi.check`` must find it too; by default whenever it takes the same arguments.
    """

    name: str
    error: type[VipackError]
    words: tuple[str, ...]
    options: Callable[[], dict[str, Any]]
    preflight: bool = True

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def assert_fit_is_refused(case: Case, monkeypatch: Any, capfd: Any) -> None:
    steps = count_steps(monkeypatch)
    message = assert_refused(case.error, case.words, lambda: vi.fit(**{"steps": 3, **case.options()}), capfd)
    assert steps == [], f"took {len(steps)} step(s) before it said: {message}"
    options = case.options()
    if case.preflight and set(options) <= CHECKED:
        found = vi.check(**options)
        assert not found.ok, f"vi.check found nothing:\n{found}"
        assert type(found.errors[0]) is case.error
        with pytest.raises(case.error):
            found.raise_if_bad()


def assert_refused(error: type[VipackError], words: tuple[str, ...], call: Callable[[], Any], capfd: Any) -> str:
    """`call` raises exactly `error`, in these words, prints and warns nothing, and leaves the process as it was."""
    pyro.clear_param_store()
    mine = pyro.param("mine", torch.tensor(3.0))
    before = (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(VipackError) as caught:
            call()
    message = str(caught.value)
    assert type(caught.value) is error, f"{type(caught.value).__name__}: {message}"
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    assert [str(w.message) for w in said] == []
    assert capfd.readouterr() == ("", "")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_default_dtype(), torch.get_num_threads())
    assert dict(pyro.get_param_store().items()) == {"mine": mine}
    assert mine.item() == 3.0
    pyro.clear_param_store()
    return message


def count_steps(monkeypatch: Any) -> list[float]:
    """The losses of the steps that are taken from now on."""
    taken: list[float] = []
    original = EagerStep.__call__

    def counting(self: EagerStep, arguments: Any) -> float:
        loss = original(self, arguments)
        taken.append(loss)
        return loss

    monkeypatch.setattr(EagerStep, "__call__", counting)
    return taken
