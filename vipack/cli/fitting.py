"""``vipack fit``: one guide trained, and what there is to know of it written down."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import vipack
from vipack.cli.guide_names import LADDER
from vipack.cli.pictures import save_picture
from vipack.cli.programs import output_folder, read_guide, read_program, train
from vipack.cli.text_tables import text_table
from vipack.errors import UsageError
from vipack.types import StopReason

__all__ = ["run"]

_SHOWN_ROWS = 20


def run(chosen: argparse.Namespace) -> int:
    """0, or 130 after Ctrl-C, when what there is has been written as well."""
    program = read_program(chosen)
    guide = read_guide(chosen.guide)
    given = [f"--{name}" for name in ("steps", "lr") if getattr(chosen, name) is not None]
    given += ["--particles"] * (chosen.particles != 1)
    if guide == LADDER and given:
        raise UsageError(
            f"--guide {LADDER} trains its guides by itself, found {', '.join(given)}; leave one of them out."
        )
    folder = output_folder(chosen.out)
    fit = train(program, guide, chosen)
    fit.save(folder / "fit.pt")  # first of all, so that nothing later can lose it
    _write(fit, folder, chosen.draws, chosen.seed, False if chosen.raw else None)
    return 130 if fit.stopped.reason is StopReason.INTERRUPTED else 0


def _write(fit: vipack.Fit, folder: Path, num_draws: int, seed: int, resample: bool | None) -> None:
    diagnosis = fit.diagnose(4 * num_draws, seed=seed)  # before anything is shown, which follows it
    fit.save(folder / "fit.pt")  # with the verdict
    summary = fit.summary(num_draws, seed=seed, resample=resample)
    summary.assign(draws=summary.columns.name).to_csv(folder / "summary.csv", index_label="site")
    if len(fit.losses):
        save_picture(vipack.plots.losses(fit), folder / "losses.png")
    picture = vipack.plots.posterior(fit, num_draws=num_draws, seed=seed, resample=resample)[0]
    save_picture(picture, folder / "posterior.png")
    try:
        exported = fit.to_arviz(num_draws, seed=seed, resample=resample)
        exported.to_netcdf(str(folder / "posterior.nc"), engine="h5netcdf")
    except UsageError as error:  # too large to hold
        print(f"vipack: warning: posterior.nc is left out: {error}", file=sys.stderr)
    said = f"summary.csv, posterior.nc and posterior.png show {summary.attrs['draws']}"
    (folder / "diagnosis.txt").write_text(f"{diagnosis}\n{said}\n\n{fit!r}\n\n{fit.check}\n", encoding="utf-8")
    print(f"{summary.attrs['draws']}:")
    print(text_table(summary.head(_SHOWN_ROWS)))
    if len(summary) > _SHOWN_ROWS:
        print(f"... {len(summary) - _SHOWN_ROWS} more in summary.csv")
    if fit.stages:
        print(f"\n{fit.stages}")
    print(f"\n{diagnosis}\n\n{fit.steps} steps in {fit.seconds:.1f} s ({fit.stopped})")
    print(f"written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
