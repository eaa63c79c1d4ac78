"""The register of private names: what each is probed by, and what is lost without it."""

from __future__ import annotations

import functools
import pkgutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vipack.errors import EngineWarning, warn

__all__ = ["PrivateName", "Stops", "lacking", "named", "registered"]

Stops = Literal["graphs", "single steps", "native", "compiled", ""]


@dataclass(frozen=True)
class PrivateName:
    """A name that its owner may take away in any release.

    Attributes:
        owner: the package that it belongs to.
        name: for messages, as ``PyroOptim._get_optim``.
        without: what is lost without it.
        stops: what is switched off without it: "graphs", all tiers above eager; "single steps", those tiers in
            ``vipack.SVI``; "native", whatever is compiled; "compiled", that tier. Empty where the same is done another way.
        probe: finds it, or raises.
    """

    owner: Literal["torch", "pyro"]
    name: str
    without: str
    stops: Stops
    probe: Callable[[], object]

    @property
    def there(self) -> bool:
        """Whether the installed release has it; looked up once, and said once where it has not."""
        present = _PRESENT.get(self.name)
        if present is None:
            present = _PRESENT[self.name] = self._look()
            if not present and not self.stops:  # else the run itself gives it as the reason
                warn(EngineWarning(f"{self.message}."))
        return present

    @property
    def message(self) -> str:
        """That it is not there, and what is lost."""
        version = getattr(sys.modules.get(self.owner), "__version__", "")
        return f"{'Pyro' if self.owner == 'pyro' else self.owner} {version} has no {self.name}: {self.without}"

    def _look(self) -> bool:
        errors: list[Exception] = []

        def look() -> None:
            try:
                self.probe()
            except Exception as error:  # whatever a changed library raises
                errors.append(error)

        # In a thread of its own, where none of torch's modes stands around: a tracer, vmap, a default device.
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return not errors


_ALL: dict[str, PrivateName] = {}
_PRESENT: dict[str, bool] = {}


def named(
    owner: Literal["torch", "pyro"],
    name: str,
    where: str | Callable[[], object] = "",
    *,
    without: str,
    stops: Stops = "",
) -> PrivateName:
    """Register a private name.

    Args:
        where: ``"module:attribute.attribute"``, or a function that finds it or raises; empty where the name itself says it.
    """
    probe = where if callable(where) else functools.partial(pkgutil.resolve_name, where or name)
    _ALL[name] = PrivateName(owner, name, without, stops, probe)
    return _ALL[name]


def registered() -> dict[str, PrivateName]:
    """All names that the modules imported so far have registered."""
    return dict(_ALL)


def lacking(stops: Stops) -> str:
    """Why something is switched off, if it is, for want of the first name that it needs and that is not there."""
    return next((name.message for name in _ALL.values() if name.stops == stops and not name.there), "")
