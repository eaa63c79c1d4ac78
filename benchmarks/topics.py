"""Topic models: ``python -m benchmarks.topics speed --root DIR`` and ``python -m benchmarks.topics effects --root DIR``.

``speed``: processor seconds of training to a perplexity on documents held out, on one thread, and the perplexity and NPMI along the
run, for vipack's coordinate ascent and for the peers that are installed (topica's CVB0 and sparse sampler, tomotopy, scikit-learn's online
variational Bayes with tuned priors). DIR holds ``train.npz`` and ``test.npz``, SciPy CSR counts. Reading, starting up and judging do not
count. ``effects``: how often 90% intervals of the effect of a covariate hold the truth; DIR holds ``*.npz`` of simulated corpora with ``data``,
``indices``, ``indptr``, ``shape``, ``x`` (0 or 1), ``phi`` and ``effect``. ``outcomes``: how often those of topics on an outcome do,
beside least squares on the shares of LDA.
"""

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.special
import torch
from scipy.optimize import linear_sum_assignment

import vipack as vi
from vipack.topics import LDA, STM, CoordinateAscent, DirichletAllocation, ProdLDA

Run = Iterator[
    tuple[float, Any]
]  # processor seconds so far, and topics (K, V) or a model with probabilities of its own


def coordinate_ascent(counts: Any, num_topics: int, seed: int) -> Run:
    """vipack, in whole sweeps; the first look is at the end of the set-up, which is said apart."""
    allocation = DirichletAllocation(counts, num_topics)
    options = {
        "data": counts,
        "engine": CoordinateAscent(allocation, normalized_sweeps=150),
        "seed": seed,
        "progress": False,
    }
    vi.fit(allocation.model, allocation.guide, steps=1, **options)  # imports and the compiler are not counted
    started = time.process_time()
    vi.fit(allocation.model, allocation.guide, steps=0, **options)
    set_up = time.process_time() - started
    print(f"  set-up {set_up:.2f} CPU s", flush=True)
    started, judged, looks = time.process_time(), 0.0, []

    def look(progress: Any) -> None:
        nonlocal judged
        before = time.process_time()
        topics = progress.params()["topics"].double().digamma().exp().numpy()
        looks.append((before - started - judged - set_up, topics))
        judged += time.process_time() - before

    vi.fit(allocation.model, allocation.guide, steps=165, callbacks=vi.Every(5, look), **options)
    yield from looks


def prodlda(counts: Any, num_topics: int, seed: int) -> Run:
    """vipack's ProdLDA; no mixture, so that its perplexity is of log probabilities that it hands in."""
    started = time.process_time()
    model = ProdLDA(num_topics, random_state=seed, progress=False).fit(counts)
    yield time.process_time() - started, model


def online(counts: Any, num_topics: int, seed: int) -> Run:
    """scikit-learn's, priors tuned."""
    from sklearn.decomposition import LatentDirichletAllocation

    model = LatentDirichletAllocation(
        num_topics, doc_topic_prior=0.6, topic_word_prior=0.5, batch_size=256, learning_method="online", random_state=seed,
        total_samples=counts.shape[0],
    )  # fmt: skip
    spent = 0.0
    for _ in range(12):
        started = time.process_time()
        model.partial_fit(counts)
        spent += time.process_time() - started
        yield spent, model.components_


def tokens(counts: Any) -> list[list[str]]:
    """Documents as lists of words, for samplers."""
    rows = []
    for start, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        repeated = np.repeat(counts.indices[start:end], counts.data[start:end].astype(int))
        rows.append([str(word) for word in repeated])
    return rows


def over(vocabulary: Any, topics: Any, num_words: int) -> np.ndarray:
    """Topics in the columns of the counts."""
    result = np.zeros((len(topics), num_words))
    result[:, [int(word) for word in vocabulary]] = topics
    return result


def tomotopy_lda(counts: Any, num_topics: int, seed: int) -> Run:
    import tomotopy

    model = tomotopy.LDAModel(k=num_topics, seed=seed)
    for words in tokens(counts):
        if words:
            model.add_doc(words)
    spent = 0.0
    for _ in range(12):
        started = time.process_time()
        model.train(50, workers=1)
        spent += time.process_time() - started
        yield spent, over(model.used_vocabs, [model.get_topic_word_dist(k) for k in range(num_topics)], counts.shape[1])


def topica_lda(sampler: str, steps: tuple[int, ...], **options: Any) -> Callable[..., Run]:
    def run(counts: Any, num_topics: int, seed: int) -> Run:
        import topica

        documents = [words for words in tokens(counts) if words]
        for iterations in steps:  # each a run of its own: it does not go on
            started = time.process_time()
            model = topica.LDA(num_topics, sampler=sampler, seed=seed, **options)
            model.fit(documents, iters=iterations, num_samples=1, sample_interval=1)
            yield time.process_time() - started, over(model.vocabulary, model.topic_word, counts.shape[1])

    return run


TOOLS: dict[str, tuple[str, Callable[..., Run]]] = {
    "vipack coordinate ascent": ("vipack", coordinate_ascent),
    "vipack ProdLDA": ("vipack", prodlda),
    "topica CVB0": ("topica", topica_lda("cvb0", (10, 15, 20, 30, 60), alpha_sum=2.0)),
    "tomotopy": ("tomotopy", tomotopy_lda),
    "scikit-learn online": ("sklearn", online),
}


