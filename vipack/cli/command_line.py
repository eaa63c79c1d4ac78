"""From a command line to an exit code: 0 done, 2 bad input (one line says what and how to correct it), 130 interrupted."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from vipack.cli.parser import parse
from vipack.errors import VipackError, VipackWarning

__all__ = ["main"]

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``vipack``; those of the process by default.

    Returns:
        The exit code.
    """
    try:
        chosen = parse(arguments)
    except VipackError as error:
        return _complain(error)
    except SystemExit as end:  # --help and --version have said what was asked for
        return int(end.code or DONE)
    if chosen.debug:
        return _run(chosen)
    try:
        with warnings.catch_warnings():
            _warn_in_one_line()
            return _run(chosen)
    except VipackError as error:
        return _complain(error)
    except KeyboardInterrupt:
        print("vipack: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does; the interpreter must not try to flush what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}; choose another folder, or look at its permissions.")
    except Exception as error:  # a mistake of vipack's own, since every error of a user's is a VipackError
        _complain(f"{type(error).__name__}: {error} (a mistake in vipack; --debug shows where)")
        return FAILED


def _run(chosen: argparse.Namespace) -> int:
    # A command is imported when it is asked for: torch takes seconds, and --help needs none of it.
    code: int = importlib.import_module(f"vipack.cli.{chosen.module}").run(chosen)
    sys.stdout.flush()  # here, where a reader that has gone away is dealt with
    return code


def _complain(problem: VipackError | str) -> int:
    print(f"vipack: error: {_one_line(problem)}", file=sys.stderr)
    return BAD_INPUT


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _warn_in_one_line() -> None:
    """A warning is one line without its line in the source; what libraries say to developers is left out."""

    def show(message: Warning | str, category: type[Warning], *location: Any, **more: Any) -> None:
        print(f"vipack: warning: {_one_line(message)}", file=sys.stderr)

    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    warnings.simplefilter("always", VipackWarning)
    warnings.showwarning = show
