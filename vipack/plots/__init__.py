"""Plots of fits: matplotlib Axes in, Axes out; nothing is ever shown or saved here.

Without Axes to draw on, a function makes a ``matplotlib.figure.Figure`` of its own, which pyplot does not know of: nothing
stays open. ``losses(fit).figure.savefig("loss.png")`` writes it, a notebook shows ``losses(fit).figure``, and
``losses(fit, ax=plt.gca())`` draws with pyplot. What has several panels takes and returns ``axes``, an array of Axes.
"""

from vipack.plots.calibration_histograms import calibration
from vipack.plots.comparison import compare
from vipack.plots.disagreement_bars import disagreement
from vipack.plots.image_sheet import images
from vipack.plots.importance_tail import khat
from vipack.plots.loss_curve import losses
from vipack.plots.marginals import posterior
from vipack.plots.predictive_check import predictive
from vipack.plots.topic_bars import topics

__all__ = ["calibration", "compare", "disagreement", "images", "khat", "losses", "posterior", "predictive", "topics"]
