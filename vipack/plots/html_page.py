"""Pages that stand alone: one HTML file with its style and script, which fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from pathlib import Path

from vipack.errors import UsageError

__all__ = ["html_page", "page_path", "save_page"]


def html_page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """The text of a page.

    A content security policy lets `style`, `script` and embedded pictures through and nothing else: neither the network, nor
    code that got into `body` with a title or a word.

    Args:
        title: plain text.
        body: HTML, whose texts are escaped already.
        style: CSS.
        script: JavaScript, run once `body` is there.
    """
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; {_only('style', style)}; {_only('script', script)}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        + (f"<style>{style}</style>\n" if style else "")
        + f"</head>\n<body>\n{body}\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def save_page(path: str | os.PathLike[str], text: str) -> Path:
    """Write a page as UTF-8.

    Raises:
        UsageError: the folder does not exist, or `path` is one.
    """
    target = page_path(path)
    target.write_text(text, encoding="utf-8", newline="\n")
    return target


def page_path(path: str | os.PathLike[str]) -> Path:
    """`path`, where a page can be written; to be asked before work that would be lost.

    Raises:
        UsageError: the folder does not exist, or `path` is one.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"path: {target} is a folder; name a file in it, such as {target / 'page.html'}.")
    if not target.parent.is_dir():
        raise UsageError(f"path: the folder {target.parent} does not exist; create it first.")
    return target


def _only(kind: str, text: str) -> str:
    """The directive that allows `text` and no other style or script."""
    if not text:
        return f"{kind}-src 'none'"
    return f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
