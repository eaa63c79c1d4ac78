"""Topic models: Pyro programs with fast engines, estimators, what judges topics wherever they come from, and pages and pictures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vipack.sparse import BagOfWords, LogLinearBagOfWords
from vipack.topics.coordinate_ascent import CoordinateAscent
from vipack.topics.dirichlet_allocation import DirichletAllocation
from vipack.topics.lda import LDA
from vipack.topics.prod_lda import ProdLDA
from vipack.topics.product_of_experts import ProductOfExperts
from vipack.topics.stm import STM
from vipack.topics.structural_ascent import StructuralAscent
from vipack.topics.structural_topic_model import StructuralTopicModel

if TYPE_CHECKING:
    from vipack.topics.explorer import Explorer, explore, to_pyldavis
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
    from vipack.topics.judging.pictures import num_topics_curves
    from vipack.topics.pictures import document_shares, effect_intervals, shares_over_time, topic_shares

__all__ = [
    "LDA",
    "STM",
    "BagOfWords",
    "Coherence",
    "Completion",
    "CompletionDifference",
    "CoordinateAscent",
    "DirichletAllocation",
    "Explorer",
    "LogLinearBagOfWords",
    "NumTopicsChoice",
    "ProdLDA",
    "ProductOfExperts",
    "Stability",
    "StructuralAscent",
    "StructuralTopicModel",
    "TopicIndependence",
    "check_independence",
    "choose_num_topics",
    "coherence",
    "compare_completions",
    "completion",
    "diversity",
    "document_shares",
    "effect_intervals",
    "exclusivity",
    "explore",
    "frex",
    "match_topics",
    "num_topics_curves",
    "shares_over_time",
    "stability",
    "to_pyldavis",
    "token_halves",
    "topic_shares",
]

# Pictures need matplotlib, which takes a while to import.
_HOMES = {
    **dict.fromkeys(["Explorer", "explore", "to_pyldavis"], "vipack.topics.explorer"),
    **dict.fromkeys(
        ["Coherence", "Completion", "CompletionDifference", "NumTopicsChoice", "Stability", "TopicIndependence"],
        "vipack.topics.judging",
    ),
    **dict.fromkeys(
        ["check_independence", "choose_num_topics", "coherence", "compare_completions", "completion", "diversity"],
        "vipack.topics.judging",
    ),
    **dict.fromkeys(["exclusivity", "frex", "match_topics", "stability", "token_halves"], "vipack.topics.judging"),
    "num_topics_curves": "vipack.topics.judging.pictures",
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
