"""Which kernels do which of torch's operators."""

from __future__ import annotations

from typing import Any

from vipack.engine.interpreter.elementwise import ELEMENTWISE
from vipack.engine.interpreter.indices import INDICES
from vipack.engine.interpreter.matrices import MATRICES
from vipack.engine.interpreter.operands import Rule
from vipack.engine.interpreter.pieces import PIECES
from vipack.engine.interpreter.reductions import REDUCTIONS
from vipack.engine.interpreter.scans import SCANS

__all__ = ["RULES"]

RULES: dict[Any, Rule] = {**ELEMENTWISE, **PIECES, **REDUCTIONS, **MATRICES, **INDICES, **SCANS}
