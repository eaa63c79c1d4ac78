"""Moving a captured step up: into the interpreter at once, and into a compiled loop when the rest of the run pays for it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from vipack.engine.compiled import compiler
from vipack.engine.compiled.compiler import Build
from vipack.engine.interpreter.layout import NotUnderstood
from vipack.engine.native.bridge import NativeError
from vipack.engine.steps.contracts import Batches
from vipack.engine.steps.parity import Trial, difference, perturb
from vipack.engine.steps.runner import GraphRunner, NativeSteps
from vipack.engine.steps.snapshots import Names, Snapshot
from vipack.errors import EngineWarning, warn
from vipack.types import EngineReport

__all__ = ["Promotion", "measured_difference"]

_COMPILE_SHARE = 0.7  # of the predicted time to compile, that the rest of the run must still take
_SLOW_SECONDS = 0.25  # that a step takes, of which few are taken on trial
_TIMINGS = 5  # trials by which the interpreter is compared with the graph where the first one spoke for the graph
_LONGEST_PAUSE = 64  # steps between trials that say nothing, as of batches on which the program takes another branch


class Restorable(Protocol):
    """Memory whose state before trial steps can be restored."""

    @property
    def values(self) -> list[torch.Tensor]:
        """The vectors of parameters."""
        ...

    @property
    def pieces(self) -> Names:
        """What stands where in its vectors."""
        ...

    @property
    def one_by_one(self) -> bool:
        """Whether something must be done in Python after every step."""
        ...

    def snapshot(self) -> Snapshot:
        """Copies of everything that a step changes, the generator included."""
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot."""
        ...


