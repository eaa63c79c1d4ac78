"""Compile steps in a process of its own, which child_process.py starts.

The process that trains goes on meanwhile; it never imports Inductor, and nothing that goes wrong here can harm it. The
job's folder holds ``job.pkl``; the result is ``step.so`` and ``manifest.json`` in the same folder, or ``error.txt``, and
the bridge in a folder of its own in it, where there was none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import pickle
import select
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vipack.compat.inductor import MissingNameError, compile_cpp, trusting_cpu_flags
from vipack.engine.compiled.driver import emit
from vipack.engine.graph.graph_text import GraphText
from vipack.engine.inductor.lowering import lower, save_artifact
from vipack.engine.inductor.plan import PlanError, View, read_plan
from vipack.engine.interpreter.source import FLAGS, KERNELS
from vipack.engine.interpreter.source import source as interpreter_source
from vipack.engine.native.cpp_source import read_source
from vipack.engine.native.operations import LibraryCall, LoopSpec

__all__ = ["LIBRARY", "InterpreterJob", "Job", "build", "library_name", "main", "serve"]

LIBRARY = "library.so"  # the bridge, in its entry
_BRIDGE = "vipack/engine/native/bridge.cpp"
_Task = tuple[str, Path, bool, Sequence[str]]  # what is compiled, into which file, for vectors or not, with which flags


@dataclass(frozen=True)
class Job:
    """What there is to compile.

    Attributes:
        inputs: dtype name, size and stride of each input of the step.
        library: where the bridge to torch's operators is, or shall be.
        device: of the inputs.
        modules: that define operators of the graph.
    """

    graph: GraphText
    inputs: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    spec: LoopSpec
    num_threads: int
    library: Path
    device: str = "cpu"
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class InterpreterJob:
    """Compile the interpreter, which serves every step.

    Attributes:
        library: where the bridge to torch's operators is, or shall be.
    """

    library: Path


def build(job: Job | InterpreterJob, folder: Path) -> None:
    """Write what a job asks for and ``manifest.json`` into `folder`.

    A step becomes ``step.so``; where there is no plan for it, Inductor's own artifact.

    Raises:
        RuntimeError: no compiler, or it failed.
    """
    if isinstance(job, InterpreterJob):
        with trusting_cpu_flags():
            _compile_all(job.library, folder, [(interpreter_source(), folder / KERNELS, True, FLAGS)])
        (folder / "manifest.json").write_text(json.dumps({"interpreter": KERNELS}))
        return
    for name in job.modules:
        importlib.import_module(name)
    examples = [
        torch.empty_strided(size, stride, dtype=getattr(torch, dtype), device=job.device).zero_()
        for dtype, size, stride in job.inputs
    ]
    if job.device != "cpu":  # kernels are called from Python, and recorded there
        save_artifact(job.graph.module(), examples, job.num_threads, folder / "artifact")
        (folder / "manifest.json").write_text(json.dumps({"no_loop": ""}))
        return
    with trusting_cpu_flags():
        code = lower(job.graph.module(), examples, job.num_threads, strided=job.spec.copies is not None)
        try:
            plan = read_plan(code, job.inputs)
            driver = emit(plan, job.spec)
        except PlanError as error:
            save_artifact(job.graph.module(), examples, job.num_threads, folder / "artifact")
            (folder / "manifest.json").write_text(json.dumps({"no_loop": str(error)}))
            return
        library = job.library if driver.library else None
        _compile_all(library, folder, [(driver.source, folder / "step.so", True, ())])
    manifest = {
        "arena": driver.arena,
        "offsets": list(driver.offsets),
        "library": [_call(call) for call in driver.library],
        "results": [list(key) for key in driver.results],
        "layouts": [dataclasses.asdict(layout) for layout in plan.layouts],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def library_name() -> str:
    """The key of the bridge for this torch."""
    digest = hashlib.sha256(f"{torch.__version__}{read_source(_BRIDGE)}".encode()).hexdigest()[:16]
    return f"library-{digest}"


def _compile_all(library: Path | None, folder: Path, tasks: list[_Task]) -> None:
    """Compile sources side by side, and the bridge with them, below `folder`, where it is wanted and missing."""
    failures: list[BaseException] = []

    def attempt(source: str, target: Path, vectorized: bool, flags: Sequence[str]) -> None:
        try:
            _compile(source, target, vectorized=vectorized, flags=flags)
        except BaseException as error:
            failures.append(error)

    if library is not None and not library.exists():
        own = folder / library_name()
        own.mkdir()
        (own / "manifest.json").write_text("{}")
        tasks.append((read_source(_BRIDGE), own / LIBRARY, False, ()))
    threads = [threading.Thread(target=attempt, args=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _compile(source: str, target: Path, *, vectorized: bool, flags: Sequence[str] = ()) -> None:
    path = target.with_name(f"{target.stem}-{os.getpid()}.cpp")
    path.write_text(source)
    compile_cpp(path, vectorized=vectorized, flags=flags).replace(target)
    path.unlink()


def _call(call: LibraryCall) -> dict[str, Any]:
    return {
        "operator": call.operator,
        "overload": call.overload,
        "arguments": [_plain(argument) for argument in call.arguments],
        "keywords": {name: _plain(value) for name, value in call.keywords.items()},
        "number": call.number,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, View):
        return {"view": dataclasses.asdict(value)}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def serve(jobs: int, answers: int, seconds: float) -> int:
    """Build jobs until one fails or takes a GPU, or none has come for so long; what the process ends with.

    Args:
        jobs: a pipe, to which the folder of each is written whole.
        answers: a pipe, to which a byte is written for each that is done.
    """
    while select.select([jobs], [], [], seconds)[0]:
        folder = os.fsdecode(os.read(jobs, select.PIPE_BUF))
        if not folder:  # nobody is left to ask
            return 0
        os.chdir(folder)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(folder, "inductor")
        code = main([folder])
        if code or torch.cuda.is_initialized():  # whose context would keep memory of the GPU
            return code
        os.chdir(os.sep)
        os.write(answers, b".")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Build the job in the folder named."""
    folder = Path(arguments[0])
    try:
        with (folder / "job.pkl").open("rb") as file:
            job = pickle.load(file)
        build(job, folder)
    except BaseException as error:
        text = " ".join(str(error).split())[:500]
        kind = "" if isinstance(error, MissingNameError) else f"{type(error).__name__}: "
        (folder / "error.txt").write_text(f"{kind}{text}")
        (folder / "traceback.txt").write_text(traceback.format_exc())
        return 1
    return 0
