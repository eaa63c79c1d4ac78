"""Histograms of calibration, and gaps between fits, by what they draw."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from vipack import plots
from vipack.diagnostics.calibration import calibration
from vipack.errors import UsageError

RNG = np.random.default_rng(0)
FOUND = calibration(("a", "b[0]"), np.stack([RNG.random(200), RNG.beta(0.3, 0.3, 200)], axis=1))


def test_each_histogram_counts_all_fits_and_names_what_is_flagged():
    flat, narrow = plots.calibration(FOUND)
    assert flat.get_title(loc="left") == "a"
    assert narrow.get_title(loc="left") == "b[0]: too narrow"
    for ax, name in ((flat, "a"), (narrow, "b[0]")):
        heights = [bar.get_height() for bar in ax.patches if bar.get_width() < 0.5]
        assert heights == FOUND.histogram(name).tolist()


def test_one_element_is_drawn_where_it_is_asked_for():
    ax = Figure().add_subplot()
    assert plots.calibration(FOUND, "a", ax) == [ax]
    with pytest.raises(UsageError, match="no 'c' among the elements"):
        plots.calibration(FOUND, "c")
    with pytest.raises(UsageError, match=r"expected what vipack\.vsbc returns"):
        plots.calibration(3)


def test_gaps_are_bars_of_their_length():
    table = pd.DataFrame(
        {"mean_gap": [1.5, 0.1], "gap_se": [0.02, 0.02], "lowest": ["p", "q"], "highest": ["q", "p"]}, index=["z", "w"]
    )
    ax = plots.disagreement(table)
    assert [bar.get_width() for bar in ax.patches] == [1.5, 0.1]
    assert [text.get_text() for text in ax.texts] == ["p < q", "q < p"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["z", "w"]
    with pytest.raises(UsageError, match="without 'mean_gap'"):
        plots.disagreement(table.drop(columns="mean_gap"))
