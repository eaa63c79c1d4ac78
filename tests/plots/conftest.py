import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def leaves_pyplot_alone(monkeypatch):
    """No plot shows anything, leaves a figure with pyplot or changes its settings."""

    def show(*args: object, **kwargs: object) -> None:
        raise AssertionError("a plot called show")

    monkeypatch.setattr(plt, "show", show)
    monkeypatch.setattr(Figure, "show", show)
    settings, figures = dict(matplotlib.rcParams), plt.get_fignums()
    yield
    assert plt.get_fignums() == figures
    assert dict(matplotlib.rcParams) == settings


@pytest.fixture
def own_axes():
    """Axes of the caller's own Figure."""

    def make(count: int = 1) -> list:
        return list(np.ravel(Figure().subplots(1, count, squeeze=False)))

    return make


@pytest.fixture
def render():
    """Draws a figure for real, where warnings (missing glyphs, layouts that do not fit) count as errors."""

    def draw(axes) -> None:
        figure = (axes[0] if isinstance(axes, np.ndarray) else axes).figure
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            figure.canvas.draw()

    return draw
