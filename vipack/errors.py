"""Every error and warning a user can meet, in one tree.

A message names the site or argument, says what was found against what was expected, and ends with what to do.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import sys
import warnings
from pathlib import Path

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "DataError",
    "DataWarning",
    "DivergenceWarning",
    "DtypeError",
    "EngineWarning",
    "GuideError",
    "MissingExtraError",
    "ModelError",
    "NonFiniteError",
    "OptimizerError",
    "PlateError",
    "ProcessError",
    "ProgramWarning",
    "ShapeError",
    "SignatureError",
    "SiteError",
    "SupportError",
    "TrustWarning",
    "UnpicklableError",
    "UsageError",
    "VersionWarning",
    "VipackError",
    "VipackWarning",
    "warn",
]


class VipackError(Exception):
    """Root of every error that vipack raises on purpose."""


class UsageError(VipackError, ValueError):
    """An argument of a public function is out of its range or contradicts another."""


class DataError(VipackError, ValueError):
    """The data cannot be used: empty, ragged, non-finite, or of a kind that is not read."""


class DtypeError(DataError):
    """Floating-point types disagree, or a type is not one that a model can use."""


class SignatureError(VipackError, TypeError):
    """The model or guide cannot be called with what ``data`` and ``fixed`` make, or a public function with its arguments."""


class ModelError(VipackError, RuntimeError):
    """The model or guide itself raised; the message names the site reached and the cause is chained."""


class SiteError(VipackError, ValueError):
    """Model and guide disagree about a site: missing, extra, observed, or named twice."""


class ShapeError(SiteError):
    """A site's shape is not the one that its plates declare, or model and guide differ."""


class SupportError(SiteError):
    """A value or a guide's support lies outside the support of the model's site."""


class PlateError(SiteError):
    """A minibatch that no plate covers, or a batch plate that is missing or ambiguous."""


class GuideError(VipackError, ValueError):
    """The guide is not something that can be trained for this model."""


class NonFiniteError(VipackError, ArithmeticError):
    """NaN or infinity at a named site or parameter."""


class OptimizerError(VipackError, TypeError):
    """The optimizer is not of a kind that a fit can use."""


class ProcessError(VipackError, RuntimeError):
    """A process of a data-parallel fit ended, does not answer, or is not about the same fit as the others."""


class CheckpointError(VipackError, RuntimeError):
    """A file cannot be read, or belongs to another model, guide, data set or version."""


class UnpicklableError(VipackError, pickle.PicklingError):
    """A fit cannot be pickled, since pickle cannot store the model, the guide or another argument that it was given."""


class MissingExtraError(VipackError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class VipackWarning(UserWarning):
    """Root of every warning: something that may mislead, never mere progress."""


class DataWarning(VipackWarning):
    """The data were changed or some of them do not reach the model."""


class ProgramWarning(VipackWarning):
    """The model or guide is unusual in a way that may be a mistake."""


class DivergenceWarning(VipackWarning):
    """Training met NaN or infinity and went back to the best finite state."""


class CheckpointWarning(VipackWarning):
    """A checkpoint was ignored or cleaned away."""


class EngineWarning(VipackWarning):
    """A faster engine was given up; the reason is in the message."""


class VersionWarning(VipackWarning):
    """A release of torch or Pyro that vipack has not been tested with."""


class TrustWarning(VipackWarning):
    """A number that was asked for should not be believed as it stands."""


def warn(warning: VipackWarning) -> None:
    """Issue a warning at the line of the user's that led to it, however many calls of libraries lie between."""
    libraries = [sys.modules[name].__file__ for name in ("vipack", "pyro", "torch") if name in sys.modules]
    between = [contextlib.__file__, functools.__file__, *(f"{Path(file).parent}{os.sep}" for file in libraries if file)]
    level, caller = 1, sys._getframe(0)
    while caller.f_back is not None and caller.f_code.co_filename.startswith(tuple(between)):
        caller, level = caller.f_back, level + 1
    warnings.warn(warning, stacklevel=level)
