"""Commands that work: what they print and write."""

import arviz
import numpy as np
import pandas as pd
import pytest
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.cli import comparing, main
from vipack.cli.python_files import load_object
from vipack.errors import UsageError
from vipack.types import Stopped, StopReason

QUIET = ["--quiet", "--steps", "30"]
XY = ["--data", "xy.csv"]
WRITTEN = ["diagnosis.txt", "fit.pt", "losses.png", "posterior.nc", "posterior.png", "summary.csv"]

# ways to give the data, and the arguments that they make
GIVEN = {
    "csv": (["models.py:line", *XY], "line"),
    "tsv": (["models.py:line", "--data", "xy.tsv"], "line"),
    "npz with a number": (["models.py:line", "--data", "xy.npz"], "line"),
    "columns": (["models.py:line", "--data", "table.csv", "--columns", "x, y=weight"], "line"),
    "two files": (["models.py:line", "--data", "x.npy", "--data", "table.csv", "--columns", "x,y"], None),
    "first argument": (["models.py:line", "--data", "x.npy", "--fixed", "y=[1, 2]"], None),
    "fixed value": (["models.py:line", *XY, "--fixed", "spread=2.5"], "line"),
    "json": (["models.py:schools", "--data", "schools.json"], "schools"),
    "fixed array": (["models.py:line", *XY, "--fixed", "x"], "line"),
    "sparse npz": (["models.py:counts", "--data", "table.npz"], "counts"),
    "matrix market": (["models.py:counts", "--data", "table.mtx"], "counts"),
    "minibatches": (["models.py:line", *XY, "--batch-size", "10"], "line"),
    "float64": (["models.py:line", *XY, "--dtype", "float64"], "line"),
    "guide of the file": (["models.py:line", *XY, "--guide", "models.py:line_guide"], "line"),
    "guide by its class": (["models.py:line", *XY, "--guide", "AutoNormal"], "line"),
    "guide with a hyphen": (["models.py:line", *XY, "--guide", "Mean-Field"], "line"),
    "model of a neighbour": (["neighbour.py:line", *XY], "line"),
}


@pytest.mark.parametrize("name", [name for name, (_, model) in GIVEN.items() if model])
def test_check_shows_the_table_and_ends_with_0(name, here, capsys):
    arguments, model = GIVEN[name]
    assert main(["check", *arguments]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.endswith("ok\n")
    assert {"line": "slope", "schools": "mu", "counts": "rate"}[model] in said.out


def test_fit_writes_what_there_is_to_know(here, capsys):
    assert (
        main(["fit", "models.py:line", *XY, "--out", "whole/new", "--guide", "fullrank", *QUIET, "--draws", "200"]) == 0
    )
    folder = here / "whole" / "new"
    assert sorted(path.name for path in folder.iterdir()) == WRITTEN
    said = capsys.readouterr()
    assert said.err == ""
    assert "30 steps" in said.out
    diagnosis = (folder / "diagnosis.txt").read_text()
    assert diagnosis.splitlines()[0] in said.out
    assert "slope" in diagnosis
    summary = pd.read_csv(folder / "summary.csv", index_col="site")
    assert list(summary.index) == ["slope", "noise"]
    posterior = arviz.from_netcdf(folder / "posterior.nc")
    assert posterior.posterior["slope"].shape == (1, 200)
    assert float(posterior.posterior["slope"].mean()) == pytest.approx(summary.loc["slope", "mean"], abs=1e-4)
    assert posterior.observed_data["y"].shape == (40,)
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("losses.png", "posterior.png"))


OFF = """
import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def coin(x):
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Bernoulli(p), obs=x)


def off(x):
    a = pyro.param("a", torch.tensor(5.0), constraint=constraints.positive)
    pyro.sample("p", dist.Beta(a, 3.0))
"""


@pytest.mark.parametrize("raw", [False, True])
def test_fit_shows_the_draws_that_its_verdict_certifies_and_says_which(here, capsys, raw):
    """Eight heads of ten: p has a mean of .75, in the guide's own draws .625."""
    (here / "coin.py").write_text(OFF)
    np.save(here / "coin.npy", np.array([1.0] * 8 + [0.0] * 2))
    words = ["fit", "coin.py:coin", "--guide", "coin.py:off", "--data", "coin.npy", "--out", "off", "--draws", "2000"]
    assert main([*words, "--quiet", "--steps", "1", "--lr", "1e-9", *(["--raw"] if raw else [])]) == 0
    said = capsys.readouterr().out
    which = (
        "draws of the guide, which are not certified; resampled ones are (CORRECTED)"
        if raw
        else "resampled draws, whose means, sds and tails are certified (CORRECTED)"
    )
    assert said.startswith(f"{which}:\n")
    assert (
        "CORRECTED: means, sds and tails of resampled draws, and the evidence, are certified; the guide is off" in said
    )
    assert f"show {which}\n" in (here / "off" / "diagnosis.txt").read_text()
    summary = pd.read_csv(here / "off" / "summary.csv", index_col="site")
    assert summary.loc["p", "mean"] == pytest.approx(0.625 if raw else 0.75, abs=0.02)
    assert summary.loc["p", "draws"] == ("draws of the guide, CORRECTED" if raw else "resampled draws, CORRECTED")
    posterior = arviz.from_netcdf(here / "off" / "posterior.nc")
    assert float(posterior.posterior["p"].mean()) == pytest.approx(0.625 if raw else 0.75, abs=0.02)
    assert posterior.posterior.attrs["draws"] == which
    coin, off = (load_object(f"coin.py:{name}", name) for name in ("coin", "off"))
    assert vi.load(here / "off" / "fit.pt", coin, off).verdict.value == "CORRECTED"


