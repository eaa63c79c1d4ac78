"""From raw texts to counts, next to scikit-learn: ``python -m benchmarks.texts`` (``--root DIR``, ``--documents 50000``).

Both read one text after the other from a JSON Lines file, in a process of their own, and count words of three letters or
more that stand in two texts or more. Printed are seconds of processor time and the peak memory, imports included.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_NUM_WORDS, _MEAN_LENGTH = 120_000, 140
_SELF = [sys.executable, "-m", "benchmarks.texts"]
_PATTERN = r"(?u)\b[^\W\d_]{3,}\b"


def write_texts(path: Path, count: int, seed: int = 0) -> None:
    """Texts whose words have the frequencies of Zipf's law, with commas, capitals, numbers and an accent now and then."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    lengths = np.minimum(1 + rng.poisson(1.1 * np.log(2 + np.arange(_NUM_WORDS)) ** 0.75), 14)
    drawn = "".join(letters[rng.choice(len(letters), lengths.sum(), p=_letter_rates())])
    stops = np.cumsum(lengths)
    words = [drawn[stop - size : stop] for stop, size in zip(stops, lengths, strict=True)]
    words[500] += "é"
    rates = 1 / (2.7 + np.arange(_NUM_WORDS)) ** 1.05
    ranks = np.searchsorted(np.cumsum(rates / rates.sum()), rng.random(count * _MEAN_LENGTH))
    ends = np.cumsum(rng.multinomial(len(ranks), np.full(count, 1 / count)))
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(np.split(np.minimum(ranks, _NUM_WORDS - 1), ends[:-1])):
            sentences = [" ".join(words[i] for i in row[k : k + 12]).capitalize() for k in range(0, len(row), 12)]
            text = ", and so. ".join(sentences) + f" ({number}, {number % 97})."
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def _letter_rates() -> np.ndarray:
    rates = 1 / (4.0 + np.arange(26))
    return rates / rates.sum()


def texts_of(paths: list[Path], field: str) -> Iterator[str]:
    for path in paths:
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as file:
                yield from (json.loads(line)[field] for line in file)
        else:
            yield path.read_text(encoding="utf-8")


def count_by_scikit_learn(path: Path, field: str) -> tuple[int, int, int]:
    from sklearn.feature_extraction.text import CountVectorizer

    paths = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    vectorizer = CountVectorizer(token_pattern=_PATTERN, min_df=2, max_df=0.5, stop_words="english")
    counts = vectorizer.fit_transform(texts_of(paths, field))
    return (*counts.shape, int(counts.sum()))


def count_by_vipack(path: Path, field: str) -> tuple[int, int, int]:
    from vipack.datasets import load_texts

    corpus = load_texts(path, field=None if path.is_dir() else field)
    return corpus.num_documents, corpus.num_words, corpus.num_tokens


TOOLS = {"CountVectorizer": count_by_scikit_learn, "load_texts": count_by_vipack}


def measure(tool: str, path: Path, field: str) -> None:
    """Count, and print a line of JSON."""
    documents, words, tokens = TOOLS[tool](path, field)
    figures = {"cpu": time.process_time(), "mb": _peak(), "documents": documents, "words": words, "tokens": tokens}
    print(json.dumps(figures))


def _peak() -> float:
    """The most memory that this process has had, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # whereas Linux's ru_maxrss counts that of the process that started this one
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="a folder of .txt files or a .jsonl file, in place of made-up texts")
    parser.add_argument("--field", default="text", help="of the .jsonl file")
    parser.add_argument("--documents", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tool:
        measure(options.tool, options.root, options.field)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.root
        if path is None:
            path = Path(folder) / "texts.jsonl"
            write_texts(path, options.documents)
        print(f"{'tool':17}{'CPU s':>8}{'peak MB':>9}{'documents':>11}{'words':>9}{'tokens':>12}")
        for tool in TOOLS:
            command = [*_SELF, "--tool", tool, "--root", path, "--field", options.field]
            runs = [
                json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
                for _ in range(options.repeats)
            ]
            best = min(runs, key=lambda run: run["cpu"])
            print(
                f"{tool:17}{best['cpu']:8.2f}{best['mb']:9.0f}{best['documents']:11,}{best['words']:9,}{best['tokens']:12,}",
                flush=True,
            )


if __name__ == "__main__":
    main()
