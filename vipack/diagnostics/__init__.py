"""Can the answer be believed: importance weights, evidence, the verdict, and fits compared."""

from vipack.diagnostics.calibration import Calibration
from vipack.diagnostics.compare import compare
from vipack.diagnostics.evidence import elbo, log_evidence
from vipack.diagnostics.importance import Importance, importance
from vipack.diagnostics.report import Diagnosis, Verdict
from vipack.diagnostics.verdict import diagnose

__all__ = [
    "Calibration",
    "Diagnosis",
    "Importance",
    "Verdict",
    "compare",
    "diagnose",
    "elbo",
    "importance",
    "log_evidence",
]
