"""Fits for other libraries."""

from vipack.export.arviz import NewData, inference_data, to_arviz

__all__ = ["NewData", "inference_data", "to_arviz"]
