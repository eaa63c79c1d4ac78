"""What tests of the engine share."""

import pytest

from vipack.engine.compiled import compiler

_REMEMBERED = (compiler.interpreter, compiler.start_interpreter)


@pytest.fixture(scope="session")
def folder():
    build = compiler.start_interpreter() if compiler.cached(compiler.interpreter()) is None else None
    if build is not None:
        assert build.done(wait=True)
        assert build.folder is not None, build.reason
    found = compiler.cached(compiler.interpreter())
    assert found is not None
    return found


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("VIPACK_CACHE", str(tmp_path / "cache"))
    _forget()
    yield tmp_path / "cache" / "engine"
    _forget()


def _forget():
    for function in _REMEMBERED:
        function.cache_clear()
