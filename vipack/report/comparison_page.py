"""The page of a comparison."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from vipack.diagnostics.comparison_table import Comparison
from vipack.plots.comparison import compare
from vipack.plots.html_page import page_path, save_page
from vipack.report.content import Banner, Code, Picture, Section, Table
from vipack.report.figures import figure_of
from vipack.report.fit_page import banner_of, verdict_section, versions
from vipack.report.rendering import render
from vipack.report.source_code import code_of
from vipack.report.training_section import loss_picture
from vipack.types import Verdict
from vipack.version import __version__

__all__ = ["write_comparison_page"]

_SHOWN = ("rank", "elbo", "elbo_diff", "diff_se", "evidence", "khat", "ess", "verdict", "seconds", "stopped")


def write_comparison_page(comparison: Comparison, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
    """Write the page of `comparison`; see :meth:`Comparison.report`.

    Raises:
        UsageError: the folder does not exist.
    """
    page_path(path)
    names = [str(name) for name in comparison.index]
    best = names[0]
    shown = pd.DataFrame(comparison[list(_SHOWN)]).assign(rank=comparison["rank"] + 1)
    diagnosis = comparison.diagnoses[best]
    banner = banner_of(diagnosis)
    certified = Banner(
        banner.verdict, (f"For {best}, the fit with the highest ELBO. {banner.texts[0]}", *banner.texts[1:])
    )
    sections = [
        Section(
            "Comparison",
            [
                _difference(comparison),
                "ELBOs and evidence are in nats; elbo_diff is how far a fit is below the best, and diff_se the standard error of "
                "that, from draws that share their random numbers.",
            ],
            tables=[Table(shown, "Fits, the highest ELBO first")],
            pictures=[
                Picture(
                    figure_of(compare(comparison)),
                    "ELBO of each fit, with the log evidence that its weights estimate.",
                    "ELBO of each fit in nats: "
                    + "; ".join(
                        f"{name} {comparison.loc[name, 'elbo']:.2f}, {comparison.loc[name, 'verdict']}"
                        for name in names
                    )
                    + ".",
                )
            ],
        ),
        *(_fit_section(comparison, name) for name in names),
        _code_section(comparison, names),
        _versions_section(comparison, names),
    ]
    page = render(
        title or f"{len(names)} {'fit' if len(names) == 1 else 'fits'} compared",
        "report.html",
        lead=f"Fits of one data set, the best first: {', '.join(names)}.",
        banner=certified,
        figures={verdict.value: _count(comparison, verdict) for verdict in Verdict},
        sections=sections,
        footer=f"Written by vipack {__version__}. The page holds everything itself and fetches nothing.",
    )
    return save_page(path, page)


def _difference(comparison: Comparison) -> str:
    if len(comparison) < 2:
        return "There is one fit, so nothing to compare it with."
    first, second = comparison.iloc[0], comparison.iloc[1]
    difference, error = float(second["elbo_diff"]), float(second["diff_se"])
    clear = "more than two of its standard errors" if difference > 2 * error else "less than two of its standard errors"
    return (
        f"{first.name} has the highest ELBO, {difference:.2f} ± {error:.2f} nats above {second.name}: {clear}. A higher ELBO is a "
        "better fit of the same model, but whether its answers can be believed is for the verdict to say."
    )


def _count(comparison: Comparison, verdict: Verdict) -> str:
    count = int((comparison["verdict"] == verdict.value).sum())
    return f"{count} of {len(comparison)}"


def _fit_section(comparison: Comparison, name: str) -> Section:
    fit = comparison.fits[name]
    judged = verdict_section(comparison.diagnoses[name])
    seconds = float(comparison.loc[name, "seconds"])
    return Section(
        f"{name}: {comparison.loc[name, 'verdict']}",
        [f"Training took {seconds:.1f} s and ended for this reason: {fit.stopped}."],
        pictures=loss_picture(fit, name) if hasattr(fit, "losses") else [],  # type: ignore[arg-type]
        sections=judged.sections,
        side_by_side=True,
    )


def _code_section(comparison: Comparison, names: list[str]) -> Section:
    """The source of models and guides, each once."""
    codes: dict[tuple[str, str], Code] = {}
    for name in names:
        program = comparison.fits[name].posterior.program
        for what, run in (("Model", program.model), ("Guide", program.guide)):
            code = code_of(what, run)
            codes.setdefault((code.title, code.text), code)
    return Section("Code", codes=list(codes.values()))


def _versions_section(comparison: Comparison, names: list[str]) -> Section:
    facts = {name: getattr(comparison.fits[name], "setup", {}) for name in names}
    frame = pd.DataFrame.from_dict(facts, orient="index")
    frame.index.name = "fit"
    known = versions()
    table = pd.DataFrame({"value": list(known.values())}, index=pd.Index(list(known), name="what"))
    tables = [Table(frame, "What each training was given")] if len(frame.columns) else []
    return Section("Versions and seeds", tables=[*tables, Table(table, "Versions", show_caption=False)])
