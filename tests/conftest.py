"""What every test starts from, and what none may change."""

import gc
import os
import signal
from pathlib import Path

import pyro
import pytest
import torch

from vipack.engine.steps import promotion


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is collected stays. Capture makes many small objects, and to look through all others for garbage took an eighth of the time."""
    gc.disable()
    result = yield
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()
    return result


@pytest.fixture(autouse=True, scope="session")
def _a_cache_of_compiled_steps(tmp_path_factory):
    """Shared by the workers of a run; a folder named in the environment is kept from run to run."""
    if "VIPACK_CACHE" not in os.environ:
        base = tmp_path_factory.getbasetemp()
        root: Path = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
        os.environ["VIPACK_CACHE"] = str(root / "vipack-cache")


@pytest.fixture(autouse=True, scope="session")
def _nothing_compiled_unasked():
    """Whether it would pay depends on how fast the machine is; tests/engine, where this is tested, takes it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promotion, "_COMPILE_SHARE", float("inf"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard():
    # A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _a_clean_process():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    assert torch.get_default_dtype() is torch.float32
