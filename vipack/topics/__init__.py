"""Topic models: what judges topics, whichever tool they come from."""

from __future__ import annotations

from vipack.topics.judging import (
    Coherence,
    Completion,
    CompletionDifference,
    Stability,
    coherence,
    completion,
    diversity,
    exclusivity,
    frex,
    match_topics,
    stability,
    token_halves,
)

__all__ = [
    "Coherence",
    "Completion",
    "CompletionDifference",
    "Stability",
    "coherence",
    "completion",
    "diversity",
    "exclusivity",
    "frex",
    "match_topics",
    "stability",
    "token_halves",
]
