"""Can the answer be believed: importance weights, evidence, the verdict, calibration, and fits compared."""

from vipack.diagnostics.calibration import Calibration
from vipack.diagnostics.compare import compare
from vipack.diagnostics.disagreement import disagreement
from vipack.diagnostics.evidence import elbo, log_evidence
from vipack.diagnostics.loo import Loo, loo
from vipack.diagnostics.predictive import predictive_pvalues
from vipack.diagnostics.report import Diagnosis, Verdict
from vipack.diagnostics.verdict import diagnose
from vipack.importance import Importance, importance

__all__ = [
    "Calibration",
    "Diagnosis",
    "Importance",
    "Loo",
    "Verdict",
    "compare",
    "diagnose",
    "disagreement",
    "elbo",
    "importance",
    "log_evidence",
    "loo",
    "predictive_pvalues",
]
