"""The process that compiles runs nothing that lies about in the user's folder, and finds what this process runs."""

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch

import vipack as vi
from vipack.engine.compiled import child_process
from vipack.engine.compiled.child_process import start_compiling

PLANTED = ("hashlib", "json", "site", "sitecustomize", "sympy", "torch", "vipack", "numpy", "pickle", "linecache")
QUESTIONS = """
import hashlib, json, os, sys
import sympy, torch, vipack
found = {"vipack": vipack.__file__, "torch": torch.__file__, "hashlib": hashlib.__file__, "sympy": sympy.__file__}
with open("answers.json", "w") as file:
    json.dump({"path": sys.path, "umask": os.umask(0), **found}, file)
"""


class Asking:
    """In place of a job: what the process answers, once it has everything that a compilation begins with."""

    def __reduce__(self):
        return exec, (QUESTIONS,)


@pytest.fixture
def answers(tmp_path):
    def ask():
        work = tmp_path / "work"
        work.mkdir()
        (work / "job.pkl").write_bytes(pickle.dumps(Asking()))
        assert start_compiling(work).wait(120) == 1  # for there is no job
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


@pytest.mark.parametrize("python_path", [None, "", ":", ".", "below", ":below:.:"])
def test_what_is_planted_in_the_users_folder_does_not_run(planted, answers, monkeypatch, python_path):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if python_path is not None:
        monkeypatch.setenv("PYTHONPATH", python_path)
    found = answers()
    assert not (planted / "ran").exists()
    assert not [entry for entry in found["path"] if Path(entry).is_relative_to(planted)]


def test_it_runs_the_vipack_and_the_torch_of_this_process(planted, answers):
    found = answers()
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
    environment = child_process._environment(planted)
    assert environment["CXX"] == f"{planted}/tools/c++ --quick"
    assert environment["CC"] == "gcc"
    assert not {"PYTHONPATH", "PYTHONHOME"} & environment.keys()
