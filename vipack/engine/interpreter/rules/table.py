"""Which kernels do which of torch's operators."""

from __future__ import annotations

from typing import Any

from vipack.engine.interpreter.rules.elementwise import ELEMENTWISE
from vipack.engine.interpreter.rules.indices import INDICES
from vipack.engine.interpreter.rules.loops import SCANS
from vipack.engine.interpreter.rules.matrices import MATRICES
from vipack.engine.interpreter.rules.operands import Rule
from vipack.engine.interpreter.rules.pieces import PIECES
from vipack.engine.interpreter.rules.reductions import REDUCTIONS

__all__ = ["RULES"]

RULES: dict[Any, Rule] = {**ELEMENTWISE, **PIECES, **REDUCTIONS, **MATRICES, **INDICES, **SCANS}
