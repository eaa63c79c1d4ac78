"""Can the answer be believed: importance weights, evidence, the verdict, and fits compared."""

from vipack.diagnostics.compare import compare
from vipack.diagnostics.evidence import elbo, log_evidence
from vipack.diagnostics.importance import Importance, importance
from vipack.diagnostics.verdict import Diagnosis, Verdict, diagnose

__all__ = [
    "Diagnosis",
    "Importance",
    "Verdict",
    "compare",
    "diagnose",
    "elbo",
    "importance",
    "log_evidence",
]
