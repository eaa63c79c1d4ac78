"""The Python state that a program reads, which a graph would freeze, and whether it has changed.

A captured graph repeats the tensor operations of one run. A counter in the model, a number that a callback sets, an
iterator or a generator of random numbers goes on in Python, where the graph does not see it. So the variables that the
program's code names are compared with their values when the step was captured: globals, variables of enclosing functions,
attributes and class attributes, defaults, environment variables, and what all these hold, be it containers, arrays or
tables; numbers and tensors of the modules and distributions of torch and Pyro; modules' modes and hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vipack.compat.pytorch import is_fake, is_left_over_from_vmap, version_of
from vipack.engine.guards.execution import Execution
from vipack.engine.guards.reader import Reading, read_programs
from vipack.engine.guards.slots import MISSING, Slot, comparable, differs, generator_state, set_generator_state

__all__ = ["PythonState", "sharing_memory"]

_MOST_NUMBERS = 10_000_000  # of a tensor that is copied, to be put back


class PythonState:
    """What the code of some programs reads, as it stands now.

    Args:
        programs: and whatever else they are given that is no tensor.
        execution: of a run: only variables that its code names are compared. None: those that any of their code names.
        blind: whether runs cannot be recorded here, as under a profiler.
        apart: tensors that steps may change, such as parameters.
        copies: whether tensors are copied, so that :meth:`restore` can put them back.
    """

    def __init__(
        self,
        *programs: Any,
        execution: Execution | None = None,
        blind: bool = False,
        apart: Iterable[Tensor] = (),
        copies: bool = True,
    ) -> None:
        self._programs = programs
        self._copies = copies
        self._apart = {id(tensor): tensor for tensor in apart}
        self._execution = execution
        self._blind = blind
        self._frozen: list[Slot] = []
        self._generators: list[tuple[str, Any, Any]] = []
        self._tensors: list[tuple[str, Tensor, int, Tensor | None]] = []
        self._adopt(read_programs(programs, execution))

    @property
    def reason(self) -> str:
        """Why no graph can repeat runs of the programs; empty where one can."""
        if self._execution is not None and self._execution.reason:
            return self._execution.reason
        if self._reading.reason:
            return self._reading.reason
        if self._blind and self._reading.looks_up:
            return "the program looks variables up by name, and a profiler at work keeps from view which ones"
        for slot in self._slots:
            if slot.too_large and not slot.library:
                return (
                    f"the program reads {slot.name!r}, {slot.too_large}, which is more than can be compared between steps; "
                    "pass it in `data` or `fixed`, or as a tensor"
                )
        return ""

    @property
    def execution(self) -> Execution | None:
        """What is known of runs."""
        return self._execution

    @property
    def num_variables(self) -> int:
        """How many are compared at each look."""
        return len(self._slots)

    def tensors(self) -> list[Tensor]:
        """Those that the programs name."""
        return [tensor for _, tensor, _, _ in self._tensors]

    def extend(self, execution: Execution | None) -> bool:
        """Compare what the code of another run names, too, and nothing that no run has named.

        Returns:
            Whether there are variables now that were not compared before.
        """
        if execution is None:
            self._blind = self._blind or self._execution is None
            return False
        if self._execution is not None and self._execution.includes(execution):
            return False
        if self._execution is not None:
            execution = self._execution.joined(execution)
        self._execution = execution
        known = {slot.identity: slot for slot in self._slots}
        frozen = {slot.identity for slot in self._frozen}
        reading = read_programs(self._programs, execution)
        reading.slots = {identity: known.get(identity, slot) for identity, slot in reading.slots.items()}
        states = {id(generator): state for _, generator, state in self._generators}
        self._adopt(reading)
        self._generators = [(name, value, states.get(id(value), state)) for name, value, state in self._generators]
        self._frozen = [slot for slot in self._slots if slot.identity in frozen]
        return any(slot.identity not in known for slot in self._slots)

    def changed(self) -> str:
        """The name of a variable, other than a tensor, whose value has changed; empty if there is none."""
        for owner, key, value, slot in self._in_dicts:
            now = owner.get(key, MISSING)
            if now is not value and differs(now, value):
                return slot.name
        for slot in self._others if not any(self._empty) else self._slots:
            if not isinstance(slot.value, Tensor) and slot.changed():
                return slot.name
        for name, generator, state in self._generators:
            if comparable(generator_state(generator)) != comparable(state):
                return name
        return ""

    def outdated(self) -> str:
        """As :meth:`changed`, with the tensors that :meth:`hold` was given."""
        for slot in self._frozen:
            if slot.now() is not slot.value:
                return slot.name
        return self.changed()

    def changed_by_a_run(self) -> str:
        """As :meth:`changed`, where nothing but runs of the programs can have changed anything since.

        What libraries change of their own objects as they run, they restore themselves: it is no longer compared.
        """
        own = {id(slot) for slot in self._slots if slot.library and slot.changed()}
        if own:
            self._sort([slot for slot in self._slots if id(slot) not in own])
        return self.changed()

    def hold(self, constants: Iterable[Tensor]) -> str:
        """Take note of the tensors that a graph holds; the name of one that the program itself replaces or writes to."""
        marks = {mark for constant in constants for mark in _marks(constant)}
        written = {id(tensor) for _, tensor, version, _ in self._tensors if version_of(tensor) != version}
        self._frozen = []
        for slot in self._slots:
            if isinstance(slot.value, Tensor) and not marks.isdisjoint(_marks(slot.value)):
                if slot.now() is not slot.value or id(slot.value) in written:
                    return slot.name
                self._frozen.append(slot)
        return ""

    def begin(self) -> None:
        """Before a run: tensors that others have written to or replaced since are to be put back as they are now."""
        self._note_tensors(read_programs(self._programs, self._execution))
        frozen = {slot.identity for slot in self._frozen}
        for slot in self._slots:
            if slot.identity not in frozen and (isinstance(slot.value, Tensor) or isinstance(slot.now(), Tensor)):
                slot.renew()

    def restore(self) -> str:
        """Put back what a run has changed: variables, containers, tensors, random generators.

        Returns:
            The name of a tensor that was written to and is too large to have been copied; empty if there is none.
        """
        for slot in self._slots:
            if not slot.library:
                slot.restore()
        lost = ""
        for i, (name, tensor, version, copy) in enumerate(self._tensors):
            if version_of(tensor) == version:
                continue
            if copy is None:
                lost = lost or name
                continue
            with torch.no_grad():
                _once(tensor).copy_(_once(copy, tensor))
            self._tensors[i] = name, tensor, version_of(tensor), copy
        for _, generator, state in self._generators:
            set_generator_state(generator, state)
        return lost

    def _adopt(self, reading: Reading) -> None:
        self._reading = reading
        self._generators = [(name, value, generator_state(value)) for name, value in reading.generators]
        self._note_tensors(reading)
        self._sort(list(reading.slots.values()))

    def _note_tensors(self, reading: Reading) -> None:
        most = _MOST_NUMBERS if self._copies else -1
        self._tensors = [
            (name, value, version_of(value), value.detach().clone() if value.numel() <= most else None)
            for name, value in reading.tensors.values()
            if id(value) not in self._apart and not is_left_over_from_vmap(value)
        ]

    def _sort(self, slots: list[Slot]) -> None:
        self._slots: list[Slot] = slots
        # Looked at between steps: by far the most are entries of dicts, for which no method need be called, and of those
        # that hold containers the most are empty, as a module's hooks.
        watched = [slot for slot in slots if not isinstance(slot.value, Tensor)]
        self._in_dicts = [(slot.owner, slot.key, slot.value, slot) for slot in watched if slot.in_dict]
        self._empty = [slot.value for slot in watched if slot.in_dict and slot.is_empty]
        self._others = [slot for slot in watched if not (slot.in_dict and (slot.contents is None or slot.is_empty))]


def sharing_memory(parameters: Mapping[str, Tensor], others: Iterable[Tensor]) -> str:
    """The name of a parameter in whose memory another parameter or one of the other tensors lies; empty if there is none."""
    stretches = [(*_stretch(value), name) for name, value in parameters.items() if _has_memory(value)]
    stretches += [(*_stretch(value), "") for value in others if _has_memory(value)]
    furthest = furthest_parameter = ("", 0)  # device and end of what was met so far
    last = ""
    for device, start, end, name in sorted(stretches):
        if (device, start) < (furthest if name else furthest_parameter):
            return name or last
        furthest = max(furthest, (device, end))
        if name and (device, end) > furthest_parameter:
            furthest_parameter, last = (device, end), name
    return ""


def _has_memory(tensor: Tensor) -> bool:
    strided = tensor.layout is torch.strided and not is_fake(tensor)
    return strided and tensor.numel() > 0 and not is_left_over_from_vmap(tensor)


def _stretch(tensor: Tensor) -> tuple[str, int, int]:
    """Device, first byte and end of the memory that the elements lie in."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return str(tensor.device), start, start + (last + 1) * tensor.itemsize


def _marks(tensor: Tensor) -> set[tuple[str, int]]:
    """By which a graph's constant is known again: torch may have wrapped it anew."""
    marks = {("id", id(tensor))}
    if tensor.layout is torch.strided and tensor.numel() and not is_left_over_from_vmap(tensor):
        marks.add(("memory", tensor.data_ptr()))
    return marks


def _once(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """A view in which no element occurs twice, as it does along dimensions that `like` was expanded over."""
    for d, stride in enumerate((tensor if like is None else like).stride()):
        if stride == 0:
            tensor = tensor.narrow(d, 0, min(1, tensor.shape[d]))
    return tensor
