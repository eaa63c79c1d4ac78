"""A release that nobody has tried gives a warning, once, and is not refused."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from vipack.compat.versions import TESTED, warn_if_untested
from vipack.errors import VersionWarning


@pytest.mark.parametrize(
    ("torch_version", "pyro_version", "said"),
    [
        ("2.14.0", "1.9.2", r"torch 2\.14\.0 is newer than .* 2\.8 to 2\.13"),
        ("3.0.0a0+git1", "1.9.2", r"torch 3\.0\.0a0\+git1 is newer"),
        ("2.7.1", "1.9.2", r"torch 2\.7\.1 is older"),
        ("2.13.0", "1.10.0", r"Pyro 1\.10\.0 is newer than .* 1\.9\.2 to 1\.9\.2"),
        ("2.13.0", "1.9.1", r"Pyro 1\.9\.1 is older"),
    ],
)
def test_what_was_not_tried_is_said(torch_version, pyro_version, said):
    with pytest.warns(VersionWarning, match=said):
        warn_if_untested(torch_version, pyro_version)


@pytest.mark.parametrize("torch_version", ["2.8.0+cu128", "2.10.0", "2.13.0+cpu", "2.13.1"])
@pytest.mark.parametrize("pyro_version", ["1.9.2", "1.9.2.post1"])
def test_nothing_is_said_of_what_was(torch_version, pyro_version):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_untested(torch_version, pyro_version)


def test_the_oldest_tried_is_the_oldest_claimed():
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"torch>={TESTED["torch"][0]}"' in pyproject
    assert f'"pyro-ppl>={TESTED["Pyro"][0]}"' in pyproject


def test_a_newer_release_warns_once_and_fits():
    code = """
import torch
torch.__version__ = "9.9.0"
import vipack as vi
vi.fit
vi.SVI
from vipack.guides import Flow
print("imported")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "imported\n"
    assert found.stderr.count("VersionWarning: torch 9.9.0 is newer") == 1
