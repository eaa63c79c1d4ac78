"""Tables as text and Markdown."""

from __future__ import annotations

import pandas as pd

from vipack.report.cells import cells, is_text

__all__ = ["certified_by", "for_people", "markdown_table", "text_table"]


def text_table(table: pd.DataFrame) -> str:
    """Aligned columns, as a terminal shows them."""
    rows, text = cells(table), is_text(table)
    widths = [max(len(row[i]) for row in rows) for i in range(len(text))]
    aligned = [
        [cell.ljust(width) if left else cell.rjust(width) for cell, width, left in zip(row, widths, text, strict=True)]
        for row in rows
    ]
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """A comparison as the command line shows it: ranks from 1, and in words below it what the verdicts certify."""
    hidden = ["certified"] if bool((table["copies"] > 1).any()) else ["certified", "copies"]
    return table.drop(columns=hidden).assign(rank=table["rank"] + 1)


def certified_by(table: pd.DataFrame) -> str:
    """What the verdicts of a comparison certify, in a line each."""
    pairs = dict.fromkeys(zip(table["verdict"], table["certified"], strict=True))
    return "\n".join(f"{verdict} certifies {certified}" for verdict, certified in pairs)


def markdown_table(table: pd.DataFrame) -> str:
    """A table as GitHub and most others read it."""
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells(table)]
    line = ["---" if text else "---:" for text in is_text(table)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, line, *rows])
