"""Topic models: what judges topics, whichever tool they come from."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vipack.topics.judging import (
    Coherence,
    Completion,
    CompletionDifference,
    NumTopicsChoice,
    Stability,
    TopicIndependence,
    check_independence,
    choose_num_topics,
    coherence,
    compare_completions,
    completion,
    diversity,
    exclusivity,
    frex,
    match_topics,
    stability,
    token_halves,
)

if TYPE_CHECKING:
    from vipack.topics.judging.pictures import num_topics_curves

__all__ = [
    "Coherence",
    "Completion",
    "CompletionDifference",
    "NumTopicsChoice",
    "Stability",
    "TopicIndependence",
    "check_independence",
    "choose_num_topics",
    "coherence",
    "compare_completions",
    "completion",
    "diversity",
    "exclusivity",
    "frex",
    "match_topics",
    "num_topics_curves",
    "stability",
    "token_halves",
]

# Pictures need matplotlib, which takes a while to import.
_HOMES = {"num_topics_curves": "vipack.topics.judging.pictures"}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(
            f"module 'vipack.topics' has no attribute {name!r}; it has {', '.join(__all__)}", name=name
        )