def test_compare_says_what_its_verdicts_certify(here, capsys):
    arguments = ["models.py:line", *XY, "--guides", "meanfield,delta", "--quiet", "--steps", "300"]
    assert main(["compare", *arguments, "--out", "both"]) == 0
    said = capsys.readouterr().out
    table = pd.read_csv("both/compare.csv", index_col="fit")
    for verdict, certified in zip(table["verdict"], table["certified"], strict=True):
        assert f"{verdict} certifies {certified}\n" in said


def test_the_written_fit_is_the_one_that_python_makes(here):
    arguments = ["--guide", "meanfield", "--seed", "3", "--lr", "0.02", "--batch-size", "10"]  # the default rate
    assert main(["fit", "models.py:line", *XY, "--out", "same", *QUIET, *arguments, "--draws", "50"]) == 0
    line = load_object("models.py:line", "model")
    data = {name: column.to_numpy() for name, column in pd.read_csv("xy.csv").items()}
    own = vi.fit(line, AutoNormal, data=data, batch_size=10, steps=30, seed=3, progress=False)
    written = vi.load("same/fit.pt", line, AutoNormal)
    np.testing.assert_array_equal(own.losses, written.losses)
    assert all((own.params[name] == value).all() for name, value in written.params.items())


def test_the_learning_rate_is_that_asked_for(here):
    for name, rate in (("slow", "0.001"), ("fast", "0.1")):
        assert main(["fit", "models.py:line", *XY, "--out", name, *QUIET, "--lr", rate, "--draws", "50"]) == 0
    slow, fast = (vi.load(f"{name}/fit.pt", load_object("models.py:line", "model")) for name in ("slow", "fast"))
    assert fast.losses[-5:].mean() < slow.losses[-5:].mean() < slow.losses[0]


def test_a_file_is_run_once_for_model_and_guide(here):
    assert (
        load_object("models.py:line", "model").__globals__ is load_object("models.py:line_guide", "guide").__globals__
    )


def test_fit_without_steps_trains_until_converged(here, capsys):
    assert (
        main(["fit", "models.py:line", *XY, "--out", "long", "--guide", "meanfield", "--quiet", "--draws", "50"]) == 0
    )
    assert "converged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "climbs"),
    [
        ([], True),
        (["--guide", "ladder"], True),
        (["--guide", "Ladder"], True),
        (["--steps", "5"], False),
        (["--lr", "0.1"], False),
        (["--particles", "2"], False),
    ],
)
def test_fit_climbs_the_ladder_unless_told_how_to_train(words, climbs, here, monkeypatch):
    asked = {}

    def fit(model, guide, **options):
        asked.update(guide=guide, **options)
        raise UsageError("enough")

    monkeypatch.setattr(vi, "fit", fit)
    assert main(["fit", "models.py:line", *XY, "--out", "long", "--quiet", *words]) == 2
    assert asked["guide"] is None
    assert all(asked[name] is None for name in ("loss", "optim", "steps")) == climbs


@pytest.mark.slow
def test_fit_shows_the_stages_of_the_ladder(here, capsys):
    assert main(["fit", "models.py:line", *XY, "--out", "long", "--quiet", "--draws", "50"]) == 0
    said = capsys.readouterr().out
    assert "gaussian" in said
    assert "paths" in said
    assert vi.load("long/fit.pt", load_object("models.py:line", "model")).stages


@pytest.mark.slow
def test_compare_takes_the_ladder_beside_guides_that_are_told_how_to_train(here, capsys):
    assert main(["compare", "models.py:line", *XY, "--guides", "ladder,meanfield", *QUIET, "--out", "both"]) == 0
    table = pd.read_csv("both/compare.csv", index_col="fit")
    assert sorted(table.index) == ["ladder", "meanfield"]
    assert table.loc["meanfield", "stopped"] == "steps used up"
    assert "stopped" in capsys.readouterr().out


def test_compare_ranks_the_guides(here, capsys):
    guides = "meanfield,fullrank,models.py:line_guide"
    assert main(["compare", "models.py:line", *XY, "--guides", guides, *QUIET, "--out", "ranks"]) == 0
    said = capsys.readouterr()
    table = pd.read_csv(here / "ranks" / "compare.csv", index_col="fit")
    assert sorted(table.index) == sorted(guides.split(","))
    assert list(table["elbo"]) == sorted(table["elbo"], reverse=True)
    assert [line.split()[0] for line in said.out.splitlines()[1:4]] == list(table.index)
    assert (here / "ranks" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_ends_a_comparison_with_the_fits_so_far(here, capsys, monkeypatch):
    def interrupted(*arguments):
        fit = train(*arguments)
        fit._trainer.state.stopped = Stopped(StopReason.INTERRUPTED, "Ctrl-C after 30 steps")
        return fit

    train = comparing.train
    monkeypatch.setattr(comparing, "train", interrupted)
    assert main(["compare", "models.py:line", *XY, "--guides", "meanfield,fullrank", *QUIET]) == 130
    said = capsys.readouterr().out
    assert "meanfield" in said
    assert "fullrank" not in said


def test_a_warning_is_one_line(here, capsys):
    (here / "warns.py").write_text("import warnings\nfrom models import line\nwarnings.warn('slow\\nsampler')\n")
    assert main(["check", "warns.py:line", *XY]) == 0
    assert capsys.readouterr().err == "vipack: warning: slow sampler\n"


def test_compare_writes_nothing_unasked(here, capsys):
    before = set(here.iterdir())
    assert main(["compare", "models.py:line", *XY, "--guides", "delta,iaf", *QUIET]) == 0
    assert set(here.iterdir()) == before
    assert "DISTRUST" in capsys.readouterr().out
