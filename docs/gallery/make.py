"""The gallery: ``python docs/gallery/make.py [NAMES]`` runs each example and keeps its picture, its processor time and what it prints beside this file.

All of them take some 15 minutes on two cores. A name is a file of examples/ or the beginning of one, such as ``02``.
"""

import argparse
import contextlib
import datetime
import io
import json
import os
import platform
import re
import resource
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

import vipack as vi

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
RUNS = HERE / "runs.json"

Names = dict[str, Any]
Draw = Callable[[Names, list[Any]], Figure]


def marginals(*names: str, **options: Any) -> Draw:
    """The last fit's posterior."""
    return lambda made, results: vi.plots.posterior(results[-1], names=list(names) or None, **options)[0].figure


def generated(made: Names, results: list[Any]) -> Figure:
    """Images that the last fit generates."""
    new = results[-1].generate(40)
    return vi.plots.images(next(value for value in new.values() if value[0].numel() == 64), columns=10)[0].figure


def classes(made: Names, results: list[Any]) -> Figure:
    """Generated images, a row for each class."""
    new = results[-1].generate(data={"y": torch.arange(10).repeat_interleave(10)})["x"]
    return vi.plots.images(new, columns=10)[0].figure


def reconstructed(made: Names, results: list[Any]) -> Figure:
    pixels = torch.from_numpy(vi.datasets.digits().rows).round()[:40]
    return vi.plots.images(pixels, results[-1].reconstruct(pixels)["pixels"], columns=8, titles=("data", "decoded"))[
        0
    ].figure


def topics(words: Callable[[Names, list[Any]], Any]) -> Draw:
    def draw(made: Names, results: list[Any]) -> Figure:
        corpus = made.get("train") if isinstance(made.get("train"), vi.datasets.Corpus) else made["corpus"]
        weights = torch.as_tensor(words(made, results)).detach().numpy()
        return vi.plots.topics(weights[:5] / weights[:5].sum(-1, keepdims=True), corpus.vocabulary)[0].figure

    return draw


def parabola(made: Names, results: list[Any]) -> Figure:
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for ax, fit, name in zip(
        figure.subplots(1, 3, sharex=True, sharey=True), results, ("full rank", "mixture", "flow"), strict=True
    ):
        draws = fit.sample(2_000, resample=False)
        ax.plot(draws["a"], draws["b"], ".", ms=1)
        ax.set(title=name, xlabel="a", ylabel="b")
    return figure


PICTURES: dict[str, tuple[str, str, Draw]] = {
    "01": ("Linear regression", "Posterior of intercept, slopes and noise", marginals()),
    "02": ("Eight schools", "Posterior of the mean, the spread and the schools", marginals("mu", "tau", "theta")),
    "03": ("Logistic regression in minibatches", "Posterior of slope, mean and spread", marginals("slope", "mean", "spread")),
    "04": ("LDA as a Pyro model", "Words of five topics", topics(lambda made, results: results[-1].params["topics"])),
    "05": ("Variational autoencoder", "New digits, drawn from the prior and decoded", generated),
    "06": ("Flow and mixture guides", "Draws of three guides of a posterior along a parabola", parabola),
    "07": ("No guide at all", "Posterior that the ladder came to", marginals("mu", "tau", "theta")),
    "08": ("Calibration by simulation", "Ranks of simulated truths, which are flat where a guide is right", lambda made, results: vi.plots.calibration(results[0])[0].figure),
    "09": ("Conditional autoencoder", "New digits, ten of each class", classes),
    "10": ("Autoencoder, judged", "New digits, drawn from the prior and decoded", generated),
    "11": ("Semi-supervised autoencoder", "New digits, ten of each class, from a hundred labels", classes),
    "12": ("Discrete latents", "Digits and what their codes say of them", reconstructed),
    "13": ("Deep Markov model", "Loss of each step", lambda made, results: vi.plots.losses(results[-1]).figure),
    "14": ("Topics", "Words of five topics", topics(lambda made, results: made["model"].topics_)),
    "15": ("Structural topics", "What a covariate does to the share of each topic, with 90% intervals", lambda made, results: vi.topics.effect_intervals(made["model"].effects())[0].figure),
    "16": ("Equal modes", "Posterior of one mode of six", lambda made, results: vi.plots.posterior(made["fit"])[0].figure),
    "17": ("Data in files", "Posterior of the slopes, from rows read as the fit goes", marginals()),
    "18": ("ProdLDA", "Words of five topics", topics(lambda made, results: made["topics"])),
    "19": ("Two processes", "Posterior of the slope and of what the clinics share", marginals("slope")),
}  # fmt: skip


def run(path: Path) -> None:
    """Run one example in this process, and keep what it prints, how long it took, and its picture."""
    title, alt, draw = PICTURES[path.stem[:2]]
    results: list[Any] = []
    for name in ("fit", "vsbc"):
        setattr(vi, name, _recording(getattr(vi, name), results))
    folder = Path.cwd()
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()) as printed:
        os.chdir(scratch)  # some examples write files
        start = _processor_seconds()
        made = runpy.run_path(str(path), run_name="__main__")
        seconds = _processor_seconds() - start
        with tempfile.TemporaryDirectory() as other:
            picture = Path(other) / "picture.png"
            draw(made, results).savefig(picture, dpi=90)
            image = Image.open(picture).convert("RGB")
            image.quantize(128).save(HERE / f"{path.stem}.png", optimize=True)
        os.chdir(folder)
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/[^/\s]+/", "", printed.getvalue())  # a folder of this run alone
    (HERE / f"{path.stem}.txt").write_text(text.strip() + "\n", encoding="utf-8")
    runs = json.loads(RUNS.read_text(encoding="utf-8")) if RUNS.exists() else {"examples": {}}
    machine = f"{os.cpu_count()} cores ({platform.machine()}), one thread"
    runs |= {"machine": machine, "date": datetime.date.today().isoformat()}
    runs["examples"][path.stem] = {"title": title, "picture": alt, "seconds": round(seconds, 1)}
    runs["examples"] = dict(sorted(runs["examples"].items()))
    RUNS.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def _processor_seconds() -> float:
    """Of this process and of the compilers that it has started, which other work on the machine does not stretch."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _recording(function: Callable[..., Any], results: list[Any]) -> Callable[..., Any]:
    def record(*args: Any, **options: Any) -> Any:
        results.append(function(*args, **{"progress": False, **options} if function.__name__ == "fit" else options))
        return results[-1]

    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="examples, or the beginnings of their names; all by default")
    parser.add_argument("--here", action="store_true", help="in this process")
    chosen = parser.parse_args()
    for path in sorted(EXAMPLES.glob("[0-9]*.py")):
        if chosen.names and not path.stem.startswith(tuple(chosen.names)):
            continue
        if chosen.here:
            run(path)
            continue
        print(path.stem, flush=True)
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run([sys.executable, __file__, "--here", path.stem], check=True, env=one_thread)


if __name__ == "__main__":
    main()
