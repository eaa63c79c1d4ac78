"""``vipack check``: the table of sites and shapes, and what is wrong."""

from __future__ import annotations

import argparse
import sys

import vipack
from vipack.cli.guide_names import LADDER
from vipack.cli.programs import read_guide, read_program

__all__ = ["run"]


def run(chosen: argparse.Namespace) -> int:
    """0 if nothing would stop or spoil training, else 2."""
    program = read_program(chosen)
    guide = read_guide(chosen.guide)
    check = vipack.check(
        program.model,
        None if guide == LADDER else guide,
        data=program.arguments.data,
        fixed=program.arguments.fixed,
        batch_size=chosen.batch_size,
        batch_plate=chosen.batch_plate,
        seed=chosen.seed,
        dtype=program.dtype,
    )
    if check.table is None:  # there is nothing to show but the reason
        check.raise_if_bad()
    print(check)
    if check.ok:
        return 0
    count = len(check.errors)
    print(f"vipack: error: {chosen.model} has {count} error{'s' if count > 1 else ''}; see above.", file=sys.stderr)
    return 2
