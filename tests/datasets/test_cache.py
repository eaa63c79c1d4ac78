import os
import sys
from pathlib import Path

import pytest

from vipack.datasets import cache_folder
from vipack.datasets.cache import write_whole


def test_the_environment_variable_decides(monkeypatch, tmp_path):
    monkeypatch.setenv("VIPACK_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert not cache_folder().exists()


def test_a_relative_or_home_path_is_made_absolute(monkeypatch):
    monkeypatch.setenv("VIPACK_CACHE", "here")
    assert cache_folder() == Path.cwd() / "here"
    monkeypatch.setenv("VIPACK_CACHE", "~/there")
    assert cache_folder() == Path.home() / "there"


@pytest.mark.parametrize(
    ("platform", "variable", "tail"),
    [
        ("linux", "XDG_CACHE_HOME", ("vipack",)),
        ("win32", "LOCALAPPDATA", ("vipack", "Cache")),
    ],
)
def test_the_systems_own_variable_comes_next(monkeypatch, tmp_path, platform, variable, tail):
    monkeypatch.delenv("VIPACK_CACHE")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == tmp_path.joinpath(*tail)


@pytest.mark.parametrize(
    ("platform", "folder"),
    [("linux", ".cache/vipack"), ("darwin", "Library/Caches/vipack"), ("win32", "AppData/Local/vipack/Cache")],
)
def test_the_home_folder_comes_last(monkeypatch, platform, folder):
    for name in ("VIPACK_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path.home() / folder


def test_a_user_without_a_home_gets_a_temporary_folder(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VIPACK_CACHE")
    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder().name.startswith("vipack-")


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "file"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"one")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file"]
