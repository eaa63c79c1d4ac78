"""``vipack demo``: three real problems, fitted, judged and written up on one page."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyro
import torch

import vipack
from vipack.cli.demo.digits import run_digits
from vipack.cli.demo.page import write_page
from vipack.cli.demo.schools import run_schools
from vipack.cli.demo.section import Section, Settings, say
from vipack.cli.demo.speed import measure_speed
from vipack.cli.demo.topics import run_topics
from vipack.cli.programs import output_folder
from vipack.errors import MissingExtraError

__all__ = ["run"]

_PROBLEMS: dict[str, Callable[[Settings], Section]] = {
    "eight schools": run_schools,
    "topics": run_topics,
    "digits": run_digits,
}
_LEAD = "Variational inference for Pyro models: fit fast, compare guides, know when to trust the answer."


def run(chosen: argparse.Namespace) -> int:
    """Write the demo to a folder."""
    folder = output_folder(chosen.out)
    settings = Settings.of(chosen.seed, quick=chosen.quick)
    started = time.perf_counter()
    with _one_thread():
        sections = _run_problems(settings, folder)
        say("[4/4] steps a second")
        speed = measure_speed(settings)
    (folder / "speed.png").write_bytes(speed.png)
    seconds = time.perf_counter() - started
    left_out = "; digits need scikit-learn: pip install 'vipack[topics]'" if len(sections) < len(_PROBLEMS) else ""
    note = (
        f"vipack {vipack.__version__}, Pyro {pyro.__version__}, PyTorch {torch.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, seed {settings.seed}: {seconds:.0f} s"
        f"{', with --quick: too few steps to mean anything' if chosen.quick else ''}{left_out}."
    )
    write_page(folder / "index.html", sections, speed, _LEAD, note)
    say("=" * 72)
    for section in sections:
        say(f"{section.title}\n  {section.headline}\n  {section.verdict} {section.judged}")
    say(f"\ndone in {seconds:.0f} s; open {(folder / 'index.html').absolute()}")
    say(
        f"tables and pictures are beside it: {', '.join(sorted(p.name for p in folder.iterdir() if p.suffix != '.html'))}"
    )
    return 0


def _run_problems(settings: Settings, folder: Path) -> list[Section]:
    sections = []
    for i, (name, run_problem) in enumerate(_PROBLEMS.items(), start=1):
        say(f"[{i}/4] {name}")
        try:
            section = run_problem(settings)
        except MissingExtraError as error:  # a bare environment has no digits, and all else to show
            say(f"  left out: {error}")
            continue
        section.write(folder)
        sections.append(section)
    return sections


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """For models as small as these a second thread gains little, and costs much where another process wants the core.

    LDA on two cores that another process shared: 9 s with one thread, between 9 and 72 s with two.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
