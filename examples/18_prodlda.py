"""ProdLDA: topics by a variational autoencoder on sparse counts, read through its decoder.

    document d:  logits_d ~ Normal(0, 1), about Dirichlet(1) shares,
                 counts_d ~ Multinomial(softmax(batch norm(softmax(logits_d) @ weights) + bias))
    guide:       logits_d ~ Normal(loc, scale) with loc, scale = encoder(counts_d), whose first layer reads the words there are

Source: Srivastava and Sutton (2017), Autoencoding variational inference for topic models, arXiv:1703.01488.
"""

import pyro
import torch

import vipack as vi
from vipack.topics import ProductOfExperts

NUM_TOPICS = 12


def load_corpus() -> vi.datasets.Corpus:
    """Docstrings of Python's standard library."""
    return vi.datasets.docstrings().prune(min_documents=5, max_fraction=0.15, min_tokens=15)


def train(corpus: vi.datasets.Corpus, num_steps: int, seed: int) -> tuple[ProductOfExperts, vi.Fit]:
    torch.manual_seed(seed)  # of the networks' first weights
    module = ProductOfExperts(corpus.counts, NUM_TOPICS)
    optim = pyro.optim.ClippedAdam({"lr": 5e-3, "lrd": 0.01 ** (1 / num_steps)})
    fit = vi.fit(
        module.model, module.guide, data=corpus.counts, batch_size=128, steps=num_steps, seed=seed, optim=optim
    )
    fit.to_pyro()  # the trained weights into the module
    return module, fit


def main(num_steps: int = 1_500, seed: int = 0) -> vi.Fit:
    return train(load_corpus(), num_steps, seed)[1]


if __name__ == "__main__":
    corpus = load_corpus()
    module, fit = train(corpus, 1_500, 0)
    topics = module.topics()  # a document of one topic alone, through the decoder: rows of its weights are no topics
    for k, words in enumerate(corpus.top_words(topics, 8)):
        print(f"{k:2}  {' '.join(words)}")
    print(vi.topics.coherence(topics, corpus))
    activity = vi.vae.evaluate(fit, num_particles=50, gaps=False, generated=0).activity
    print(activity, "COLLAPSED" if activity.collapsed else "")
    # Each document's q(logits | counts) is judged by weights of its own.
    print(fit.diagnose(num_draws=200).verdict)
