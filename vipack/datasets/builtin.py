"""Data sets that need no download: eight schools, and the digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from vipack.datasets.tables import Images, Table
from vipack.errors import MissingExtraError
from vipack.hints import checked

__all__ = ["digits", "eight_schools"]


@checked
def eight_schools() -> Table:
    """Estimated effects ``y`` of coaching on test scores in eight schools, with their standard errors ``sigma``.

    Both are in points of the SAT's verbal score.
    Source: Rubin (1981), "Estimation in parallel randomized experiments", table 1; Gelman et al., BDA3, section 5.5.
    """
    return Table(
        "eight schools",
        {
            "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
            "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
        },
        source="Rubin (1981), Journal of Educational Statistics 6(4), 377-401, table 1",
        licence="facts from a published table",
    )


@checked
def digits() -> Images:
    """1,797 handwritten digits of 8 x 8 pixels, from scikit-learn's own files.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(
            "digits() needs scikit-learn, which is not installed: pip install 'vipack[topics]'."
        ) from error
    bundle = load_digits()
    return Images(
        "digits",
        bundle.images / 16.0,
        bundle.target,
        source="Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49; test part",
        licence="CC BY 4.0",
    )
