"""Where vipack keeps what can be made again, and what makes such a folder one that nobody else can write to."""

import functools
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import vipack as vi
from vipack import cache
from vipack.cache import cache_folder, make_folders, others_may_write, private_folder, write_whole

MODES = {"group": 0o770, "others": 0o707, "all": 0o777}


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch):
    for name in ("VIPACK_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)


# --- one rule for all that is kept


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
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == tmp_path.joinpath(*tail)


@pytest.mark.parametrize(
    ("platform", "folder"),
    [("linux", ".cache/vipack"), ("darwin", "Library/Caches/vipack"), ("win32", "AppData/Local/vipack/Cache")],
)
def test_the_home_folder_comes_last(monkeypatch, platform, folder):
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path.home() / folder


@pytest.mark.parametrize("value", ["", "relative/folder", "~/unexpanded", "."])
@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [("linux", "XDG_CACHE_HOME", ".cache/vipack"), ("win32", "LOCALAPPDATA", "AppData/Local/vipack/Cache")],
)
def test_a_systems_variable_that_is_no_absolute_path_does_not_count(monkeypatch, platform, variable, folder, value):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, value)
    assert cache_folder() == Path.home() / folder


def test_an_empty_variable_of_vipacks_does_not_count(monkeypatch, tmp_path):
    monkeypatch.setenv("VIPACK_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vipack"


def test_macos_has_a_place_of_its_own_whatever_xdg_says(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == Path.home() / "Library" / "Caches" / "vipack"


def test_the_home_of_nobody_is_named(monkeypatch):
    monkeypatch.setenv("VIPACK_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(vi.errors.UsageError, match="VIPACK_CACHE='~nobody-of-this-name/cache': there is no such home"):
        cache_folder()


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_home_that_is_no_folder_does_not_count(monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    assert cache_folder().parent == Path(tempfile.gettempdir())


def test_the_engine_and_the_data_sets_go_by_the_same_rule(monkeypatch, tmp_path):
    from vipack.engine.compiled import compiler

    monkeypatch.setenv("VIPACK_CACHE", str(tmp_path / "one"))
    assert compiler.cache_folder() == vi.datasets.cache_folder() / "engine"
    monkeypatch.delenv("VIPACK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiler.cache_folder() == vi.datasets.cache_folder() / "engine" == tmp_path / ".cache" / "vipack" / "engine"


def test_a_user_without_a_home_gets_a_temporary_folder(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder().name.startswith("vipack-")


def test_a_foreseen_temporary_folder_that_somebody_took_first_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cache, "_instead", functools.cache(cache._instead.__wrapped__))
    foreseen = cache_folder()
    foreseen.mkdir()
    foreseen.chmod(0o777)
    assert cache_folder() != foreseen
    assert not others_may_write(cache_folder())
    assert cache_folder() == cache_folder()


# --- whose folder it is


def test_folders_are_made_for_their_user_alone_whatever_the_umask(tmp_path):
    for umask in (0o000, 0o022, 0o777):
        before = os.umask(umask)
        try:
            make_folders(tmp_path / f"{umask}" / "a" / "b")
        finally:
            os.umask(before)
        for each in (tmp_path / f"{umask}", tmp_path / f"{umask}" / "a", tmp_path / f"{umask}" / "a" / "b"):
            assert stat.S_IMODE(each.stat().st_mode) == 0o700


def test_folders_that_are_there_are_left_as_they_are(tmp_path):
    tmp_path.chmod(0o755)
    make_folders(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_folder_of_ones_own_is_fine_and_so_is_one_that_is_yet_to_be_made(tmp_path):
    assert others_may_write(tmp_path) == ""
    assert others_may_write(tmp_path / "not" / "yet") == ""


@pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))
@pytest.mark.parametrize("place", ["the folder", "its parent", "the parent of what is yet to be made"])
def test_a_folder_that_others_may_write_to_is_named_with_the_cure(tmp_path, mode, place):
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(mode)
    folder = open_folder if place == "the folder" else open_folder / "below"
    if place == "its parent":
        folder.mkdir()
    reason = others_may_write(folder)
    assert reason == f"others may write to {open_folder} (chmod go-w {open_folder} mends it)"
    open_folder.chmod(mode & ~0o022)
    assert others_may_write(folder) == ""


def test_a_sticky_folder_may_be_on_the_way_but_not_at_the_end(tmp_path):
    sticky = tmp_path / "sticky"
    (sticky / "own").mkdir(parents=True)
    sticky.chmod(0o1777)
    assert others_may_write(sticky / "own") == ""
    assert others_may_write(sticky).startswith(f"others may write to {sticky}")


def test_a_folder_of_another_user_is_named(tmp_path, monkeypatch):
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert "belongs to user" in others_may_write(tmp_path)


@pytest.fixture
def give_away(monkeypatch):
    """Lets paths belong to another user, as only root could in earnest."""
    lstat, theirs = os.lstat, set()

    def given(path, **options):
        found = list(lstat(path, **options))
        if Path(path) in theirs:
            found[stat.ST_UID] = 54_321
        return os.stat_result(found)

    monkeypatch.setattr(os, "lstat", given)
    return theirs.add


def test_a_folder_given_to_another_user_and_a_link_of_theirs(tmp_path, give_away):
    theirs, own, link = tmp_path / "theirs", tmp_path / "own", tmp_path / "link"
    theirs.mkdir()
    own.mkdir()
    give_away(theirs)
    assert others_may_write(theirs) == f"{theirs} belongs to user 54321"
    assert others_may_write(theirs / "below") == f"{theirs} belongs to user 54321"
    link.symlink_to(own)
    assert others_may_write(link) == ""
    give_away(link)
    assert others_may_write(link) == f"{link} is a symbolic link of user 54321"


def test_the_way_through_a_link_is_looked_at_too(tmp_path):
    (tmp_path / "open" / "end").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "absolute").symlink_to(tmp_path / "open" / "end")
    (tmp_path / "relative").symlink_to("absolute/../end")
    for link in ("absolute", "relative"):
        assert others_may_write(tmp_path / link).startswith(f"others may write to {tmp_path / 'open'}")


def test_links_in_a_circle_and_files_are_no_folders(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "file").write_text("")
    assert "too many symbolic links" in others_may_write(tmp_path / "one")
    assert others_may_write(tmp_path / "file") == f"{tmp_path / 'file'} is not a folder"


def test_a_private_folder_goes_with_its_process():
    program = "from vipack.cache import private_folder; print(private_folder('mine-'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    folder = Path(done.stdout.strip())
    assert folder.name.startswith("mine-"), done.stderr
    assert not folder.exists()


def test_a_child_leaves_its_parents_private_folder(tmp_path):
    program = """
import os, sys
from vipack.cache import private_folder
folder = private_folder("mine-")
if os.fork() == 0:
    sys.exit()
os.wait()
print(folder.is_dir())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_where_others_may_write_to_all_temporary_folders_there_is_none(tmp_path, monkeypatch):
    tmp_path.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert private_folder("mine-").parent == Path("/tmp")
    monkeypatch.setattr(cache, "others_may_write", lambda folder: f"others may write to {folder.parent}")
    with pytest.raises(OSError, match=f"no place for private files: others may write to {tmp_path};.*set TMPDIR"):
        private_folder("mine-")
    assert list(tmp_path.iterdir()) == []


# --- files


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
