import textwrap
from pathlib import Path

import pytest

from vipack.datasets.library_docstrings import library_files, library_texts, prose
from vipack.errors import DataError, DataWarning


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def documents(root: Path) -> dict[str, str]:
    texts, titles = library_texts(root, library_files(root))
    return dict(zip(titles, texts, strict=True))


def test_one_document_is_a_module_or_a_class(tmp_path):
    write(
        tmp_path,
        "zoo/__init__.py",
        '''
        """Animals."""
        raise SystemExit("imports run code, parsing does not")
        def feed():
            """Give food."""
            def inner():
                """Not told."""
        class Ape:
            """A primate."""
            def climb(self):
                """Go up."""
            class Hand:
                """Grips."""
        if True:
            async def later():
                """Wait."""
        try:
            pass
        except ImportError:
            class Bee:
                """Hums."""
        ''',
    )
    write(tmp_path, "zoo/gnu.py", '"""Antelopes."""')
    assert documents(tmp_path) == {
        "zoo": "Animals. Give food. Wait.",
        "zoo.Ape": "A primate. Go up.",
        "zoo.Ape.Hand": "Grips.",
        "zoo.Bee": "Hums.",
        "zoo.gnu": "Antelopes.",
    }


def test_texts_that_stand_twice_are_given_once(tmp_path):
    write(tmp_path, "a.py", '"""The same."""')
    write(tmp_path, "b.py", '"""The   same."""')
    assert documents(tmp_path) == {"a": "The same."}


def test_tests_and_installed_packages_are_left_out(tmp_path):
    for name in ("kept", "test/x", "pkg/tests/x", "site-packages/x", "idlelib/x", "lib2to3/x", "pkg/__pycache__/x"):
        write(tmp_path, f"{name}.py", f'"""Docstring of {name}."""')
    assert list(documents(tmp_path)) == ["kept"]


def test_a_file_that_does_not_parse_is_left_out_with_a_warning(tmp_path):
    write(tmp_path, "bad.py", "def (:")
    write(tmp_path, "nul.py", "x = 1\0")
    write(tmp_path, "good.py", '"""Fine."""')
    with pytest.warns(DataWarning, match=r"(bad|nul).py: is not Python") as caught:
        assert list(documents(tmp_path)) == ["good"]
    assert len(caught) == 2


def test_old_sources_do_not_warn_of_their_escapes(tmp_path, recwarn):
    write(tmp_path, "old.py", '"""Path \\d."""')
    (tmp_path / "latin.py").write_bytes(b'# -*- coding: latin-1 -*-\n"""Caf\xe9."""')
    assert documents(tmp_path)["latin"] == "Café."
    assert not recwarn.list


def test_a_python_without_sources_is_an_error_with_a_cure(tmp_path):
    with pytest.raises(DataError, match=r"no .py files.*load_texts"):
        library_files(tmp_path)


def test_code_is_no_prose():
    text = """Join paths, as os.path.join does; see https://docs.python.org or mail guido@python.org.

    >>> join_all(fast=True)
    ... # more
    Uses baseHandler, HTTPServer and max_size4; keeps HTTP URLs and End.Begin words.
    """
    words = " ".join(prose(text).replace(",", "").replace(";", "").split())
    assert words == "Join paths as does see or mail Uses and keeps HTTP URLs and words."
