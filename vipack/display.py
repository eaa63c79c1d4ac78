"""How results show: as readable text at a prompt, and as small HTML in a notebook, on a light or a dark page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["Readable", "badge", "block", "element_name", "grid", "listed", "shortened"]

_MOST_LINES, _LAST_LINES, _MOST_LETTERS = 40, 8, 800
# White on these reads well on any page; all other colours are the page's own.
_COLOURS = {"TRUST": "#00785a", "CORRECTED": "#8f6200", "DISTRUST": "#b34a00"}


class Readable:
    """A result that a prompt shows as its text instead of its fields, and a notebook as the same text, escaped."""

    __slots__ = ()

    def __repr__(self) -> str:
        return shortened(str(self))

    def _repr_html_(self) -> str:
        return block(repr(self))


def shortened(text: str) -> str:
    """`text`, of a great many lines the first and the last, of very long lines the beginning."""
    lines = [line if len(line) <= _MOST_LETTERS else f"{line[:_MOST_LETTERS]} ..." for line in text.split("\n")]
    left_out = len(lines) - _MOST_LINES
    if left_out > 0:
        lines[_MOST_LINES - _LAST_LINES : -_LAST_LINES] = [f"... {left_out} more lines; print() shows them"]
    return "\n".join(lines)


def listed(names: Iterable[str], most: int = 8) -> str:
    """The names, of many the first and how many more there are."""
    listed_names = list(names)
    return ", ".join(listed_names[:most]) + (
        f" and {len(listed_names) - most} more" if len(listed_names) > most else ""
    )


def element_name(name: str, index: tuple[int, ...]) -> str:
    """An element of a site, as ``theta[0, 1]``; a scalar site's own name."""
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def badge(verdict: str) -> str:
    """A verdict on a ground of its colour; other words as they are, escaped."""
    colour = _COLOURS.get(verdict)
    if colour is None:
        return html.escape(verdict)
    style = f"background:{colour};color:#fff;padding:0 .4em;border-radius:.2em;font-weight:600"
    return f'<span style="{style}">{html.escape(verdict)}</span>'


def block(text: str, head: str = "") -> str:
    """`text`, escaped, its lines as they are.

    Args:
        head: HTML to stand before it.
    """
    return f'<pre style="margin:0;white-space:pre-wrap">{head}{html.escape(text)}</pre>'


def grid(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table of `rows` of text, escaped; of a great many the first and the last."""
    lines = [_row("td", row) for row in rows]
    left_out = len(lines) - _MOST_LINES
    if left_out > 0:
        lines[_MOST_LINES - _LAST_LINES : -_LAST_LINES] = [_row("td", [f"... {left_out} more"])]
    top = f"<thead>{_row('th', head)}</thead>" if head else ""
    return f'<table style="color:inherit">{top}<tbody>{"".join(lines)}</tbody></table>'


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(_cell(tag, cell) for cell in cells)}</tr>"


def _cell(tag: str, text: str) -> str:
    whole = ";white-space:nowrap" if len(text) < 24 else ""
    return f'<{tag} style="text-align:left;vertical-align:top;padding:.1em .6em{whole}">{badge(text)}</{tag}>'
