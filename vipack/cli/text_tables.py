"""Tables as text and Markdown."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from vipack.report.cells import cells, is_text
from vipack.types import Verdict

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


def certified_by(verdicts: Iterable[str]) -> str:
    """What the verdicts of a table certify, in a line each, and what none does."""
    seen = set(verdicts)
    lines = [f"{verdict.value} certifies {verdict.certifies}" for verdict in Verdict if verdict.value in seen]
    return "\n".join(
        [*lines, "no verdict looks at tails, quantiles and small probabilities, or certifies the evidence"]
    )


def markdown_table(table: pd.DataFrame) -> str:
    """A table as GitHub and most others read it."""
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells(table)]
    line = ["---" if text else "---:" for text in is_text(table)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, line, *rows])
