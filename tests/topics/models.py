"""Topic models whose arrays are known, and a browser to open their pages with."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from vipack.datasets import Corpus

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")


def random_model(num_topics=5, num_words=60, num_documents=40, *, seed=0, vocabulary=None, titles=None):
    """Topics, shares of documents, and a corpus drawn from them."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(num_words, 0.1), num_topics)
    theta = rng.dirichlet(np.full(num_topics, 0.3), num_documents)
    mixed = theta @ topics
    counts = scipy.sparse.csr_array(np.stack([rng.multinomial(50, row / row.sum()) for row in mixed]))
    words = [f"word{i}" for i in range(num_words)] if vocabulary is None else vocabulary
    named = [f"document {i}" for i in range(num_documents)] if titles is None else titles
    return topics, theta, Corpus("random", counts, tuple(words), tuple(named), "random numbers", "CC0")


def browser() -> str:
    """A Chromium of this machine; without one the test is skipped."""
    names = [os.environ.get("CHROMIUM", ""), *BROWSERS]
    path = next(filter(None, map(shutil.which, filter(None, names))), None)
    return path or pytest.skip("there is no Chromium on this machine")


def document_of(page: Path, address: str = "", script: str = "") -> str:
    """The page's document as a browser has it once `script` has run.

    Args:
        address: what follows the name of the file.
    """
    if script:
        # The page lets no script run but its own.
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
        page = page.with_name("driven.html")
        page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    profile = page.parent / "profile"
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    return subprocess.run(
        [*command, f"{page.as_uri()}{address}"], capture_output=True, text=True, timeout=120, check=True
    ).stdout
