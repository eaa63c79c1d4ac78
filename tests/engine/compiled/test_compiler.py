"""A broken toolchain or cache never stops a run: it goes on a tier lower, says why, and heals what can be healed."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.engine.compiled import child_process, compiler
from vipack.engine.compiled.child_process import CompilingProcess
from vipack.engine.compiled.compiler import Build, Request
from vipack.engine.native import cache_entries
from vipack.engine.native.bridge import Bridge, NativeError
from vipack.engine.native.cache_entries import seal
from vipack.engine.steps.runner import GraphRunner
from vipack.errors import EngineWarning

Y = torch.tensor([0.3, -0.8, 1.9])
STEPS = 40


def model(y):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def fitted(engine="compiled"):
    return vi.fit(model, AutoNormal, data=Y, steps=STEPS, seed=5, engine=engine, progress=False)


@pytest.fixture(scope="module")
def eager():
    return fitted("eager")


@pytest.fixture(scope="module")
def entry():
    """The cache's folder of the compiled step, and the fit that used it."""
    loaded = []
    load = GraphRunner.load

    def recording(self, folder):
        loaded.append(folder)
        load(self, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GraphRunner, "load", recording)
        fit = fitted()
    return loaded[-1], fit


def assert_right(fit, eager, tier):
    assert fit.engine.tier == tier
    np.testing.assert_allclose(fit.losses, eager.losses, rtol=1e-4)


def test_a_compiled_step_is_kept_where_the_environment_says(entry, eager):
    folder, fit = entry
    assert_right(fit, eager, "compiled")
    assert folder.parent == Path(os.environ["VIPACK_CACHE"]) / "engine"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert (folder / "step.so").is_file()
    assert not (folder / "job.pkl").exists()


def test_the_next_run_starts_with_it(entry, eager, cache):
    folder, fit = entry
    shutil.copytree(folder, cache / folder.name)
    again = fitted()
    assert_right(again, eager, "compiled")
    assert again.engine.compile_seconds == 0.0
    assert again.losses.tolist() == fit.losses.tolist()


class Ready:
    """A compilation that has already ended well."""

    seconds = 0.0
    reason = ""

    def __init__(self, folder):
        self.folder = folder

    def done(self, *, wait=False):
        return True

    def stop(self):
        pass


