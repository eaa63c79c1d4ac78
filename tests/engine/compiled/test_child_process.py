"""The process that compiles runs nothing that lies about in the user's folder, finds what this process runs, and stays for the next job."""

import json
import os
import pickle
import sys
import time
from pathlib import Path

import pytest
import torch

import vipack as vi
from vipack.engine.compiled import child_process
from vipack.engine.compiled.build import serve
from vipack.engine.compiled.child_process import start_compiling

PLANTED = ("hashlib", "json", "site", "sitecustomize", "sympy", "torch", "vipack", "numpy", "pickle", "linecache")
QUESTIONS = """
import hashlib, json, os, sys
import sympy, torch, vipack
found = {"vipack": vipack.__file__, "torch": torch.__file__, "hashlib": hashlib.__file__, "sympy": sympy.__file__}
with open("answers.json", "w") as file:
    json.dump({"path": sys.path, "umask": os.umask(0), **found}, file)
"""


class Running:
    """In place of a job: Python that the process runs, once it has everything that a compilation begins with."""

    def __init__(self, program):
        self.program = program

    def __reduce__(self):
        return exec, (self.program,)


@pytest.fixture(autouse=True)
def _none_waits(monkeypatch):
    monkeypatch.setattr(child_process, "_WAITING", [])
    yield
    child_process._stop_waiting()


@pytest.fixture
def begin(tmp_path):
    """Begin a job in a folder of its own; the process and the folder."""

    def begin(program, name="work"):
        work = tmp_path / name
        work.mkdir()
        (work / "job.pkl").write_bytes(pickle.dumps(Running(program)))
        return start_compiling(work), work

    return begin


@pytest.fixture
def answers(begin):
    def ask():
        process, work = begin(QUESTIONS)
        assert process.poll(wait=True) == 1  # for there is no job
        assert (work / "answers.json").is_file(), (work / "traceback.txt").read_text()
        return json.loads((work / "answers.json").read_text())

    return ask


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """The current folder, with modules that leave a mark when they are run."""
    folder = tmp_path / "planted"
    (folder / "below").mkdir(parents=True)
    for place in (folder, folder / "below"):
        for name in PLANTED:
            (place / f"{name}.py").write_text(f"open({str(folder / 'ran')!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("python_path", [None, pytest.param("", marks=pytest.mark.slow), ":below:.:"])
def test_what_is_planted_in_the_users_folder_does_not_run_but_the_vipack_and_the_torch_of_this_process(
    planted, answers, monkeypatch, python_path
):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if python_path is not None:
        monkeypatch.setenv("PYTHONPATH", python_path)
    found = answers()
    assert not (planted / "ran").exists()
    assert not [entry for entry in found["path"] if Path(entry).is_relative_to(planted)]
    assert Path(found["vipack"]) == Path(vi.__file__)
    assert Path(found["torch"]) == Path(torch.__file__)
    assert found["umask"] == 0o077


def test_absolute_folders_of_the_python_path_are_searched_after_the_standard_library(planted, answers, monkeypatch):
    theirs = planted.parent / "theirs"
    theirs.mkdir()
    (theirs / "sympy.py").write_text("")
    (theirs / "hashlib.py").write_text("raise ImportError('the standard library comes first')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", str(theirs)]))
    monkeypatch.setattr(child_process, "_LIBRARIES", ())  # or sympy would be found beside torch
    found = answers()
    assert Path(found["sympy"]) == theirs / "sympy.py"
    assert Path(found["hashlib"]).parent == Path(json.__file__).parents[1]


def test_libraries_that_lie_elsewhere_are_found(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["numpy"], "__file__", str(tmp_path / "numpy" / "__init__.py"))
    assert str(tmp_path) in child_process._folders()
    assert str(Path(torch.__file__).parents[1]) in child_process._folders()


def test_a_compiler_named_from_the_users_folder_is_still_that_one(planted, monkeypatch):
    monkeypatch.setenv("CXX", "tools/c++ --quick")
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setenv("PYTHONHOME", "relative")
    environment = child_process._environment()
    assert environment["CXX"] == f"{planted}/tools/c++ --quick"
    assert environment["CC"] == "gcc"
    assert not {"PYTHONPATH", "PYTHONHOME"} & environment.keys()


# --- the next job

WELL = """
import json, os
import vipack.engine.compiled.build as module
module.build = lambda job, folder: print("what a library prints", flush=True)  # for there is no job
with open("answers.json", "w") as file:
    json.dump([os.getpid(), os.getcwd(), os.environ["TORCHINDUCTOR_CACHE_DIR"]], file)
"""


def test_a_process_that_has_done_its_job_builds_the_next(begin, monkeypatch):
    answers = []
    for name in ("first", "second"):
        process, work = begin(WELL, name)
        assert process.poll(wait=True) == 0
        number, current, cache = json.loads((work / "answers.json").read_text())
        assert (current, cache) == (str(work), str(work / "inductor"))
        answers.append(number)
        monkeypatch.setenv("VIPACK_CACHE", "/elsewhere")  # where results are kept is this process's affair
    assert answers == [process._process.pid] * 2
    (waiting,) = child_process._WAITING
    assert waiting is process


def test_a_job_that_fails_ends_the_process(begin):
    process, work = begin("raise OSError('no space left')")
    assert process.poll(wait=True) == 1
    assert (work / "error.txt").read_text() == "OSError: no space left"
    assert child_process._WAITING == []


def test_a_process_that_has_a_gpu_gives_it_back(begin):
    process, _ = begin(WELL + "import torch; torch.cuda.is_initialized = lambda: True")
    assert process.poll(wait=True) == 0
    assert child_process._WAITING == []
    assert process._process.returncode == 0


@pytest.fixture
def _well_at_once(monkeypatch):
    """Processes that answer at once."""
    monkeypatch.setattr(child_process, "_BEGIN", "import os\nwhile os.read(0, 1000): os.write(1, b'.')")


@pytest.mark.parametrize("change", ["nothing", "environment", "library", "idle", "killed", "forked"])
@pytest.mark.usefixtures("_well_at_once")
def test_a_process_that_would_be_started_in_another_way_builds_nothing_more(change, begin, monkeypatch, tmp_path):
    first, _ = begin(WELL, "first")
    assert first.poll(wait=True) == 0
    process = first._process
    if change == "environment":
        monkeypatch.setenv("CXX", "g++")
    elif change == "library":
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    elif change == "idle":
        first._idle_since = time.monotonic() - child_process._ASKED
    elif change == "killed":
        process.kill()
        process.wait()
    elif change == "forked":
        first._started_as = (os.getppid(), *first._started_as[1:])
    second, _ = begin(WELL, "second")
    assert second.poll(wait=True) == 0
    assert (second is first) == (change == "nothing")
    assert (process.poll() is None) == (change in ("nothing", "forked"))  # only the process that it belongs to stops it
    process.kill()
    process.wait()


@pytest.mark.usefixtures("_well_at_once")
def test_two_jobs_at_once_are_built_by_two_processes(begin):
    (first, _), (second, _) = begin(WELL, "first"), begin(WELL, "second")
    assert first is not second
    assert (first.poll(wait=True), second.poll(wait=True)) == (0, 0)


def test_a_process_leaves_when_nobody_asks_it():
    reader, writer = os.pipe()
    assert serve(reader, -1, seconds=0.01) == 0
    os.close(writer)
    assert serve(reader, -1, seconds=60.0) == 0
    os.close(reader)