def speed(folder: Path, num_topics: int, seeds: int, goal: float, only: str) -> None:
    train, test = (
        scipy.sparse.load_npz(folder / f"{name}.npz").tocsr().astype(np.float32) for name in ("train", "test")
    )
    for name, (package, tool) in TOOLS.items():
        if importlib.util.find_spec(package) is None or only not in name:
            print(f"{name:26} not run")
            continue
        to_goal, ends = [], []
        for seed in range(seeds):
            before: tuple[float, float] | None = None
            reached = float("inf")
            for spent, topics in tool(train, num_topics, seed):
                if isinstance(topics, ProdLDA):
                    log_probability, topics = topics.log_probability, topics.topics_
                    outcome = vi.topics.completion(None, test, log_probability=log_probability, num_splits=1)
                else:
                    outcome = vi.topics.completion(topics, test, alpha=0.1, num_splits=1)
                perplexity = outcome.perplexity.value
                if perplexity <= goal and reached == float("inf"):
                    reached = spent
                    if before is not None:  # between two looks
                        share = (before[1] - goal) / (before[1] - perplexity)
                        reached = before[0] + share * (spent - before[0])
                before = spent, perplexity
            assert before is not None
            to_goal.append(reached)
            ends.append((*before, *(vi.topics.coherence(topics, each).mean for each in (test, train))))
        seconds, perplexity, npmi, in_training = (statistics.median(column) for column in zip(*ends, strict=True))
        print(
            f"{name:26} {statistics.median(to_goal):8.2f} CPU s to {goal:g} ({min(to_goal):.2f} to {max(to_goal):.2f}, {seeds} seeds); "
            f"after {seconds:.2f} s perplexity {perplexity:.0f}, NPMI held out {npmi:.3f}, in training documents {in_training:.3f}",
            flush=True,
        )


def effects(folder: Path, number: int) -> None:
    inside, errors, widths, seconds = [], [], [], []
    for path in sorted(folder.glob("*.npz"))[:number]:
        stored = np.load(path)
        counts = scipy.sparse.csr_array(
            (stored["data"], stored["indices"], stored["indptr"]), shape=tuple(stored["shape"])
        )
        started = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = STM(len(stored["phi"]), progress=False).fit(counts, covariates={"x": stored["x"].astype(int)})
            table = model.contrast({"x": 0}, {"x": 1}, level=0.9)
        seconds.append(time.process_time() - started)
        rows, columns = linear_sum_assignment(np.abs(model.topics_[:, None] - stored["phi"][None]).sum(-1))
        table = table.iloc[rows[np.argsort(columns)]]
        truth = stored["effect"]
        inside.append((table["lower"] <= truth) & (truth <= table["upper"]))
        errors.append(table["mean"] - truth)
        widths.append(table["upper"] - table["lower"])
        covered, rmse = np.mean(inside), np.sqrt(np.mean(np.square(errors)))
        print(
            f"{len(inside):3} corpora: 90% intervals cover {covered:.3f}, rmse {rmse:.4f}, mean width {np.mean(widths):.4f}, "
            f"{np.median(seconds):.1f} CPU s each",
            flush=True,
        )


def outcomes(number: int, documents: int, words: int) -> None:
    """3 topics over 40 words whose effects on an outcome are known: the joint model, and least squares on shares of LDA."""
    truth = np.array([9.0, 10.0, 12.0])
    inside, errors = {"joint": [], "least squares": []}, {"joint": [], "least squares": []}
    for seed in range(100, 100 + number):
        rng = np.random.default_rng(seed)
        topics = rng.dirichlet(np.full(40, 0.1), 3)
        shares = scipy.special.softmax(rng.normal(size=(documents, 3)), axis=1)
        counts = np.stack([rng.multinomial(words, own @ topics) for own in shares])
        outcome = shares @ truth + 0.5 * rng.normal(size=documents)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = STM(3, num_starts=3, supervised=True, progress=False).fit(counts, outcome)
            table = model.outcome_effects(level=0.9)
        plain = LDA(3, progress=False).fit(counts)
        solved, squares, *_ = np.linalg.lstsq(plain.shares_, outcome)
        noise = squares[0] / (documents - 3) * np.linalg.inv(plain.shares_.T @ plain.shares_).diagonal()
        means = {"joint": table["mean"].to_numpy(), "least squares": solved}
        halves = {"joint": (table["upper"] - table["lower"]).to_numpy() / 2, "least squares": 1.645 * np.sqrt(noise)}
        for name, fitted in (("joint", model), ("least squares", plain)):
            distance = np.abs(fitted.topics_[:, None] - topics[None]).sum(-1)
            order = linear_sum_assignment(distance.T)[1]
            errors[name].append(means[name][order] - truth)
            inside[name].append(np.abs(errors[name][-1]) <= halves[name][order])
    for name, gaps in errors.items():
        print(
            f"{name:14} {number} corpora of {documents} documents of {words} words: 90% intervals hold {np.mean(inside[name]):.2f}, "
            f"rmse {np.sqrt(np.mean(np.square(gaps))):.3f}, bias {np.mean(gaps, 0).round(2)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "effects", "outcomes"])
    parser.add_argument("--root", type=Path, help="of speed and effects")
    parser.add_argument("--num-topics", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--goal", type=float, default=1785.0, help="perplexity")
    parser.add_argument("--corpora", type=int, default=100)
    parser.add_argument("--documents", type=int, default=200, help="of each corpus of outcomes")
    parser.add_argument("--words", type=int, default=25, help="of each of these documents")
    parser.add_argument("--only", default="", help="tools whose names hold this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "outcomes":
        outcomes(options.corpora, options.documents, options.words)
        return
    if options.root is None:
        parser.error("--root: the folder of the corpora is missing")
    if options.what == "speed":
        speed(options.root, options.num_topics, options.seeds, options.goal, options.only)
    else:
        effects(options.root, options.corpora)


if __name__ == "__main__":
    main()