DAMAGES = {
    "a truncated library": lambda folder: cut(folder / "step.so"),
    "a library of rubbish": lambda folder: (folder / "step.so").write_bytes(b"rubbish"),
    "an empty library": lambda folder: (folder / "step.so").write_bytes(b""),
    "no library": lambda folder: (folder / "step.so").unlink(),
    "a truncated manifest": lambda folder: cut(folder / "manifest.json"),
    "a manifest of rubbish": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\x00{"),
    "an empty manifest": lambda folder: (folder / "manifest.json").write_text("{}"),
    "another step's manifest": lambda folder: (folder / "manifest.json").write_text('{"no_loop": "so"}'),
}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_built_anew(damage, entry, eager, cache, monkeypatch):
    folder, _ = entry
    damaged = cache / folder.name
    shutil.copytree(folder, damaged)
    DAMAGES[damage](damaged)
    started = []

    def start(request):
        started.append(damaged.exists())
        return Ready(folder)

    monkeypatch.setattr(compiler, "start", start)
    assert_right(fitted(), eager, "compiled")
    assert started == [False]


def no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")


def a_full_disk(monkeypatch):
    monkeypatch.setattr(compiler, "start_compiling", Finished(1, [("error.txt", "OSError: no space left")]))


@pytest.mark.parametrize("failure", [a_full_disk, pytest.param(no_compiler, marks=pytest.mark.slow)])
def test_where_nothing_can_be_compiled_the_graph_goes_on(failure, eager, cache, monkeypatch):
    failure(monkeypatch)
    with pytest.warns(EngineWarning, match="compiling failed"):
        fit = fitted()
    assert_right(fit, eager, "traced")
    assert "compiling failed" in fit.engine.reason
    assert list(cache.glob(".build-*")) == []


def test_a_cache_that_cannot_be_made_is_replaced_by_a_temporary_folder(cache, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIPACK_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(cache_entries, "_private", {})
    with pytest.warns(EngineWarning, match="temporary folder, for this process alone, since .*Not a directory"):
        folder = compiler.cache_folder()
    assert folder.is_dir()
    assert os.access(folder, os.W_OK)
    assert compiler.cache_folder() == folder  # said once


# --- the process that compiles


class Finished:
    """In place of ``start_compiling``: a process that has written something and ended."""

    def __init__(self, returncode=0, files=(("manifest.json", "{}"), ("step.so", "new"))):
        self.returncode = returncode
        self.files = files

    def __call__(self, work):
        for name, text in self.files:
            (work / name).write_text(text)
        return self

    def poll(self, *, wait):
        return self.returncode


def busy_for_a_minute():
    return CompilingProcess([sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ))


def ended(monkeypatch, process):
    monkeypatch.setattr(compiler, "start_compiling", process)
    build = Build(Request(lambda: "a job", "key"))
    assert build.done(wait=True)
    return build


def test_the_result_is_moved_into_the_cache_as_a_whole(cache, monkeypatch):
    build = ended(monkeypatch, Finished())
    assert build.folder == cache / "key"
    assert {path.name for path in cache.iterdir()} == {"key"}
    assert {path.name for path in build.folder.iterdir()} == {"manifest.json", "step.so"}


def test_of_two_processes_at_once_the_first_one_counts(cache, monkeypatch):
    (cache / "key").mkdir(parents=True)
    (cache / "key" / "manifest.json").write_text("{}")
    (cache / "key" / "step.so").write_text("first")
    seal(cache / "key", "key")
    build = ended(monkeypatch, Finished())
    assert build.folder == cache / "key"
    assert (build.folder / "step.so").read_text() == "first"
    assert {path.name for path in cache.iterdir()} == {"key"}


def test_of_a_damaged_entry_and_a_new_one_the_new_one_counts(cache, monkeypatch):
    (cache / "key").mkdir(parents=True)
    (cache / "key" / "manifest.json").write_text("{")
    build = ended(monkeypatch, Finished())
    assert build.folder == cache / "key"
    assert (build.folder / "step.so").read_text() == "new"


def test_a_cache_that_is_read_only_leaves_the_result_to_this_process(cache, monkeypatch):
    monkeypatch.setattr(cache_entries, "_writable", lambda folder: False)
    monkeypatch.setattr(cache_entries, "_private", {})
    with pytest.warns(EngineWarning, match=f"{cache} cannot be written to"):
        build = ended(monkeypatch, Finished())
    assert build.folder.parent != cache
    assert compiler.cached(Request(lambda: "a job", "key")) == build.folder
    assert (build.folder / "step.so").read_text() == "new"
    assert list(cache.iterdir()) == []


FAILURES = {
    "it says why": (Finished(1, [("error.txt", "RuntimeError: no space left")]), "RuntimeError: no space left"),
    "it was killed": (Finished(-9, []), "ended with code -9"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_compilation_that_fails_gives_its_reason_and_leaves_nothing(name, cache, monkeypatch):
    process, reason = FAILURES[name]
    build = ended(monkeypatch, process)
    assert build.folder is None
    assert reason in build.reason
    assert list(cache.iterdir()) == []


def test_a_process_that_does_not_start_is_a_reason(cache, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no more processes")

    monkeypatch.setattr(child_process, "_WAITING", [])
    monkeypatch.setattr(subprocess, "Popen", refuse)
    build = Build(Request(lambda: "a job", "key"))
    assert build.done(wait=True)
    assert build.folder is None
    assert "no more processes" in build.reason


def test_stopping_ends_the_process_and_leaves_nothing(cache, monkeypatch):
    process = busy_for_a_minute()
    monkeypatch.setattr(compiler, "start_compiling", lambda work: process)
    build = Build(Request(lambda: "a job", "key"))
    assert not build.done()
    build.stop()
    assert process._process.returncode == -signal.SIGKILL
    assert list(cache.iterdir()) == []


def test_an_old_entry_goes_when_there_are_too_many(cache, monkeypatch):
    monkeypatch.setattr(cache_entries, "_KEPT", 2)
    for age, name in enumerate(["newest", "middle", "oldest"]):
        (cache / name).mkdir(parents=True)
        (cache / name / "manifest.json").write_text("{}")
        os.utime(cache / name, (1_000_000 - age, 1_000_000 - age))
    ended(monkeypatch, Finished())
    assert {path.name for path in cache.iterdir()} == {"key", "newest"}


def test_work_that_a_killed_process_left_goes_and_that_of_a_running_one_stays(cache, monkeypatch):
    for name, age in [(".build-left", 100_000), (".build-running", 60)]:
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (time.time() - age, time.time() - age))
    ended(monkeypatch, Finished())
    assert {path.name for path in cache.iterdir()} == {"key", ".build-running"}


def test_a_bridge_that_does_not_load_is_named_and_removed(tmp_path):
    entry = tmp_path / "library-0"
    entry.mkdir()
    (entry / "library.so").write_bytes(b"rubbish")
    (entry / "manifest.json").write_text("{}")
    seal(entry, "library-0")

    class Calls(Bridge):
        def tensor(self, value):
            raise AssertionError("no call has tensors here")

    with pytest.raises(NativeError, match="library-0 does not load"):
        Calls(entry / "library.so")
    assert not entry.exists()  # so that the next compilation builds it anew


PROGRAM = """
import warnings, torch
from tests.engine.compiled.test_compiler import fitted
fit = fitted()
print(fit.engine.tier, fit.engine.reason, *fit.losses.tolist(), sep="|")
"""


@pytest.mark.slow
def test_two_processes_that_compile_the_same_step_at_once_both_end_well(tmp_path, eager):
    environment = {**os.environ, "VIPACK_CACHE": str(tmp_path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=300)
        tier, reason, *losses = output.strip().split("|")
        assert (tier, reason) == ("compiled", "")
        np.testing.assert_allclose(np.array(losses, dtype=float), eager.losses, rtol=1e-4)
    assert list((tmp_path / "engine").glob(".build-*")) == []


CLAIMING = """
import fcntl, os, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(handle, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def rival(cache):
    """Another process, which compiles the entry `key` until it is killed."""
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-S", "-c", CLAIMING, str(cache / ".claim-key")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


def test_a_process_waits_for_another_one_that_compiles_the_same(rival, cache, monkeypatch):
    monkeypatch.setattr(compiler, "start_compiling", lambda work: pytest.fail("compiled twice"))
    build = Build(Request(lambda: "a job", "key"))
    assert not build.done()
    assert compiler.busy()
    (cache / "key").mkdir()
    (cache / "key" / "manifest.json").write_text("{}")
    (cache / "key" / "step.so").write_text("theirs")
    assert not build.done()  # not yet sealed
    seal(cache / "key", "key")
    rival.kill()
    assert build.done(wait=True)
    assert (build.folder / "step.so").read_text() == "theirs"
    assert not compiler.busy()
    assert {path.name for path in cache.iterdir()} == {"key"}


def test_a_process_compiles_itself_what_another_one_gave_up(rival, cache, monkeypatch):
    monkeypatch.setattr(compiler, "start_compiling", Finished())
    build = Build(Request(lambda: "a job", "key"))
    assert not build.done()
    rival.kill()
    assert build.done(wait=True)
    assert (build.folder / "step.so").read_text() == "new"
    assert {path.name for path in cache.iterdir()} == {"key"}


def test_a_process_that_was_halted_is_not_waited_for_for_ever(rival, cache, monkeypatch):
    monkeypatch.setattr(compiler, "start_compiling", Finished())
    build = Build(Request(lambda: "a job", "key"))
    assert not build.done()
    monkeypatch.setattr(compiler, "_LATE", 0.0)
    assert build.done(wait=True)
    assert (build.folder / "step.so").read_text() == "new"


def test_a_build_that_waits_can_be_stopped(rival, cache):
    build = Build(Request(lambda: "a job", "key"))
    build.stop()
    assert build.done()
    assert build.folder is None
    assert not compiler.busy()


def test_the_bar_and_the_log_say_that_something_is_compiled(cache, monkeypatch, caplog):
    seen = []

    class Bar:
        n = 0

        def __init__(self, **options):
            pass

        def set_postfix_str(self, text, refresh):
            seen.append(text)

        def update(self, number):
            pass

        def close(self):
            pass

    process = busy_for_a_minute()
    monkeypatch.setattr(compiler, "start_compiling", lambda work: process)
    monkeypatch.setattr("vipack.progress.tqdm", Bar)
    wanted = Request(lambda: compiler.InterpreterJob(cache), "interpreter-of-this-test")
    with caplog.at_level("INFO", logger="vipack.engine.compiled.compiler"):
        build = Build(wanted)
    try:
        fitted("eager")
    finally:
        build.stop()
    assert "compiling once for this machine, in the background" in caplog.text
    *during, last = seen
    assert during
    assert all(text.endswith(", compiling once for this machine, in the background") for text in during)
    assert "compiling" not in last  # what is left standing
    seen.clear()
    fitted("eager")
    assert seen
    assert not any("compiling" in text for text in seen)
