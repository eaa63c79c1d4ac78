"""A device that stands in for a GPU: what a program may not mix, it refuses as a GPU does. See ``pretend.cpp``.

To be registered in a process of its own: torch knows one such device a process, for good.
"""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["build", "register"]


class _Module:
    """What torch asks of a device's module."""

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        pass

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def get_rng_state(self, device=None):  # its numbers are the host's
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state, device=None):
        pass


def build(folder: Path) -> Path:
    """Compile it into `folder`."""
    from torch._inductor.cpp_builder import CppBuilder, CppTorchOptions
    from torch._inductor.cpu_vec_isa import invalid_vec_isa

    options = CppTorchOptions(vec_isa=invalid_vec_isa, include_pytorch=True, warning_all=False)
    source = str(Path(__file__).with_name("pretend.cpp"))
    CppBuilder(name="pretend", sources=source, output_dir=str(folder), BuildOption=options).build()
    return folder / "pretend.so"


def register(library: Path) -> None:
    """Let ``device="pretend"`` be understood by this process."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("pretend", backend_module=_Module())
    torch.ops.load_library(str(library))
