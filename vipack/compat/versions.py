"""Which releases of torch and Pyro vipack has been tested with; see docs/versions.md."""

from __future__ import annotations

import re

from vipack.errors import VersionWarning, warn

__all__ = ["TESTED", "warn_if_untested"]

TESTED = {"torch": ("2.8", "2.13"), "Pyro": ("1.9.2", "1.9.2")}  # the oldest and the newest of each


def warn_if_untested(torch_version: str, pyro_version: str) -> None:
    """Say so where a release is newer than what has been tried, or older; nothing is refused."""
    for package, version in (("torch", torch_version), ("Pyro", pyro_version)):
        oldest, newest = TESTED[package]
        if _numbers(version, newest) > _numbers(newest, newest):
            which = "is newer than"
        elif _numbers(version, oldest) < _numbers(oldest, oldest):
            which = "is older than"
        else:
            continue
        warn(
            VersionWarning(
                f"{package} {version} {which} the releases that vipack has been tested with, {oldest} to {newest}. What it does not find "
                "there it does without, on a slower engine if need be, and fit.engine says why."
            )
        )


def _numbers(version: str, like: str) -> tuple[int, ...]:
    """As many leading numbers of a version as `like` has."""
    numbers = [int(number) for number in re.findall(r"\d+", version.partition("+")[0])]
    return tuple(numbers[: like.count(".") + 1])
