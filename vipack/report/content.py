"""What a page is made of: sections with their texts, tables, pictures and code, all of them plain text until they are rendered."""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from vipack.report.cells import cells, is_text

__all__ = ["Banner", "Code", "Link", "Picture", "Section", "Table"]

_DPI = 130
_WIDE = 560  # pixels, beyond which a phone scrolls a picture sideways, where it can be read


@dataclass(frozen=True)
class Banner:
    """A verdict, and sentences on it."""

    verdict: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """Source code under a title; without `text` the note says why there is none."""

    title: str
    text: str = ""
    note: str = ""


@dataclass(frozen=True)
class Link:
    """A way to another page."""

    target: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        caption: a sentence that says what it shows, under it.
        description: what a reader who does not see it is to know; the caption by default.
        plot: whether its colours may be inverted on a dark page, as those of photographs may not.
    """

    figure: Figure
    caption: str
    description: str = ""
    plot: bool = True

    @property
    def alt(self) -> str:
        """The picture in words."""
        return self.description or self.caption

    @property
    def width(self) -> int:
        """In pixels of a page."""
        return round(80 * self.figure.get_figwidth())

    @property
    def height(self) -> int:
        """In pixels of a page."""
        return round(80 * self.figure.get_figheight())

    @property
    def wide(self) -> bool:
        """Whether a phone scrolls it sideways."""
        return self.width > _WIDE

    @functools.cached_property
    def png(self) -> bytes:
        """The picture as a file."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=_DPI)
        return file.getvalue()

    @property
    def uri(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


@dataclass(frozen=True)
class Table:
    """A table; the caption is its name for a screen reader, and stands above it if asked for."""

    frame: pd.DataFrame
    caption: str
    show_caption: bool = True

    @property
    def head(self) -> list[tuple[str, bool]]:
        """Its cells, and whether each stands over words."""
        return list(zip(cells(self.frame)[0], is_text(self.frame), strict=True))

    @property
    def rows(self) -> list[list[tuple[str, bool]]]:
        """Cells, and whether each is words."""
        text = is_text(self.frame)
        return [list(zip(row, text, strict=True)) for row in cells(self.frame)[1:]]


@dataclass(frozen=True)
class Section:
    """A section of a page; a drawing is HTML, all else plain text. Sections within it may stand side by side."""

    title: str
    texts: Sequence[str] = ()
    notes: Sequence[str] = ()
    links: Sequence[Link] = ()
    drawing: Markup | None = None
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    codes: Sequence[Code] = ()
    sections: Sequence[Section] = ()
    side_by_side: bool = False

    @property
    def anchor(self) -> str:
        """The title as the name of a place to link to."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-") or "section"
