import base64
import hashlib

import pytest

from vipack.errors import UsageError
from vipack.plots.html_page import html_page, save_page


def test_a_page_allows_its_own_style_and_script_only():
    page = html_page("a <title>", "<p>body</p>", style="p { color: red }", script="let x = 1;")
    digest = base64.b64encode(hashlib.sha256(b"let x = 1;").digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "<title>a &lt;title&gt;</title>" in page
    assert page.index("<p>body</p>") < page.index("<script>let x = 1;</script>")


def test_a_page_without_script_allows_none():
    page = html_page("title", "<p>body</p>")
    assert "script-src 'none'" in page
    assert "style-src 'none'" in page
    assert "<script" not in page


def test_pages_are_written_as_utf8_into_folders_that_exist(tmp_path):
    path = save_page(tmp_path / "page.html", "é\n")
    assert path.read_bytes() == "é\n".encode()
    with pytest.raises(UsageError, match=r"path: the folder .*nowhere does not exist"):
        save_page(tmp_path / "nowhere" / "page.html", "")
    with pytest.raises(UsageError, match="is a folder; name a file in it"):
        save_page(tmp_path, "")
