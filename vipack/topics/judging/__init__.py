"""How good topics are: words held out, coherence, exclusivity, stability over seeds, and how many topics to take.

Every function takes topics from anywhere as a (K, V) array of word probabilities, and counts as a Corpus or a matrix.
"""

from vipack.topics.judging.completion_results import Completion, CompletionDifference, compare_completions
from vipack.topics.judging.document_completion import completion, token_halves
from vipack.topics.judging.num_topics import NumTopicsChoice, choose_num_topics
from vipack.topics.judging.topic_independence import TopicIndependence, check_independence
from vipack.topics.judging.topic_stability import Stability, match_topics, stability
from vipack.topics.judging.word_coherence import Coherence, coherence
from vipack.topics.judging.word_exclusivity import diversity, exclusivity, frex

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
    "stability",
    "token_halves",
]
