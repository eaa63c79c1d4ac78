"""What runs code when it is loaded is loaded only as it was written, and from where nobody else can write."""

import ctypes
import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.engine.compiled.test_compiler import Finished, ended, fitted
from vipack.engine.compiled import compiler
from vipack.engine.compiled.build import library_name
from vipack.engine.compiled.called import load_artifact
from vipack.engine.interpreter.bound_program import _load
from vipack.engine.native import cache_entries
from vipack.engine.native.bridge import Bridge
from vipack.engine.native.cache_entries import NativeError, find_entry, put_entry, read_entry, seal, verified_files
from vipack.engine.steps.runner import GraphRunner
from vipack.errors import EngineWarning


@pytest.fixture
def entry(tmp_path):
    folder = tmp_path / "key"
    (folder / "artifact" / "ab").mkdir(parents=True)
    (folder / "manifest.json").write_text('{"no_loop": ""}')
    (folder / "step.so").write_bytes(b"step")
    (folder / "artifact" / "ab" / "kernel.py").write_bytes(b"kernel")
    seal(folder, "key")
    return folder


@pytest.fixture
def _no_private_folder(monkeypatch):
    monkeypatch.setattr(cache_entries, "_private", {})


def test_an_entry_is_read_as_it_was_written(entry):
    assert read_entry(entry)["no_loop"] == ""
    assert verified_files(entry) == {"artifact/ab/kernel.py": b"kernel", "step.so": b"step"}
    assert stat.S_IMODE((entry / "manifest.json").stat().st_mode) == 0o600


