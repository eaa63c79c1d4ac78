"""Densities as they are written: without the scales that ``poutine.scale`` and minibatches give them."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger

__all__ = ["Unscaled"]


class Unscaled(Messenger):  # type: ignore[misc]
    """Takes every scale away; to stand outside of all handlers that set one."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        msg["scale"] = 1.0
