"""The bounds of verdicts."""

from __future__ import annotations

__all__ = [
    "BAD",
    "CONFIDENT",
    "DRIFT_LIMIT",
    "DRIFT_MOST",
    "DRIFT_SES",
    "DRIFT_SHARP",
    "DRIFT_STEP",
    "ESS_ALONE",
    "ESS_CORRECTED",
    "ESS_FLAT",
    "ESS_WITH_CHAINS",
    "EVIDENCE_BAD",
    "FEW_ROWS",
    "FRESH",
    "KHAT_CLEAR",
    "KHAT_WITH_CHAINS",
    "ROWS_LIMIT",
    "SHIFT_LIMIT",
    "SHIFT_SD_LIMIT",
    "TAIL_BAD",
    "TAIL_SES",
    "TAIL_SHARP",
]

# What each bound lets pass and refuses, over fits of models with known posteriors, is in docs/decisions.
ESS_CORRECTED = 0.1
KHAT_WITH_CHAINS, ESS_WITH_CHAINS = 1.5, 0.02  # for weighted draws that chains confirm
ESS_FLAT = 0.98  # weights this even make the tail fit behind k-hat meaningless
# In a normal guide a mean is then off by less than .22 sd, and an sd by less than a factor of 1.22.
ESS_ALONE = 0.95
KHAT_CLEAR = 0.5  # two standard errors of a k-hat of 4,000 draws below the limit
FEW_ROWS = 30  # up to which rows with continuous latents of their own are judged together, by chains too
ROWS_LIMIT = 0.05  # share of rows that may have a k-hat above the limit
SHIFT_LIMIT = 0.15  # of a mean in posterior sds, by the weights
SHIFT_SD_LIMIT = 0.10  # of a log sd; the weights of a narrow guide have not seen all of the tail
DRIFT_LIMIT, DRIFT_SES = 0.12, 2.5  # the same by the chains, whose standard errors are mostly .01 to .02
DRIFT_MOST = 0.17  # whatever the standard error
# What chains need to vouch for draws whose weights do not: standard errors at most so large, steps that carry far, and
# every shift shown to be less than what counts as bad, by a test of equivalence at 1% (Schuirmann 1987).
DRIFT_SHARP, DRIFT_STEP = 0.06, 0.12
BAD, CONFIDENT = 0.2, 2.33
FRESH = 2**0.5  # a user weighs other draws than those judged, whose error comes on top
TAIL_BAD, EVIDENCE_BAD = 0.02, 0.05  # of a probability beyond a 5% quantile; of log p(x) in nats
TAIL_SES = 3.0  # for a tail to be called thin or heavy: there are many of them
TAIL_SHARP = 0.005  # standard error of a tail, above which more chains begin there
