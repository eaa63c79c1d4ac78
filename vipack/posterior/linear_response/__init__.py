"""Covariances that a mean-field fit leaves out, from how its optimum responds."""

from vipack.posterior.linear_response.covariances import LinearResponse
from vipack.posterior.linear_response.response import linear_response

__all__ = ["LinearResponse", "linear_response"]
