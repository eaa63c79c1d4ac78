"""Fits for other libraries."""

from vipack.export.arviz import inference_data, to_arviz

__all__ = ["inference_data", "to_arviz"]
