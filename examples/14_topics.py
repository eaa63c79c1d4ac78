"""Topics of a corpus: fitted in seconds, read with intervals, judged on documents held out.

    topic k:     words_k  ~ Dirichlet(0.5)
    document d:  shares_d ~ Dirichlet(0.5), counts_d ~ BagOfWords(shares_d, words)

Source: Blei, Ng and Jordan (2003), Journal of Machine Learning Research 3, 993-1022.
"""

import vipack as vi
from vipack.topics import LDA

NUM_TOPICS = 12


def load_corpora() -> tuple[vi.datasets.Corpus, vi.datasets.Corpus]:
    """What this machine's Python says of itself, a tenth of it held out."""
    corpus = vi.datasets.docstrings().prune(min_documents=5, max_fraction=0.15, min_tokens=15)
    return corpus.split(0.1, seed=0)


def main(num_steps: int | None = None, seed: int = 0) -> vi.Fit:
    train, _ = load_corpora()
    return LDA(NUM_TOPICS, steps=num_steps, random_state=seed).fit(train).fit_


if __name__ == "__main__":
    train, held_out = load_corpora()
    model = LDA(NUM_TOPICS).fit(train)
    print(train, model.fit_.stopped, sep="\n")
    shares = model.topic_proportions()
    for name, words in zip(model.topic_names_, model.top_words(8, measure="frex"), strict=True):
        print(f"{name:9} {shares[name]:4.0%}  {' '.join(words)}")
    print(model.word_table(2).head(4).to_string(index=False, float_format="%.3f"))
    print(vi.topics.completion(model.topics_, held_out))
    new = model.transform(held_out)  # shares of new documents
    best = new.argmax(1)
    for title, topic, share in list(zip(held_out.titles, best, new.max(1), strict=True))[:3]:
        print(f"{title}: {share:.0%} {model.topic_names_[topic]}")
    vi.topics.explore(model.topics_, model.shares_, train, path="topics.html")
    print("the explorer is in topics.html")
    # With thousands of latents no mean-field guide has usable importance weights: read topics as a summary.
    print(model.fit_.diagnose(num_draws=200).verdict)
