"""What every test starts from, and what none may change."""

import gc
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

from vipack.engine.steps import promotion
from vipack.program import RandomState

# pytest listens to every logger that does not propagate, and torch writes down a stack for each tensor of a trace as long
# as anybody listens to this one: more than a tenth of the time that a graph takes.
_traces = logging.getLogger("torch.__trace")
_traces.handlers.clear()
_traces.propagate = True


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Capture makes many small objects; to look for garbage after every few hundred of them took an eighth of the time."""
    gc.disable()  # all that is collected stays; it is not frozen, since the product finds modules among the collector's objects
    result = yield
    gc.set_threshold(20_000, 20, 20)
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
def _the_interpreter_is_compiled_meanwhile(_a_cache_of_compiled_steps, _ctrl_c_is_heard):
    """The first tests that need it would come after a minute, and one worker after the other would wait for it."""
    if os.environ.get("PYTEST_XDIST_WORKER") != "gw0":  # one file alone may not need it
        yield
        return
    compiling = "from vipack.engine.compiled.compiler import start_interpreter as start; start().done(wait=True)"
    with subprocess.Popen([sys.executable, "-c", compiling], stderr=subprocess.DEVNULL) as process:
        yield
        process.send_signal(signal.SIGINT)  # upon which it ends the compiler too


@pytest.fixture(autouse=True, scope="session")
def _nothing_compiled_unasked():
    """Whether it would pay depends on how fast the machine is; see tests/engine/steps/test_promotion.py."""
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
    RandomState.from_seed(0).install()  # torch.manual_seed would write down the stack of every test
    yield
    assert torch.get_default_dtype() is torch.float32
