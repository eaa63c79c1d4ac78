import gzip
import hashlib
import logging
import socket
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from tests.datasets.test_idx import idx
from vipack.datasets import mnist, mnist_files
from vipack.errors import DataError, DataWarning, MissingExtraError, UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)
FILES = {"train-images-idx3-ubyte": idx(IMAGES), "train-labels-idx1-ubyte": idx(LABELS)}


class Server:
    """Five digits on a local port; `requests` counts what was asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.requests = []
        seen = self.requests

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *arguments):
                seen.append(self.path)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path, monkeypatch):
    folder = tmp_path / "served"
    folder.mkdir()
    registry = {}
    for name, content in FILES.items():
        packed = gzip.compress(content)
        (folder / f"{name}.gz").write_bytes(packed)
        registry[f"{name}.gz"] = hashlib.sha256(packed).hexdigest()
    monkeypatch.setattr(mnist_files, "_REGISTRY", registry)
    monkeypatch.setattr(mnist_files, "_RETRIES", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server(folder)
    yield server
    server.stop()


def check(found):
    np.testing.assert_allclose(found.images * 255, IMAGES, atol=1e-4)
    assert found.images.dtype == np.float32
    assert found.labels.tolist() == LABELS.tolist()


def test_a_download_is_kept_and_used_again_without_a_request(server, cache, capfd):
    found = mnist(url=server.url)
    check(found)
    assert server.url in found.source
    assert found.licence == "CC BY-SA 3.0"
    assert sorted(p.name for p in (cache / "mnist").iterdir()) == sorted(mnist_files._REGISTRY)
    assert len(server.requests) == 2
    check(mnist(url=server.url))
    assert len(server.requests) == 2
    assert capfd.readouterr() == ("", "")


def test_the_cache_serves_when_the_server_is_gone(server):
    mnist(url=server.url)
    server.stop()
    check(mnist(url=server.url))


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, cache):
    mnist(url=server.url)
    (cache / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    check(mnist(url=server.url))
    assert len(server.requests) == 3


def test_a_file_with_another_checksum_is_refused_and_not_kept(server, cache):
    name = "train-images-idx3-ubyte.gz"
    (server.folder / name).write_bytes(gzip.compress(idx(IMAGES[:4])))
    with pytest.raises(DataError, match=rf"{server.url}: the {name} found there is not the expected file.*folder="):
        mnist(url=server.url)
    assert list((cache / "mnist").iterdir()) == []


def test_a_file_that_is_not_there_is_an_error_with_a_cure(server):
    (server.folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"could not download train-labels-idx1-ubyte.gz .*404.*mnist\(folder=...\)"):
        mnist(url=server.url)


def test_a_server_that_is_down_is_an_error_with_a_cure(server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(
        DataError, match=r"could not download .*ConnectionError.*check the network.*mnist\(folder=...\)"
    ):
        mnist(url=url)


def test_an_address_of_no_known_kind_is_an_error(server):
    with pytest.raises(DataError, match="gopher://x: could not download"):
        mnist(url="gopher://x")


def test_a_cache_that_cannot_be_written_costs_a_warning_only(server, cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(DataWarning, match="cache cannot be written.*VIPACK_CACHE"):
        check(mnist(url=server.url))


def test_poochs_logger_is_left_as_it_was(server):
    import pooch

    pooch.get_logger().setLevel(logging.DEBUG)
    mnist(url=server.url)
    assert pooch.get_logger().level == logging.DEBUG


def test_without_pooch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vipack\[data\]'.*folder"):
        mnist()


@pytest.mark.parametrize("rename", [str, lambda n: n.replace("-idx", ".idx"), lambda n: n + ".gz"])
def test_a_folder_of_files_is_read_under_the_names_of_mirrors(tmp_path, monkeypatch, rename):
    monkeypatch.setitem(sys.modules, "pooch", None)
    for name, content in FILES.items():
        name = rename(name)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = mnist(tmp_path)
    check(found)
    assert str(tmp_path) in found.source


def test_a_folder_without_the_files_is_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(FILES["train-images-idx3-ubyte"])
    with pytest.raises(DataError, match=r"has neither train-labels-idx1-ubyte.gz .*it has train-images-idx3-ubyte"):
        mnist(tmp_path)
    with pytest.raises(DataError, match="t10k-images"):
        mnist(tmp_path, split="test")
    with pytest.raises(DataError, match="no such folder"):
        mnist(tmp_path / "nothing")


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:3]))
    with pytest.raises(DataError, match="5 images but labels of shape"):
        mnist(tmp_path)


def test_the_split_is_one_of_two():
    with pytest.raises(UsageError, match="split: expected 'train' or 'test', found 'valid'"):
        mnist(split="valid")
