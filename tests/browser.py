"""A browser without a screen, to open pages with."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")


def browser() -> str:
    """A Chromium of this machine; without one the test is skipped."""
    names = [os.environ.get("CHROMIUM", ""), *BROWSERS]
    path = next(filter(None, map(shutil.which, filter(None, names))), None)
    return path or pytest.skip("there is no Chromium on this machine")


def document_of(page: Path, address: str = "", script: str = "", *, width: int = 1280, dark: bool = False) -> str:
    """The page's document as a browser has it once `script` has run.

    Args:
        address: what follows the name of the file.
        width: of the window, in pixels.
        dark: whether the reader prefers dark pages.
    """
    if script:
        # The page lets no script run but its own.
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
        page = page.with_name("driven.html")
        page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    profile = page.parent / "profile"
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
        f"--window-size={width},1000", "--dump-dom",
    ]  # fmt: skip
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    return subprocess.run(
        [*command, f"{page.as_uri()}{address}"], capture_output=True, text=True, timeout=240, check=True
    ).stdout


def measured(page: Path, expression: str, *, width: int = 1280, dark: bool = False) -> object:
    """The value of a JavaScript expression on the page as it is laid out."""
    script = (
        'addEventListener("load", () => { const out = document.createElement("output"); out.id = "measured"; '
        f"out.textContent = JSON.stringify({expression}); document.body.append(out); }});"
    )
    document = document_of(page, script=script, width=width, dark=dark)
    match = re.search(r'<output id="measured">(.*?)</output>', document, re.DOTALL)
    assert match, "the page's script failed"
    return json.loads(html.unescape(match.group(1)))
