"""What every test starts from, and what none may change."""

import signal

import pyro
import pytest
import torch


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
