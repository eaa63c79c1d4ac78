"""Latent Dirichlet allocation: a topic model as a plain Pyro model, and its mean-field guide.

    topic k:     words  ~ Dirichlet(0.2), a distribution over the vocabulary
    document d:  shares ~ Dirichlet(0.2), how much of the document each topic makes up
                 counts ~ BagOfWords(shares, words), a multinomial of the mixture `shares @ words`

The topic of each single word is summed out. The counts stay a sparse matrix: a step takes as long as its documents have words.
Source: Blei, Ng and Jordan (2003), Journal of Machine Learning Research 3, 993-1022.
"""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

import vipack as vi
from vipack.sparse import BagOfWords

NUM_TOPICS = 12


def model(counts: Tensor) -> None:
    num_documents, num_words = counts.shape  # of the minibatch
    with pyro.plate("topic", NUM_TOPICS):
        words = pyro.sample("words", dist.Dirichlet(torch.full((num_words,), 0.2)))
    with pyro.plate("document", num_documents):
        shares = pyro.sample("shares", dist.Dirichlet(torch.full((NUM_TOPICS,), 0.2)))
        pyro.sample("counts", BagOfWords(shares, words), obs=counts)


def mean_field(num_documents: int, num_words: int) -> Callable[[Tensor], None]:
    """A Dirichlet for each topic and one for each document, all independent."""

    def random_topics() -> Tensor:  # unlike each other, or they would stay alike for ever
        return torch.randn(NUM_TOPICS, num_words).mul(0.5).exp()

    def guide(counts: Tensor) -> None:
        with pyro.plate("topic", NUM_TOPICS):
            topics = pyro.param("topics", random_topics, constraint=constraints.positive, event_dim=1)
            pyro.sample("words", dist.Dirichlet(topics))
        with pyro.plate("document", num_documents):  # of which a minibatch takes its own rows
            start = torch.ones(num_documents, NUM_TOPICS)
            documents = pyro.param("documents", start, constraint=constraints.positive, event_dim=1)
            pyro.sample("shares", dist.Dirichlet(documents))

    return guide


def load_corpus() -> vi.datasets.Corpus:
    """What this machine's Python says of itself: a document is the docstrings of a module or class."""
    return vi.datasets.docstrings().prune(min_documents=5, max_fraction=0.15, min_tokens=15)


def main(num_steps: int = 1_000, seed: int = 0) -> vi.Fit:
    corpus = load_corpus()
    optim = pyro.optim.ClippedAdam({"lr": 0.2, "lrd": 0.05 ** (1 / num_steps)})
    return vi.fit(
        model,
        mean_field(*corpus.counts.shape),
        data=corpus.counts,
        batch_size=128,
        steps=num_steps,
        seed=seed,
        optim=optim,
        dtype=torch.float64,  # shares near 0 and 1 are lost in float32
    )


if __name__ == "__main__":
    corpus = load_corpus()
    print(corpus)
    fit = main()
    for k, words in enumerate(corpus.top_words(fit.params["topics"], 10)):
        print(f"{k:2}  {' '.join(words)}")
    print(f"\nELBO per word: {fit.elbo(20).value / corpus.num_tokens:.3f} nats")
    # With thousands of latents no mean-field guide has usable importance weights: read topics as a summary, and
    # do not trust their uncertainty.
    print(fit.diagnose(num_draws=200))
