import pytest

from vipack.datasets import Corpus, docstrings


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for each test: none reads or writes the user's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VIPACK_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def library(shared_cache) -> Corpus:
    """The docstrings corpus, built once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIPACK_CACHE", str(shared_cache))
        return docstrings()
