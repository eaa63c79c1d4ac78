"""Draws from a fitted guide with log p(x, z) and log q(z), predictive draws from the model, and answers row by row."""

from vipack.posterior.by_rows import RowBounds, RowEvidence
from vipack.posterior.draws import Draws
from vipack.posterior.encoding import Encoding
from vipack.posterior.linear_response import LinearResponse
from vipack.posterior.posterior import Posterior

__all__ = ["Draws", "Encoding", "LinearResponse", "Posterior", "RowBounds", "RowEvidence"]
