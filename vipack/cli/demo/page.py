"""The demo as one page that holds everything: it can be mailed, and opens without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vipack.cli.demo.section import Section
from vipack.plots.html_page import save_page
from vipack.report.content import Picture, Table
from vipack.report.rendering import render

__all__ = ["write_page"]


def write_page(path: Path, sections: Sequence[Section], speed: Picture, lead: str, note: str) -> None:
    """Write the page of `sections`.

    Args:
        speed: steps a second, beside Pyro's.
        lead: under the title.
        note: at the foot: versions, machine, seed.
    """
    page = render(
        "vipack demo",
        "demo.html",
        package="vipack.cli.demo",
        lead=lead,
        speed=speed,
        problems=[(section, _tables(section)) for section in sections],
        note=note,
    )
    save_page(path, page)


def _tables(section: Section) -> list[Table]:
    """The columns that the page has room for."""
    return [
        Table(
            table[list(section.columns[name])] if name in section.columns else table, section.title, show_caption=False
        )
        for name, table in section.tables.items()
    ]
