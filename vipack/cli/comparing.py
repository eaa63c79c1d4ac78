"""``vipack compare``: several guides for one model, best first."""

from __future__ import annotations

import argparse

import vipack
from vipack.cli.pictures import save_picture
from vipack.cli.programs import output_folder, read_guide, read_program, train
from vipack.cli.text_tables import certified_by, for_people, text_table
from vipack.errors import UsageError, VipackError
from vipack.types import StopReason

__all__ = ["run"]


def run(chosen: argparse.Namespace) -> int:
    """0, or 130 after Ctrl-C, when the fits so far have been compared as well."""
    program = read_program(chosen)
    names = [name.strip() for name in chosen.guides.split(",")]
    repeated = [name for name in names if names.count(name) > 1]
    if "" in names or repeated:
        what = f"{repeated[0]!r} occurs twice" if repeated and repeated[0] else "a name is empty"
        raise UsageError(f"--guides {chosen.guides!r}: {what}; give different names, separated by commas.")
    guides = {name: read_guide(name) for name in names}
    folder = None if chosen.out is None else output_folder(chosen.out)
    fits: dict[str, vipack.Fit] = {}
    interrupted = False
    for name, guide in guides.items():
        if not chosen.quiet:
            print(f"{name}:", flush=True)
        try:
            fits[name] = train(program, guide, chosen)
        except VipackError as error:
            raise type(error)(f"guide {name}: {error}") from error
        interrupted = fits[name].stopped.reason is StopReason.INTERRUPTED
        if interrupted:
            break
    table = vipack.compare(fits, seed=chosen.seed, progress=False if chosen.quiet else None)
    print(text_table(for_people(table)))
    print(certified_by(table))
    if folder is not None:
        table.to_csv(folder / "compare.csv")
        save_picture(vipack.plots.compare(table), folder / "compare.png")
        print(f"written to {folder}: compare.csv, compare.png")
    return 130 if interrupted or len(table) < len(fits) else 0
