"""The pictures of the documentation: ``python docs/images/make.py`` writes them beside this file, in a minute or so.

That of the topic explorer needs Chromium, and stays as it is without.
"""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from PIL import Image
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from sklearn.decomposition import NMF, LatentDirichletAllocation
from torch import Tensor

import vipack as vi

HERE = Path(__file__).parent


def centred(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def non_centred(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def fit_schools() -> dict[str, vi.Fit]:
    schools = vi.datasets.eight_schools()
    train = functools.partial(vi.fit, data=schools.columns, steps=2_000, seed=0, engine="traced")
    return {
        f"{model.__name__.replace('_', '-')} {name}": train(model, guide)
        for model in (non_centred, centred)
        for name, guide in (("correlated", AutoMultivariateNormal), ("mean-field", AutoNormal))
    }


def choose_num_topics() -> vi.topics.NumTopicsChoice:
    """Of documents that have eight topics, as in docs/topics-judging.md."""
    rng = np.random.default_rng(0)
    eight = rng.dirichlet(np.full(200, 0.05), 8)
    counts = np.stack([rng.multinomial(60, share @ eight) for share in rng.dirichlet(np.full(8, 0.1), 800)])
    options = {"beta_loss": "kullback-leibler", "solver": "mu", "init": "random", "max_iter": 150}
    return vi.topics.choose_num_topics(
        lambda num_topics, seed: NMF(num_topics, random_state=seed, **options).fit(counts[:500]).components_,
        counts[500:],
        num_topics=[4, 8, 16],
    )


def save(figure: Figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", dpi=110)


def photograph_explorer() -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        return
    corpus = vi.datasets.docstrings()
    lda = LatentDirichletAllocation(20, doc_topic_prior=0.1, topic_word_prior=0.05, random_state=0)
    theta = lda.fit_transform(corpus.counts)
    topics = lda.components_ / lda.components_.sum(1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        vi.topics.explore(topics, theta, corpus, path=page)
        size = ["--window-size=1400,1180", "--hide-scrollbars", f"--screenshot={folder}/page.png"]
        subprocess.run([browser, "--headless", "--no-sandbox", *size, page.as_uri()], check=True, capture_output=True)
        picture = Image.open(f"{folder}/page.png").convert("RGB").resize((1050, 885), Image.Resampling.LANCZOS)
        picture.quantize(255).save(HERE / "topics-explorer.png", optimize=True)


def main() -> None:
    torch.set_num_threads(1)
    photograph_explorer()
    fits = fit_schools()
    best, worst = fits["non-centred correlated"], fits["centred mean-field"]
    save(vi.plots.compare(vi.compare(fits).drop(columns="seconds")).figure, "compare")
    save(vi.plots.losses(best).figure, "losses")
    save(vi.plots.predictive(best)[0].figure, "predictive")
    save(vi.plots.posterior(best, names=["mu", "tau", "theta"])[0].figure, "posterior")
    figure = Figure(figsize=(11, 4), layout="constrained")
    for place, fit in enumerate((best, worst), start=1):
        vi.plots.khat(fit, figure.add_subplot(1, 2, place))
    save(figure, "khat")
    save(vi.topics.num_topics_curves(choose_num_topics())[0].figure, "num_topics")


if __name__ == "__main__":
    main()
