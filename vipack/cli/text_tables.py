"""Tables as text, Markdown and HTML, with as many digits as say something."""

from __future__ import annotations

import html
import math
import numbers

import pandas as pd

__all__ = ["certified_by", "for_people", "html_table", "markdown_table", "text_table"]

_VERDICTS = ("TRUST", "CORRECTED", "DISTRUST")
_DIGITS = {"ess": 0, "seconds": 1}  # of columns that two decimals do not suit


def text_table(table: pd.DataFrame) -> str:
    """Aligned columns, as a terminal shows them."""
    rows, text = _cells(table), _is_text(table)
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
    head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in _cells(table)]
    line = ["---" if text else "---:" for text in _is_text(table)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, line, *rows])


def html_table(table: pd.DataFrame) -> str:
    """A table element; cells are escaped, those of text have the class "text", verdicts their own in lower case as well."""
    head, *rows = [[html.escape(cell) for cell in row] for row in _cells(table)]
    text = _is_text(table)
    lines = [
        "<table>",
        "<tr>" + "".join(_element("th", cell, left) for cell, left in zip(head, text, strict=True)) + "</tr>",
    ]
    for row in rows:
        lines.append(
            "<tr>" + "".join(_element("td", cell, left) for cell, left in zip(row, text, strict=True)) + "</tr>"
        )
    return "\n".join([*lines, "</table>"])


def _element(tag: str, cell: str, text: bool) -> str:
    classes = ["text"] * text + [cell.lower()] * (cell in _VERDICTS)
    return f'<{tag} class="{" ".join(classes)}">{cell}</{tag}>' if classes else f"<{tag}>{cell}</{tag}>"


def _is_text(table: pd.DataFrame) -> list[bool]:
    """Of the index and each column: whether it holds words."""
    return [True, *(not pd.api.types.is_numeric_dtype(table[column]) for column in table.columns)]


def _cells(table: pd.DataFrame) -> list[list[str]]:
    head = [str(table.index.name or ""), *map(str, table.columns)]
    return [head, *([_cell(value, name) for name, value in zip(head, row, strict=True)] for row in table.itertuples())]


def _cell(value: object, column: str) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        return str(value)
    shown = float(value)
    digits = 4 if 0 < abs(shown) < 0.01 else 2
    return f"{shown:,.{_DIGITS.get(column, digits)}f}"