CHANGES = {
    "another library": lambda e: (e / "step.so").write_bytes(b"else"),
    "another file of Inductor's": lambda e: (e / "artifact" / "ab" / "kernel.py").write_bytes(b"else"),
    "a file more": lambda e: (e / "artifact" / "ab" / "more.py").write_bytes(b"more"),
    "a file less": lambda e: (e / "step.so").unlink(),
    "a link to the same": lambda e: [
        (e / "step.so").rename(e.parent / "x"),
        (e / "step.so").symlink_to(e.parent / "x"),
    ],
    "a linked folder": lambda e: [
        (e / "artifact").rename(e.parent / "x"),
        (e / "artifact").symlink_to(e.parent / "x"),
    ],
    "no checksums": lambda e: (e / "manifest.json").write_text('{"no_loop": ""}'),
    "a manifest that is no object": lambda e: (e / "manifest.json").write_text("[]"),
    "a library that others may write": lambda e: (e / "step.so").chmod(0o666),
    "a manifest that others may write": lambda e: (e / "manifest.json").chmod(0o620),
    "a file of Inductor's that others may write": lambda e: (e / "artifact" / "ab" / "kernel.py").chmod(0o602),
    "a folder that others may write to": lambda e: e.chmod(0o777),
    "a folder above that others may write to": lambda e: e.parent.chmod(0o770),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_entry_that_is_not_what_was_written_is_refused(entry, change):
    CHANGES[change](entry)
    with pytest.raises(NativeError, match=r"compiled step in .* (is damaged|cannot be read|is not loaded)"):
        read_entry(entry)


def test_an_entry_under_another_key_is_refused(entry):
    moved = entry.with_name("other")
    entry.rename(moved)
    with pytest.raises(NativeError, match="damaged"):
        read_entry(moved)


def test_files_of_another_user_are_refused(entry, monkeypatch):
    fstat = os.fstat

    def given_away(handle):
        found = list(fstat(handle))
        found[stat.ST_UID] += 1
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", given_away)
    with pytest.raises(NativeError, match=r"others may have written .*manifest\.json"):
        read_entry(entry)


def test_a_spoilt_entry_that_cannot_be_removed_leaves_the_new_one_to_this_process(entry, monkeypatch):
    work = entry.parent / ".build-x"
    shutil.copytree(entry, work)
    (entry / "step.so").write_bytes(b"spoilt")
    monkeypatch.setattr(cache_entries, "forget", lambda folder: None)
    assert put_entry(work, entry.parent, "key") == work


# --- whatever loads code asks first


def test_a_bridge_an_interpreter_and_an_artifact_are_held_against_their_checksums(entry, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("it was loaded")

    monkeypatch.setattr(ctypes, "CDLL", never)
    monkeypatch.setattr("torch._inductor.CompiledArtifact.load", never)
    (entry / "step.so").write_bytes(b"forged")
    with pytest.raises(NativeError, match="damaged"):
        _load(entry / "step.so")
    with pytest.raises(NativeError, match="damaged"):
        load_artifact(entry)

    class Calls(Bridge):
        def tensor(self, value):
            raise AssertionError("no call has tensors here")

    with pytest.raises(NativeError, match="damaged"):
        Calls(entry / "step.so")


def test_inductor_gets_a_copy_of_what_was_checked(entry, monkeypatch):
    """It adds files of its own to the folder, and what is imported must not change after it was looked at."""
    seen = []
    monkeypatch.setattr("torch._inductor.CompiledArtifact.load", lambda path, format: seen.append(path))
    load_artifact(entry)
    (path,) = seen
    assert not path.startswith(str(entry))
    assert Path(path, "ab", "kernel.py").read_text() == "kernel"


def test_a_damaged_interpreter_is_built_anew(folder, cache, monkeypatch):
    for name in (folder.name, library_name()):
        shutil.copytree(folder.parent / name, cache / name)
    assert compiler.cached(compiler.interpreter()) == cache / folder.name
    (cache / folder.name / "interpreter.so").write_bytes(b"forged")
    assert compiler.cached(compiler.interpreter()) is None
    assert not (cache / folder.name).exists()


def test_without_the_bridge_the_interpreter_is_of_no_use(folder, cache):
    shutil.copytree(folder, cache / folder.name)
    assert compiler.cached(compiler.interpreter()) is None


# --- folders that others may write to


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
@pytest.mark.usefixtures("_no_private_folder")
def test_where_others_may_write_a_private_folder_is_used_and_that_is_said(cache, mode):
    cache.mkdir(parents=True)
    cache.chmod(mode)
    with pytest.warns(EngineWarning, match=f"for this process alone, since others may write to {cache} .chmod go-w"):
        found = compiler.cache_folder()
    assert found != cache
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


@pytest.fixture
def loaded(monkeypatch):
    """The folders that fits load their steps from."""
    folders = []
    load = GraphRunner.load
    monkeypatch.setattr(GraphRunner, "load", lambda self, folder: (folders.append(folder), load(self, folder))[1])
    return folders


@pytest.fixture
def compiled_step(loaded):
    """Its folder, in the cache of all tests."""
    fitted()
    return loaded.pop()


@pytest.mark.usefixtures("_no_private_folder")
def test_what_others_may_have_written_is_neither_loaded_nor_kept_up(compiled_step, cache, loaded):
    """A forged library lies under the key that the fit will ask for; the fit compiles anew, elsewhere."""
    shutil.copytree(compiled_step, cache / compiled_step.name)
    cache.chmod(0o777)
    with pytest.warns(EngineWarning, match="others may write"):
        fit = fitted()
    assert fit.engine.tier == "compiled"
    assert loaded[0].name == compiled_step.name
    assert loaded[0].parent != cache


@pytest.mark.usefixtures("_no_private_folder")
def test_a_folder_that_is_opened_to_others_while_a_process_runs_is_left(cache, monkeypatch):
    build = ended(monkeypatch, Finished())
    assert find_entry("key") == build.folder == cache / "key"
    cache.chmod(0o777)
    with pytest.warns(EngineWarning, match="others may write"):
        assert find_entry("key") is None


@pytest.mark.usefixtures("_no_private_folder")
def test_without_any_private_place_nothing_is_compiled(cache, monkeypatch):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    monkeypatch.setattr("vipack.cache.others_may_write", lambda folder: "others may write everywhere")
    with pytest.warns(EngineWarning, match="no place for private files"):
        fit = fitted()
    assert fit.engine.tier == "traced"
    assert "no place for private files" in fit.engine.reason


def test_folders_and_files_are_closed_to_others_whatever_the_umask(cache, monkeypatch):
    before = os.umask(0)
    try:
        fit = fitted()
    finally:
        os.umask(before)
    assert fit.engine.tier == "compiled"
    everything = [cache.parent, cache, *cache.rglob("*")]
    assert len(everything) > 4
    assert [path for path in everything if path.stat().st_mode & 0o022] == []
