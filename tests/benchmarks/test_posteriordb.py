"""The benchmark's command, on a folder of the test's own with one conjugate posterior."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from scipy import stats

from benchmarks import posteriordb
from benchmarks.estimates import Reference, Result, errors, quantile_error, unjudged
from benchmarks.reference_draws import check, evidence, read_reference

MODELS = """
import pyro
import pyro.distributions as dist
from benchmarks.posteriordb_models import Posterior, column


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, WIDTH).expand([2]).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)


POSTERIORS = [Posterior("toy-normal", model, lambda file: {"y": column(file["y"])})]
"""


@pytest.fixture
def root(tmp_path):
    """Data, reference draws and a model: mu[k] ~ N(0, 2), five rows of noise 1."""
    rng = np.random.default_rng(0)
    y = rng.normal([1.0, -2.0], 1.0, (5, 2))
    variance = 1 / (1 / 4 + 5)
    mean, sd = variance * y.sum(0), np.full(2, math.sqrt(variance))
    for folder in ("data", "reference"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data" / "toy.json").write_text(json.dumps({"y": y.tolist()}))
    contents = {"names": ["mu[1]", "mu[2]"], "mean": mean, "sd": sd, "draws": rng.normal(mean, sd, (1_000, 2))}
    contents |= {"q05": mean - 1.6449 * sd, "q95": mean + 1.6449 * sd}
    np.savez(tmp_path / "reference" / "toy-normal.npz", **contents)
    np.savez(tmp_path / "reference" / "other-unknown.npz", **contents)
    (tmp_path / "models.py").write_text(MODELS.replace("WIDTH", "2.0"))
    (tmp_path / "wrong.py").write_text(MODELS.replace("WIDTH", "0.3"))
    return tmp_path


def test_a_good_fit_of_a_posterior_given_by_a_file(root, monkeypatch, capsys):
    monkeypatch.setitem(posteriordb.METHODS, "short", posteriordb.guided("short", AutoMultivariateNormal, steps=600))
    options = [
        "--models",
        str(root / "models.py"),
        "--methods",
        "short",
        "--seeds",
        "1",
        "--json",
        str(root / "rows.json"),
    ]
    assert posteriordb.main(["--root", str(root), *options]) == 0
    (row,) = json.loads((root / "rows.json").read_text())
    assert (row["posterior"], row["method"], row["seed"]) == ("toy-normal", "short", 0)
    assert row["verdict"] in ("TRUST", "CORRECTED")
    assert row["mean_error"] < posteriordb.MEAN_LIMIT
    assert row["sd_error"] < posteriordb.SD_LIMIT
    assert row["quantile_error"] < posteriordb.QUANTILE_LIMIT
    # The model's evidence by conjugacy: rows of variance 1, all of which share a mean of variance 4.
    y = np.array(json.loads((root / "data" / "toy.json").read_text())["y"])
    exact = stats.multivariate_normal.logpdf(y.T, np.zeros(5), np.eye(5) + 4.0).sum()
    assert row["true_evidence"] == pytest.approx(exact, abs=4 * row["true_evidence_se"] + 1e-3)
    assert row["evidence"] == pytest.approx(exact, abs=posteriordb.EVIDENCE_LIMIT)
    assert row["seconds"] > 0
    printed = capsys.readouterr().out
    assert "other-unknown: no model is known" in printed
    assert "good and certified" in printed
    assert posteriordb.main(["--report", str(root / "rows.json")]) == 0
    assert capsys.readouterr().out in printed


def test_check_tells_the_right_model_from_a_wrong_one(root):
    def largest(file):
        posteriors = posteriordb.runpy.run_path(str(root / file))["POSTERIORS"]
        found = check(posteriors, root, num_draws=1_000)
        return found[["score z", "product z"]].to_numpy(dtype=float).max()

    assert largest("models.py") < 4
    assert largest("wrong.py") > 10


def test_a_report_or_a_folder_must_be_named(capsys):
    with pytest.raises(SystemExit):
        posteriordb.main([])
    assert "--root: say which folder" in capsys.readouterr().err


def test_a_reference_without_quantiles_has_none(root):
    (posterior,) = posteriordb.runpy.run_path(str(root / "models.py"))["POSTERIORS"]
    assert set(read_reference(root, "toy-normal").quantiles) == {0.05, 0.95}
    with np.load(root / "reference" / "toy-normal.npz") as file:
        older = {key: file[key] for key in ("names", "mean", "sd", "draws")}
    np.savez(root / "reference" / "toy-normal.npz", **older)
    assert not read_reference(root, "toy-normal").quantiles
    assert evidence(posterior, root).se > 0


def test_nothing_to_fit_is_said_with_exit_code_2(root, capsys):
    assert posteriordb.main(["--root", str(root), "--only", "absent"]) == 2
    assert "nothing to fit" in capsys.readouterr().out


def test_errors_are_in_units_of_the_references_sd():
    reference = Reference(("a", "b"), np.array([0.0, 10.0]), np.array([1.0, 2.0]))
    draws = {"a": torch.tensor([-1.0, 1.0, 5.0]), "b": torch.tensor([9.0, 13.0, 0.0])}
    mean_error, sd_error = errors(reference, draws, np.array([2.0, 2.0, 0.0]))
    assert mean_error == pytest.approx(0.5)  # b: 11 against 10
    assert sd_error == pytest.approx(0.0)
    with pytest.raises(KeyError, match="lack"):
        errors(reference, {"a": draws["a"]})


def test_the_error_of_a_tail_is_a_share_of_the_draws():
    reference = Reference(("a",), np.zeros(1), np.ones(1), {0.05: np.array([-1.0]), 0.95: np.array([1.0])})
    draws = {"a": torch.tensor([-2.0, 0.0, 0.5, 3.0])}
    assert quantile_error(reference, draws) == pytest.approx(0.2)  # a quarter lies on either side
    assert quantile_error(reference, draws, np.array([0.0, 1.0, 1.0, 6.0])) == pytest.approx(0.7)
    assert math.isnan(quantile_error(Reference(("a",), np.zeros(1), np.ones(1)), draws))


def test_the_tables_show_the_worst_seed(capsys):
    rows = [
        posteriordb_row("one", "ladder", 0, "TRUST", (0.01, 0.02, 0.005, 0.0)),
        posteriordb_row("one", "ladder", 1, "DISTRUST", (0.30, 0.10, 0.015, 0.2)),
        posteriordb_row("two", "ladder", 0, "TRUST", (0.01, 0.02, 0.030, 0.0)),
        posteriordb_row("one", "NUTS", 0, "-", (0.02, 0.01, 0.004, math.nan)),
    ]
    long = posteriordb.table(rows)
    assert long.loc[("one", "ladder"), ["mean", "tails", "off"]].tolist() == pytest.approx([0.30, 0.015, 0.2])
    assert long.loc[("one", "ladder"), "verdicts"] == "1 TRUST, 1 DISTRUST"
    side = posteriordb.beside(rows)
    assert side.loc["one"].tolist() == ["0.30/0.015", "0.02/0.004"]
    assert side.loc["two"].tolist() == ["0.02/0.030", "-"]
    counts = posteriordb.summary(rows).loc["ladder"]
    assert counts[["fits", "good", "good and certified", "not good, certified"]].tolist() == [3, 1, 1, 1]
    assert posteriordb.summary(rows).loc["NUTS", "good"] == 1


def posteriordb_row(posterior, method, seed, verdict, figures):
    mean, sd, tails, off = figures
    certified = "raw" if verdict == "TRUST" else "none"
    elsewhere = (0.5, 1.0, -3.0, 0.1, -3.0 + off, 0.01, 10.0)
    row = Result(posterior, method, seed, verdict, certified, mean, sd, (mean, sd), (mean, sd), *elsewhere)
    return dataclasses.replace(row, quantile_error=tails, true_evidence=-3.0)


def test_a_method_without_a_verdict_certifies_nothing():
    reference = Reference(("mu", "b[2]"), np.array([1.0, 0.0]), np.array([2.0, 1.0]))
    b = np.random.default_rng(0).normal(size=(1_000, 2))
    draws = {"mu": 2.0 + 2.0 * b[:, 0], "b": b}
    row = unjudged(("toy", "peer", 0), draws, reference, (3.0, 2.0), -1.5)
    assert (row.mean_error, row.sd_error) == row.raw
    assert row.mean_error == pytest.approx(0.5, abs=0.1)
    assert (row.verdict, row.certified, row.elbo, row.seconds, row.cpu_seconds) == ("-", "none", -1.5, 3.0, 2.0)


def test_peers_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert posteriordb.with_peers() == posteriordb.METHODS
