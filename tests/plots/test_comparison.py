import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color

import vipack as vi
from tests.plots import fits
from vipack import plots
from vipack.errors import UsageError

TABLE = pd.DataFrame(
    {
        "elbo": [-31.0, -32.5, -90.0],
        "elbo_se": [0.01, 0.2, 1.0],
        "evidence": [-30.9, -31.0, -40.0],
        "khat": [0.1, 0.6, 1.4],
        "verdict": ["TRUST", "CORRECTED", "DISTRUST"],
    },
    index=["flow", "full-rank", "mean-field"],
)


def points(ax) -> list:
    return [container.lines[0] for container in ax.containers]


def test_each_fit_has_its_elbo_with_two_standard_errors(render):
    ax = plots.compare(TABLE)
    assert [point.get_xdata()[0] for point in points(ax)] == list(TABLE["elbo"])
    widths = [np.ptp(container.lines[2][0].get_segments()[0][:, 0]) for container in ax.containers]
    np.testing.assert_allclose(widths, 4 * TABLE["elbo_se"])
    assert "nats" in ax.get_xlabel()
    assert [text.get_text() for text in ax.get_yticklabels()] == list(TABLE.index)
    assert ax.yaxis_inverted()  # the best on top
    render(ax)


def test_verdicts_differ_in_colour_and_in_shape():
    drawn = points(plots.compare(TABLE))
    assert len({point.get_marker() for point in drawn}) == 3
    assert not any(same_color(drawn[0].get_color(), other.get_color()) for other in drawn[1:])


def test_the_legend_names_the_verdicts_there_are_and_the_evidence():
    ax = plots.compare(TABLE.iloc[:2])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "TRUST (means, sds)",
        "CORRECTED (of resampled draws)",
        "log evidence",
    ]


def test_figures_stand_beside_each_fit():
    ax = plots.compare(TABLE)
    assert ax.texts[0].get_text() == "−31.00 ± 0.01   k-hat 0.10"


def test_the_table_of_vipack_compare_is_drawn(own_axes, render):
    (mine,) = own_axes()
    table = vi.compare({"a": fits.glm(), "b": fits.glm()}, num_draws=200)
    ax = plots.compare(table, mine)
    assert ax is mine
    np.testing.assert_allclose([point.get_xdata()[0] for point in points(ax)], table["elbo"])
    render(ax)


def test_a_fit_without_a_finite_elbo_keeps_its_row_and_says_so(render):
    table = TABLE.assign(
        elbo=[-31.0, -32.5, -np.inf], elbo_se=[0.01, np.nan, np.nan], evidence=[-30.9, np.nan, -np.inf]
    )
    ax = plots.compare(table)
    assert len(points(ax)) == 2
    assert ax.texts[2].get_text().startswith("−inf")
    render(ax)


def test_evidence_and_khat_may_be_missing():
    ax = plots.compare(TABLE[["elbo", "elbo_se", "verdict"]])
    assert ax.texts[0].get_text() == "−31.00 ± 0.01"


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (TABLE.drop(columns="verdict"), "found DataFrame without 'verdict'"),
        (TABLE.iloc[:0], "found DataFrame without a row"),
        ({"a": 1}, "found dict without 'elbo', 'elbo_se', 'verdict'"),
    ],
)
def test_another_table_is_refused(table, found):
    with pytest.raises(UsageError, match=found):
        plots.compare(table)
