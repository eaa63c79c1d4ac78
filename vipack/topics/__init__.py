"""Topic models: Pyro programs of their own with fast engines, estimators, what to judge topics by, and pages and pictures of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vipack.sparse import BagOfWords
from vipack.topics.coordinate_ascent import CoordinateAscent
from vipack.topics.dirichlet_allocation import DirichletAllocation
from vipack.topics.lda import LDA

if TYPE_CHECKING:
    from vipack.topics.explorer import Explorer, explore, to_pyldavis
    from vipack.topics.pictures import document_shares, effect_intervals, shares_over_time, topic_shares

__all__ = [
    "LDA",
    "BagOfWords",
    "CoordinateAscent",
    "DirichletAllocation",
    "Explorer",
    "document_shares",
    "effect_intervals",
    "explore",
    "shares_over_time",
    "to_pyldavis",
    "topic_shares",
]

# Pictures need matplotlib, which takes a while to import.
_HOMES = {
    **dict.fromkeys(["Explorer", "explore", "to_pyldavis"], "vipack.topics.explorer"),
    **dict.fromkeys(
        ["document_shares", "effect_intervals", "shares_over_time", "topic_shares"], "vipack.topics.pictures"
    ),
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(
            f"module 'vipack.topics' has no attribute {name!r}; it has {', '.join(__all__)}", name=name
        )
