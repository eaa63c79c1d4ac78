"""What every test starts from, and what none may change."""

import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def _a_clean_process():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    assert torch.get_default_dtype() is torch.float32
