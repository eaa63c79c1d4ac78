"""What a verdict was given on, kept with the posterior for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass

from vipack.diagnostics.report import Diagnosis
from vipack.diagnostics.rows import Weights
from vipack.posterior import Posterior

__all__ = ["Grounds", "last_grounds"]


@dataclass(frozen=True)
class Grounds:
    """A diagnosis, and the log weights of the draws that it stands on."""

    diagnosis: Diagnosis
    weights: Weights


def last_grounds(posterior: Posterior) -> Grounds | None:
    """Of the verdict on the guide as it stands; None where it was not judged in this process."""
    grounds = posterior.grounds
    return grounds if isinstance(grounds, Grounds) and posterior.verdict is not None else None
