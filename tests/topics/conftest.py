from tests.plots.conftest import leaves_pyplot_alone, own_axes, render

__all__ = ["leaves_pyplot_alone", "own_axes", "render"]
