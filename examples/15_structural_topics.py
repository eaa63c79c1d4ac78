"""Topics whose prevalence depends on a covariate, with intervals of the effect.

    topic k:     words_k ~ Dirichlet(0.1), coefficients_k ~ Normal(0, 2), spread_k ~ LogNormal(0, 1)
    document d:  logits_d ~ Normal(covariates_d @ coefficients, spread), counts_d ~ BagOfWords(softmax(logits_d), words)

Source: Roberts, Stewart and Airoldi (2016), Journal of the American Statistical Association 111, 988-1003.
"""

import pandas as pd

import vipack as vi
from vipack.topics import STM

NUM_TOPICS = 6


def load_corpus() -> tuple[vi.datasets.Corpus, pd.DataFrame]:
    """Docstrings of Python's standard library, and whether each is a module's or a class's."""
    corpus = vi.datasets.docstrings().prune(min_documents=8, max_fraction=0.15, min_tokens=25)
    kinds = ["class" if title.split(".")[-1][:1].isupper() else "module" for title in corpus.titles]
    return corpus, pd.DataFrame({"kind": kinds})


def main(num_steps: int | None = None, seed: int = 0) -> vi.Fit:
    corpus, covariates = load_corpus()
    model = STM(NUM_TOPICS, prevalence="kind", num_starts=2, steps=num_steps, random_state=seed)
    return model.fit(corpus, covariates=covariates).fit_


if __name__ == "__main__":
    corpus, covariates = load_corpus()
    model = STM(NUM_TOPICS, prevalence="kind").fit(corpus, covariates=covariates)
    print(corpus, model.fit_.stopped, sep="\n")
    for name, words in zip(model.topic_names_, model.top_words(8, measure="frex"), strict=True):
        print(f"{name:9} {' '.join(words)}")
    # How much more of each topic there is in a module's docstrings than in a class's, with 90% intervals.
    print(model.effects().to_string(index=False, float_format="%.3f"))
    axes = vi.topics.effect_intervals(model.effects())
    axes[0].figure.savefig("effects.png")
    print("effects.png shows them")
    print(model.fit_.diagnose(num_draws=200).verdict)
