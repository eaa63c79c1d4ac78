"""The entry points as processes, and what ends a command early."""

import os
import signal
import subprocess
import sys
import time

import pytest

from vipack import __version__
from vipack.cli import command_line, main

VIPACK = os.path.join(os.path.dirname(sys.executable), "vipack")
HELP = {
    "--help": ["demo", "check", "fit", "compare"],
    "demo --help": ["--out", "--quick"],
    "check --help": ["--guide", "--data", "--columns", "--fixed", "--batch-size"],
    "fit --help": ["fit.pt", "posterior.nc", "--steps", "--lr", "fullrank"],
    "compare --help": ["--guides", "compare.csv"],
}


def run(*command: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **options)


@pytest.mark.parametrize("command", HELP)
def test_help_names_what_there_is(command, capsys):
    assert main(command.split()) == 0
    said = capsys.readouterr()
    assert [word for word in HELP[command] if word not in said.out] == []
    assert said.err == ""


@pytest.mark.parametrize("command", [[VIPACK], [sys.executable, "-m", "vipack"]], ids=["script", "module"])
def test_both_entry_points_tell_their_version(command):
    found = run(*command, "--version")
    assert (found.returncode, found.stdout, found.stderr) == (0, f"vipack {__version__}\n", "")


def test_help_and_mistakes_import_no_torch():
    code = "import sys; from vipack.cli import main; main({}); sys.exit('torch' in sys.modules)"
    assert run(sys.executable, "-c", code.format(["--help"])).returncode == 0
    assert run(sys.executable, "-c", code.format(["fit", "--steps", "x"])).returncode == 0


def test_a_bad_command_line_is_one_line_of_a_process_too(here):
    found = run(sys.executable, "-m", "vipack", "check", "models.py:line", "--data", "table.csv")
    assert (found.returncode, found.stdout, found.stderr.count("\n")) == (2, "", 1)
    assert "Traceback" not in found.stderr


def test_a_reader_that_goes_away_is_no_error(here):
    command = f"set -o pipefail; {sys.executable} -m vipack check models.py:line --data xy.csv | true"
    found = run("bash", "-c", command)
    assert (found.returncode, found.stderr) == (1, "")


def test_ctrl_c_keeps_the_fit_so_far_and_ends_with_130(here):
    command = [
        sys.executable,
        "-m",
        "vipack",
        "fit",
        "models.py:telling_line",
        "--data",
        "xy.csv",
        "--out",
        "cut",
        "--draws",
        "50",
    ]
    process = subprocess.Popen(
        [*command, "--steps", "1000000"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (here / "training").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "Ctrl-C after" in out
    assert "fit.pt" in out
    assert (here / "cut" / "diagnosis.txt").read_text().count("interrupted") >= 1
    assert "Traceback" not in err


def test_ctrl_c_outside_training_ends_with_130(monkeypatch, capsys):
    def interrupted(chosen):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_run", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "vipack: interrupted\n"


def test_a_mistake_of_vipack_s_own_is_one_line(monkeypatch, capsys):
    def mistaken(chosen):
        raise TypeError("wrong\nin two lines")

    monkeypatch.setattr(command_line, "_run", mistaken)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == (
        "vipack: error: TypeError: wrong in two lines (a mistake in vipack; --debug shows where)\n"
    )


def test_a_full_disk_is_named(monkeypatch, capsys):
    def full(chosen):
        raise OSError(28, "No space left on device", "out/fit.pt")

    monkeypatch.setattr(command_line, "_run", full)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err.startswith("vipack: error: out/fit.pt: No space left on device")
