"""One section of the demo: what was asked, what came out, and whether to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from vipack.cli.text_tables import markdown_table
from vipack.report.content import Picture

__all__ = ["Section", "Settings", "say"]


@dataclass(frozen=True)
class Settings:
    """How much work each section does."""

    seed: int
    school_steps: int
    topic_steps: int
    digit_steps: int
    num_draws: int
    quick: bool

    @staticmethod
    def of(seed: int, *, quick: bool) -> Settings:
        """The full demo, or just enough to see that everything runs."""
        return Settings(seed, 60, 30, 60, 200, True) if quick else Settings(seed, 2_000, 1_200, 2_500, 4_000, False)


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        headline: what came out, in a sentence that holds whatever the verdict is.
        question: what is asked, of which data and model.
        verdict: TRUST, CORRECTED or DISTRUST.
        judged: what the verdict is on, and what it means for the headline.
        see: what to look at.
        trust: whether to believe it, and why.
        tables, pictures: by file name without its ending.
        columns: of a table, those that the page has room for; all are in its files.
        seconds: everything included.
    """

    title: str
    headline: str
    question: str
    verdict: str
    judged: str
    see: str
    trust: str
    tables: Mapping[str, pd.DataFrame]
    pictures: Mapping[str, Picture]
    seconds: float
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """The tables as CSV and Markdown, the pictures as PNG."""
        for name, table in self.tables.items():
            table.to_csv(folder / f"{name}.csv")
            (folder / f"{name}.md").write_text(markdown_table(table) + "\n", encoding="utf-8")
        for name, picture in self.pictures.items():
            (folder / f"{name}.png").write_bytes(picture.png)


def say(text: str = "") -> None:
    """A line for who is watching, at once even into a file."""
    print(text, flush=True)
