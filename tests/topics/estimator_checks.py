"""scikit-learn's own checks of estimators, for those that take counts."""

import numpy as np
import scipy.sparse
from sklearn.utils.estimator_checks import check_estimator

WANTED_OTHERWISE = {"check_dtype_object"}  # a TypeError for a dict among numbers, where vipack has a DataError


def whole(values):
    """scikit-learn's checks draw fractions, which are no counts."""
    if scipy.sparse.issparse(values):
        values = values.tocsr().copy()
        values.data = np.ceil(values.data)
        return values
    try:
        array = np.asarray(values)
        return np.ceil(array.astype(float)) if array.dtype.kind in "fO" else array
    except (TypeError, ValueError):
        return values


def failed_checks(estimator):
    """Names of the checks that fail, of at least 45."""
    outcome = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {each["check_name"] for each in outcome if each["status"] == "failed"}
    assert sum(each["status"] == "passed" for each in outcome) + len(failed) >= 46
    return failed
