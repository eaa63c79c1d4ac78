"""Which kernels do which of torch's operators."""

from __future__ import annotations

from typing import Any

from vipack.engine.interpreter.kernels.elementwise import ELEMENTWISE
from vipack.engine.interpreter.kernels.indices import INDICES
from vipack.engine.interpreter.kernels.loops import SCANS
from vipack.engine.interpreter.kernels.matrices import MATRICES
from vipack.engine.interpreter.kernels.operands import Rule
from vipack.engine.interpreter.kernels.pieces import PIECES
from vipack.engine.interpreter.kernels.reductions import REDUCTIONS

__all__ = ["RULES"]

RULES: dict[Any, Rule] = {**ELEMENTWISE, **PIECES, **REDUCTIONS, **MATRICES, **INDICES, **SCANS}
