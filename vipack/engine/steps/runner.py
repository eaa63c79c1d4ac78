"""Steps on batches of one shape: as a captured graph, and as a compiled loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vipack.compat.pytorch import version_of
from vipack.engine.capture.capture import Graph, tensors_of
from vipack.engine.capture.noise import Draw, lift_draws
from vipack.engine.compiled import compiler
from vipack.engine.compiled.bound_step import NativeStep
from vipack.engine.compiled.called import CalledStep, load_artifact
from vipack.engine.compiled.compiler import Request
from vipack.engine.graph.step_graph import StepGraph
from vipack.engine.guards.tensors import TensorContents, copy_if_changed
from vipack.engine.interpreter.bound_program import InterpretedStep, kernels_of
from vipack.engine.interpreter.source import KERNELS
from vipack.engine.interpreter.translate import translate
from vipack.engine.native.cache_entries import read_entry
from vipack.engine.native.operations import LoopSpec
from vipack.engine.steps.contracts import Batches, StepMemory
from vipack.engine.steps.feeding import feeding_of
from vipack.engine.steps.training_step import assemble
from vipack.program import Parameters

__all__ = ["GraphRunner", "NativeSteps"]

NativeSteps = InterpretedStep | NativeStep | CalledStep | None
_NOTHING: Any = None  # a stream of batches where none is asked
_FED_AT_ONCE = 64_000_000  # bytes of inputs that change from step to step, laid out before a call of the loop


class GraphRunner:
    """A captured step on batches of one shape, over the memory that all tiers share.

    Attributes:
        live: whether every step may come with other tensors, as calls of ``SVI.step`` do; see :meth:`take`. A step in which
            Pyro would have raised then leaves everything as it was, and :attr:`well` says so.
        keeping: whether such a step leaves everything as it was in any case.
        own: for fits side by side, arrays of which each fit has its own: index -> ``(R, *shape)``.
        native: the step in the interpreter or as a compiled loop, once there is one.
        note: what is to be known of it.
    """

    def __init__(
        self,
        graph: Graph,
        memory: StepMemory,
        parameters: Parameters,
        batches: Batches,
        *,
        live: bool = False,
        keeping: bool = False,
        own: Mapping[int, Tensor] | None = None,
    ) -> None:
        started = time.perf_counter()
        self._memory, self._copies, self._live = memory, memory.copies, live
        self._dtype, self.device = parameters.dtype, parameters.device
        self._feeding = feeding_of(graph, batches, own or {}, live=live)
        self._feed, self._fed, self._numbers = self._feeding.feed, self._feeding.fed, self._feeding.numbers
        lifted = lift_draws(self._feeding.graph)
        lifted = lifted if memory.copies is None else lifted.together()
        self._one = np.empty(1)
        self._buffers = memory.buffers()
        self.step: StepGraph = assemble(lifted, memory, self._feed, parameters, keeping=live or keeping)
        lead = () if self._copies is None else (self._copies,)
        self._well = [torch.ones(lead, dtype=self._dtype, device=self.device)] if self.step.checked else []
        # Tensors that steps read, and those that they are copied from where they are not the same.
        self._given, self._arrays = list(self._feed.arrays), [self._own(v, copy=live) for v in self._feed.arrays]
        self._given_constants = self.step.own_constants
        self._constants = [self._own(value, copy=False) for value in self._given_constants]
        self._versions = [version_of(value) for value in (*self._given_constants, *self._given)]
        needed = zip((*self._given_constants, *(() if live else self._given)), self.step.needed, strict=False)
        self._contents = TensorContents([value for value, is_needed in needed if is_needed])
        self.draws = lifted.draws
        self.random_inside = lifted.random_inside
        self.seconds = graph.seconds + time.perf_counter() - started
        self.native: NativeSteps = None
        self._interpreted: InterpretedStep | None = None  # once it has been bound
        self._tier = ""  # of it
        self.note = ""
        self.request: Request | None = None
        self._spec = self._loop_spec()

    # --- traced

    def traced(self, batches: Batches, number: int) -> np.ndarray:
        """Take `number` steps, operation by operation; their losses. Stops after one that is not finite."""
        self._look_at_versions()
        losses = self._empty(number)
        coefficients = torch.from_numpy(self._memory.coefficients(number)).to(self.device, self._dtype)
        apart: list[Tensor] = []  # losses that a GPU still works on
        for k in range(number):
            draws = [self._drawn(draw) for draw in self.draws]
            arrays, indices = self._batch(batches)
            inputs = self._inputs(draws, coefficients[k], arrays, indices)
            with torch.no_grad():
                loss = self.step.module(*inputs)[0]
            if self.device.type != "cpu":
                apart.append(loss)
                continue
            losses[k] = loss.numpy()
            if self._copies is None and not math.isfinite(losses[k]):
                return losses[: k + 1]
        if apart:
            losses[:] = torch.stack(apart).cpu().numpy()
            if self._copies is None and not np.isfinite(losses).all():
                return losses[: 1 + int(np.flatnonzero(~np.isfinite(losses))[0])]
        return losses

    def expected(self, batches: Batches, number: int) -> np.ndarray:
        """What :meth:`traced` gives; of several fits one by one, where they would have to be traced together first."""
        if self.step.traced or self.random_inside:
            return self.traced(batches, number)
        losses = self._empty(number)
        coefficients = torch.from_numpy(self._memory.coefficients(number)).to(self.device, self._dtype)
        for k in range(number):
            draws = [self._drawn(draw) for draw in self.draws]
            arrays, indices = self._batch(batches)
            inputs = self._inputs(draws, coefficients[k], arrays, indices)
            with torch.no_grad():
                for copy in range(losses.shape[1]):
                    own = [v[copy] if apart else v for v, apart in zip(inputs, self.step.own, strict=True)]
                    losses[k, copy] = float(self.step.single(*own)[0])
        return losses

    def take(self, arrays: Sequence[Tensor]) -> None:
        """Let the next steps work on these tensors, of the shapes that the graph was captured with."""
        self._given = list(arrays)
        self.refresh()

    def refresh(self) -> None:
        """Read data and constants again, however they have been written to since the last look."""
        self._look_at_data(by_version=False)

    @property
    def valid(self) -> bool:
        """Whether the data are such that Pyro would raise nothing, as far as that depends on them alone."""
        return self.step.valid

    @property
    def well(self) -> bool:
        """Whether Pyro would have raised nothing in the last step."""
        return all(bool(flag.all()) for flag in self._well)

    # --- native

    @property
    def sparse(self) -> str:
        """Why steps get CSR tensors, which native code does not take; empty where they get none."""
        return self._feeding.sparse

    @property
    def dtype(self) -> torch.dtype:
        """Of parameters and losses."""
        return self._dtype

    @property
    def native_tier(self) -> str:
        """The tier in which steps are taken now."""
        if self.native is None:
            return "traced"
        return self._tier

    def interpret(self, folder: Path) -> None:
        """Write the step as a program and bind it to memory.

        Args:
            folder: of the compiled interpreter.

        Raises:
            NotUnderstood: there is something in the graph that neither a kernel nor torch's library does.
            NativeError: a file does not load.
        """
        if self._interpreted is None:
            kernels = folder / KERNELS
            program = translate(self.step.module, kernels_of(kernels))
            inputs = self._native_inputs()
            self._interpreted = InterpretedStep(program, kernels, compiler.bridge(), self._spec, inputs)
        self.native, self._tier = self._interpreted, "interpreted"

    def go_back(self, native: NativeSteps, tier: str) -> None:
        """Take the next steps as before another tier was tried.

        Args:
            native, tier: what :attr:`native` and :attr:`native_tier` were.
        """
        self.native, self._tier, self.note = native, tier, ""

    def replay(self) -> None:
        """What :meth:`interpret` is on a GPU: the graph's operations, recorded once and replayed."""
        self.native = CalledStep(self.step.module, self._spec, self._native_inputs())
        self.note, self._tier = self.native.note, "interpreted"

    def prepare(self, num_threads: int) -> Path | None:
        """What there is to compile; the folder of the result if the cache has it."""
        if self.request is None:
            self.request = compiler.request(self.step, self._spec, num_threads)
        return compiler.cached(self.request)

    def load(self, folder: Path) -> None:
        """Bind the compiled loop to memory.

        Raises:
            NativeError: it does not load.
        """
        inputs = self._native_inputs()
        no_loop = read_entry(folder).get("no_loop")
        self.note = ""
        if no_loop is None:
            self.native = NativeStep(folder, compiler.bridge(), inputs)
        else:
            self.native = CalledStep(load_artifact(folder), self._spec, inputs)
            self.note = self.native.note or (f"called a step at a time: {no_loop}" if no_loop else "")
        self._tier = "compiled"

    def _native_inputs(self) -> list[Tensor]:
        """The step's inputs, in memory of their own where they change from step to step."""
        draws = [v.clone() for v in self.step.examples[: self.step.num_draws]]
        coefficients = torch.zeros(self.step.num_coefficients, dtype=self._dtype, device=self.device)
        arrays = [v.clone() if i in self._fed else v for i, v in enumerate(self._arrays)]
        indices = None if self._feed.indices is None else self._feed.indices.clone()
        return [v.contiguous() for v in self._inputs(draws, coefficients, arrays, indices)]

    def native_steps(self, batches: Batches, number: int) -> np.ndarray:
        """Take `number` steps in C++; their losses. Stops after one that is not finite.

        Raises:
            NativeError: an operator of torch's raised.
        """
        assert self.native is not None
        self._look_at_versions()
        losses = self._empty(number)
        done = 0
        while done < number:
            some = min(number - done, self._at_once())
            feeds = self._feeds(batches, some)
            count = self.native(feeds, losses[done : done + some])
            done += count
            if self._copies is None and (count < some or not math.isfinite(losses[done - 1])):
                return losses[:done]
        return losses

    def once(self) -> float:
        """One step of the loop on the tensors of the step before, with as little around it as there can be."""
        assert self.native is not None
        self.native(self._feeds(_NOTHING, 1), self._one)
        loss = float(self._one[0])
        if self._memory.one_by_one and (math.isfinite(loss) or self.well):
            self._memory.finish(loss)
        return loss

    def mark(self) -> tuple[Any, ...]:
        """Where counts and rates stand before a step; see :meth:`undo`."""
        return self._memory.mark()

    def undo(self, mark: tuple[Any, ...]) -> None:
        """Take back what a step moves on that left everything else as it was."""
        self._memory.undo(mark)

    def finish(self, loss: float) -> None:
        """What remains of a step with this loss, where steps are taken one by one."""
        self._memory.finish(loss)

    def _loop_spec(self) -> LoopSpec:
        """Which inputs the loop fills itself, and which it is fed."""
        step, draws = self.step, range(self.step.num_draws)
        memory = [*self._memory.values, *self._memory.states, *self._buffers, *self._well]
        coefficients = len(draws) + len(memory)
        first_array = coefficients + 1 + len(step.constants)
        arrays = [first_array + i for i in self._fed]
        indices = [] if self._feed.indices is None else [first_array + len(self._feed.arrays)]
        normal = all(draw.standard_normal for draw in self.draws)
        fed = [coefficients, *([] if normal else draws), *arrays, *indices]
        return LoopSpec(tuple(draws) if normal else (), tuple(fed), self._copies)

    def _feeds(self, batches: Batches, number: int) -> list[Tensor]:
        """Contents of the fed inputs for the next `number` steps, in the order of the driver's specification."""
        memory, dtype = self._memory, self._dtype
        feeds = [
            memory.next_coefficients(dtype) if number == 1 else torch.from_numpy(memory.coefficients(number)).to(dtype)
        ]
        if not self._spec.normals and self.draws:
            drawn = [[self._drawn(draw) for draw in self.draws] for _ in range(number)]
            feeds += [_stacked([one[i] for one in drawn]) for i in range(len(self.draws))]
        if self._fed and not self._numbers:
            several = [self._batch(batches) for _ in range(number)]
            feeds += [_stacked([arrays[i] for arrays, _ in several]) for i in self._fed]
            if self._feed.indices is not None:
                feeds.append(_stacked([indices for _, indices in several if indices is not None]))
        else:
            feeds += self._scheduled(batches, number)
            indices = None if batches is _NOTHING else batches.indices(number)
            if indices is not None:
                feeds.append(indices.contiguous())
        return feeds

    def _at_once(self) -> int:
        size = 8 * max(1, self.step.num_coefficients)
        size += sum(self._feed.arrays[i].nbytes for i in self._fed)
        size += 0 if self._spec.normals else sum(v.nbytes for v in self.step.examples[: self.step.num_draws])
        size += 0 if self._feed.indices is None else self._feed.indices.nbytes
        return max(1, _FED_AT_ONCE // size)

    # --- both

    def _own(self, value: Tensor, *, copy: bool) -> Tensor:
        """A tensor as steps read it: itself, unless its memory may not be read as it lies."""
        if value.layout != torch.strided or (value.is_contiguous() and not copy):
            return value
        return value.detach().clone(memory_format=torch.contiguous_format)

    def _look_at_versions(self) -> None:
        if not self._live:  # else there was a look when they came, and nobody can have written to them since
            self._look_at_data(by_version=True)

    def _look_at_data(self, *, by_version: bool) -> None:
        """Read the data, and tensors that the program holds, again where they have been written to since the last look.

        Args:
            by_version: where torch has taken note of it.
        """
        changed = self._contents.changed(by_version=by_version)
        own = (*self._constants, *self._arrays)
        for index, (copy, given) in enumerate(zip(own, (*self._given_constants, *self._given), strict=True)):
            if given.layout != torch.strided and not by_version and index >= len(self._constants):
                self._arrays[index - len(self._constants)] = given  # passed on as it is
                changed = True
            elif copy is not given and not (by_version and version_of(given) == self._versions[index]):
                self._versions[index] = version_of(given)
                changed = copy_if_changed(copy, given) or changed
        if changed:
            self.step.renew(self._arrays)

    def _empty(self, number: int) -> np.ndarray:
        return np.empty(number if self._copies is None else (number, self._copies))

    def _drawn(self, draw: Draw) -> Tensor:
        if self._copies is None:
            return draw()
        if draw.standard_normal:
            return torch.empty((self._copies, *draw.shape), dtype=draw.dtype, device=self.device).normal_()
        return torch.stack([draw() for _ in range(self._copies)])

    def _batch(self, batches: Batches) -> tuple[list[Tensor], Tensor | None]:
        """The data's tensors as the step wants them, and the rows of the next batch."""
        if self._fed and not self._numbers:
            arrays, _ = tensors_of(next(batches))
            return arrays[:-1], arrays[-1]
        given = {i: v[0] for i, v in zip(self._fed, self._scheduled(batches, 1), strict=True)}
        indices = batches.indices(1)
        arrays = [given.get(i, array) for i, array in enumerate(self._arrays)] if given else self._arrays
        return arrays, None if indices is None else indices[0].to(self.device)

    def _scheduled(self, batches: Batches, number: int) -> list[Tensor]:
        """The fed arrays that are numbers of the next steps, ``(number,)`` each."""
        if not self._numbers:
            return []
        columns = batches.scheduled(number)
        if columns is None:
            arrays = self._feeding.arrays(batches.peek())
            return [arrays[i].expand(number).contiguous() for i in self._fed]
        return [columns[k] for k in self._numbers]

    def _inputs(
        self, draws: Sequence[Tensor], coefficients: Tensor, arrays: Sequence[Tensor], indices: Tensor | None
    ) -> list[Tensor]:
        memory = self._memory
        kept = [*memory.values, *memory.states, *self._buffers, *self._well]
        constants = [*self._constants, *self.step.constants[len(self._constants) :]]
        inputs = [*draws, *kept, coefficients, *constants, *arrays]
        return inputs if indices is None else [*inputs, indices]


def _stacked(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).contiguous()