class Promotion:
    """What has been tried to make one captured step faster.

    Attributes:
        seconds: that a step takes as it runs now.
        refused: tiers that are not to be tried again.
    """

    def __init__(self, runner: GraphRunner, memory: Restorable, tier: str, report: EngineReport) -> None:
        self._runner = runner
        self._memory = memory
        self._tier = tier
        self._report = report
        self._build: Build | None = None
        nodes = runner.step.single.graph.nodes
        self._scans = any(str(node.target).startswith("vipack.scan") for node in nodes)
        self._pause = 0  # steps to come without a trial
        self._next_pause = 1
        self.seconds = 0.0
        self.refused: set[str] = set()

    def __call__(self, again: Batches, remaining: int) -> None:
        """Move up as far as can be done now and pays.

        Args:
            again: one batch, over and over, to compare tiers on.
            remaining: steps to come.
        """
        if self._pause:
            self._pause -= 1
            return
        if any(value.layout != torch.strided for value in self._runner.step.examples):
            why = self._runner.sparse or "the program holds a sparse tensor itself"
            for tier in {"interpreted", "compiled"} - self.refused:
                self._refuse(tier, f"the data are sparse, and native code takes no such tensor: {why}")
            return
        if self._scans and "compiled" not in self.refused:
            self.refused.add("compiled")
            if self._tier == "compiled":
                self._report.reason = "interpreted: a scan over time runs in the interpreter"
        compiled = self._tier in ("auto", "compiled") and "compiled" not in self.refused
        if compiled and self._build is None and self._load_cached(again):
            self.refused.add("interpreted")  # there is something better
        interpreted = self._tier in ("auto", "interpreted") or self._scans
        if interpreted and "interpreted" not in self.refused:
            self._interpret(again, remaining)
        if self._tier in ("auto", "compiled") and "compiled" not in self.refused:
            self._compile(again, remaining)

    def fail(self, reason: str) -> None:
        """The tier that runs now has failed: go on with the graph."""
        tier = self._runner.native_tier
        self._runner.native = None
        self._refuse(tier, reason)

    def stop(self) -> None:
        """Compile nothing more for now."""
        if self._build is not None and self._build.folder is None and not self._build.reason:
            self._build.stop()
            self._build = None

    def _pays(self, predicted: float, remaining: int) -> bool:
        return self._tier != "auto" or remaining * self.seconds > _COMPILE_SHARE * predicted > 0

    # --- the interpreter

    def _interpret(self, again: Batches, remaining: int) -> None:
        if self._runner.device.type != "cpu":
            self.refused.add("interpreted")
            self._runner.replay()
            if self._try_out("interpreted", again, (None, "traced")) and self._runner.note:
                self._report.reason = f"interpreted: {self._runner.note}"
            return
        folder = compiler.cached(compiler.interpreter())
        if folder is None:
            predicted = compiler.INTERPRETER_SECONDS
            first = predicted < compiler.predicted_seconds(len(self._runner.step.single.graph.nodes))
            if self._tier == "auto" and not (first and self._pays(predicted, remaining)):
                return
            build = compiler.start_interpreter()
            if not build.done(wait=self._tier != "auto"):
                return
            self._report.compile_seconds += build.seconds
            folder = build.folder
            if folder is None:
                self._refuse("interpreted", build.reason)
                return
        self.refused.add("interpreted")  # once is enough
        try:
            self._runner.interpret(folder)
        except (NativeError, NotUnderstood) as error:
            self._runner.native = None
            self._refuse("interpreted", f"the interpreter cannot run it: {error}")
            return
        self._try_out("interpreted", again, (None, "traced"))

    # --- the compiled loop

    def _compile(self, again: Batches, remaining: int) -> None:
        runner = self._runner
        if runner.device.type not in ("cpu", "cuda"):
            self._refuse("compiled", f"nothing here compiles for a device of type {runner.device.type!r}")
            return
        if self._build is None:
            if not self._pays(compiler.predicted_seconds(len(runner.step.single.graph.nodes)), remaining):
                return
            if self._tier == "auto" and compiler.busy():
                return
            assert runner.request is not None
            self._build = compiler.start(runner.request)
        if not self._build.done(wait=self._tier == "compiled"):
            return
        self._report.compile_seconds += self._build.seconds
        if self._build.folder is None:
            self._refuse("compiled", self._build.reason)
            return
        self._load(again, self._build.folder)

    def _load_cached(self, again: Batches) -> bool:
        """Bind the compiled loop if it lies in the cache; whether it runs now."""
        if self._runner.device.type not in ("cpu", "cuda"):
            return False
        folder = self._runner.prepare(torch.get_num_threads())
        if folder is not None:
            self._load(again, folder)
        return self._runner.native_tier == "compiled"

    def _load(self, again: Batches, folder: Path) -> None:
        """Bind the compiled loop and hold its first steps to the graph's."""
        runner, before = self._runner, (self._runner.native, self._runner.native_tier)
        try:
            runner.load(folder)
        except NativeError as error:
            compiler.forget(folder)
            if self._build is not None:  # else a damaged entry of the cache, to be built anew
                self._refuse("compiled", str(error))
            return
        self.refused.add("compiled")  # once is enough
        if not self._try_out("compiled", again, before):
            compiler.forget(folder)
        elif runner.note:
            self._report.reason = f"compiled: {runner.note}"

    # --- both

    def _try_out(self, tier: str, again: Batches, before: tuple[NativeSteps, str]) -> bool:
        """Take some steps by the graph and natively, go back to before, and keep what agrees and is faster.

        Args:
            before: the steps that the runner took, and their tier, to which it goes back otherwise.
        """
        memory, runner = self._memory, self._runner
        saved = memory.snapshot()
        traced_seconds = native_seconds = 0.0
        # One step alone, in which rounding has not yet been amplified; then two, since draws and numbers must move on.
        numbers = (1,) if memory.one_by_one or self.seconds > _SLOW_SECONDS else (1, 2)
        for number in numbers:
            started = time.perf_counter()
            expected = Trial(saved, runner.expected(again, number), memory.snapshot())
            traced_seconds = time.perf_counter() - started
            left_branch = not runner.well
            memory.restore(saved)
            try:
                started = time.perf_counter()
                losses = runner.native_steps(again, number)
                native_seconds = time.perf_counter() - started
                actual = Trial(saved, losses, memory.snapshot())
            except NativeError as error:
                runner.go_back(*before)
                self._refuse(tier, f"the {tier} step raised {error}")
                return False
            finally:
                memory.restore(saved)
            if not np.isfinite(expected.losses).all():  # which says nothing of other batches: to be tried again
                if left_branch and number > 1:
                    break  # the first step was the graph's
                self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, _LONGEST_PAUSE)
                runner.go_back(*before)
                self.refused.discard(tier)
                return False
            run = functools.partial(runner.expected, again, number)
            mismatch = measured_difference(memory, expected, actual, expected, run, traced_seconds)
            if mismatch:
                runner.go_back(*before)
                self._refuse(tier, f"the {tier} step is not the graph's ({mismatch})")
                return False
        if tier == "interpreted" and self._tier == "auto" and native_seconds > traced_seconds:
            # One measurement, in which memory was met for the first time or another process took the core, is no measure.
            traced_seconds = self._least_seconds(runner.expected, again, numbers[-1], saved)
            native_seconds = self._least_seconds(runner.native_steps, again, numbers[-1], saved)
            if native_seconds > traced_seconds:
                runner.go_back(*before)
                return False
        self.seconds = native_seconds / numbers[-1]
        return True

    def _least_seconds(
        self, take: Callable[[Batches, int], np.ndarray], again: Batches, number: int, saved: Snapshot
    ) -> float:
        """What so many steps take at least, in a few trials that are taken back."""
        timings = []
        for _ in range(1 if self.seconds > _SLOW_SECONDS else _TIMINGS):
            started = time.perf_counter()
            take(again, number)
            timings.append(time.perf_counter() - started)
            self._memory.restore(saved)
        return min(timings)

    def _refuse(self, tier: str, reason: str) -> None:
        self.refused.add(tier)
        self._report.reason = f"{self._runner.native_tier}: {reason}"
        if self._tier == tier:
            warn(EngineWarning(f"engine={tier!r}: {reason}; the run goes on with the captured graph."))


def measured_difference(
    memory: Restorable,
    expected: Trial,
    actual: Trial,
    here: Trial,
    run: Callable[[], np.ndarray],
    seconds: float,
    leave_out: Collection[str] = (),
) -> str:
    """How two trials from one state differ, beyond what rounding does; see :func:`difference`.

    What rounding does is measured by trials from close by: by two of them, and by more before anything is called wrong,
    since two may move in the same direction by chance where a gradient is nothing but rounding.

    Args:
        memory: which has the state of `expected` before it; it has so afterwards.
        here: the trial from there of what `run` takes.
        run: takes the steps of a trial, and returns their losses.
        seconds: that this takes.
    """
    others: list[Trial] = []
    mismatch = ""
    for times in (1, 2) if seconds > _SLOW_SECONDS else (2, 6):
        for _ in range(times):
            perturb(memory.values, len(others))
            before = memory.snapshot()
            others.append(Trial(before, run(), memory.snapshot()))
            memory.restore(expected.before)
        mismatch = difference(expected, actual, [here, *others], memory.pieces, leave_out)
        if not mismatch:
            return ""
    return mismatch
