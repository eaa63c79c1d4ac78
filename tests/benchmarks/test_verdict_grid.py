"""The grid counts what it says, and sabotage does what its name says."""

import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import vipack as vi
from benchmarks import verdict_grid
from benchmarks.estimates import Result
from benchmarks.known_posteriors import KNOWN
from benchmarks.sabotage import SABOTAGE

REGRESSION = next(known for known in KNOWN if known.name == "regression")
SIGN = next(known for known in KNOWN if known.name == "sign")


def result(verdict, raw, corrected, method="Flow", note="honest"):
    certified = {"TRUST": "raw", "CORRECTED": "corrected", "DISTRUST": "none"}[verdict]
    errors = {"raw": raw, "corrected": corrected, "none": min(raw, corrected)}[certified]
    return Result("toy", method, 0, verdict, certified, *errors, raw, corrected, 0.5, 0.5, 0, 0, 0, 0, 1.0, note=note)


GOOD, OFF, FAR = (0.05, 0.1), (0.1, 0.3), (2.0, 0.1)
ROWS = [
    result("TRUST", GOOD, GOOD),
    result("TRUST", OFF, GOOD, note="sd x 1.5", method="AutoMultivariateNormal"),  # certified draws are off
    result("CORRECTED", FAR, GOOD),
    result("CORRECTED", GOOD, FAR),  # the certified weights spoil good draws
    result("DISTRUST", FAR, OFF),
    result("DISTRUST", FAR, GOOD),  # weights would have done
]


def test_bad_certified_and_good_refused_are_told_apart():
    assert [verdict_grid.is_bad_and_certified(row) for row in ROWS] == [False, True, False, True, False, False]
    assert [verdict_grid.is_good(row) for row in ROWS] == [True, True, True, True, False, True]
    counts = verdict_grid.tally(ROWS).loc["all"]
    assert (counts["fits"], counts["bad, certified"], counts["good"], counts["good, refused"]) == (6, 2, 5, 1)
    assert counts["refused, %"] == pytest.approx(20.0)


def test_tails_and_evidence_count_where_they_are_certified():
    right = dataclasses.replace(
        ROWS[0], quantile_error=0.01, true_evidence=0.04, certified_tails=True, certified_evidence=True
    )
    assert not verdict_grid.is_bad_and_certified(right)
    for wrong in ({"quantile_error": 0.03}, {"true_evidence": 0.06}):
        off = dataclasses.replace(right, **wrong)
        assert verdict_grid.is_bad_and_certified(off)
        assert not verdict_grid.is_bad_and_certified(
            dataclasses.replace(off, certified_tails=False, certified_evidence=False)
        )
    counts = verdict_grid.tally([right, dataclasses.replace(right, certified_tails=False)]).loc["all"]
    assert (counts["tails good"], counts["tails refused"], counts["evidence refused"]) == (2, 1, 0)


def test_kinds_of_fit_are_counted_apart():
    counts = verdict_grid.tally(ROWS)
    assert counts.loc["Flow", "fits"] == 5
    assert counts.loc["sd x 1.5", "bad, certified"] == 1
    assert "AutoMultivariateNormal" not in counts.index  # its only fit was sabotaged


def test_the_page_is_made_again_from_the_file(tmp_path, capsys):
    z, khats = [0.5, -1.5, 2.5, float("nan")], [0.1, 0.2, 0.9, 0.1]
    comparison = {"posterior": "toy", "seed": 0, "draws": 1_000, "reference": 40_000, "first": "Flow", "short": 0.05}
    comparisons = [{**comparison, "z": z, "khats": khats}]
    content = {"rows": [dataclasses.asdict(row) for row in ROWS], "comparisons": comparisons}
    (tmp_path / "grid.json").write_text(json.dumps(content))
    page = tmp_path / "grid.md"
    assert verdict_grid.main(["--report", str(tmp_path / "grid.json"), "--markdown", str(page)]) == 0
    text = page.read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    assert "6 fits" in text
    assert "in 100.0% of 1 comparisons" in text
    assert "over 40,000 other draws" in text
    assert counted(text, "1,000 draws") == ["3", "33.3%", "66.7%"]
    assert counted(text, "1,000, k-hat < 0.7") == ["2", "50.0%", "100.0%"]
    assert counted(text, "1,000, k-hat >= 0.7") == ["1", "0.0%", "0.0%"]


def counted(text, name):
    return next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name).split()


def test_comparisons_are_made_with_the_defaults_and_held_against_other_draws(honest):
    defaults = inspect.signature(vi.compare).parameters
    assert verdict_grid.COMPARED[0] == (defaults["num_draws"].default, defaults["repeats"].default)
    mean_field = vi.fit(REGRESSION.model, AutoNormal, data=REGRESSION.data, steps=30, engine="eager")
    found = verdict_grid.compare("regression", 1, {"full-rank": honest, "mean-field": mean_field}, 640_000)
    assert [each["draws"] for each in found] == [16_000] * 20 + [1_000] * 20
    off = np.array([each["z"][0] for each in found])
    assert off[:20].std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * 20))
    assert abs(off[:20].mean()) < 4 / np.sqrt(20)
    assert all(each["khats"][0] < 0.7 for each in found[:20])


def test_what_the_documentation_says_of_the_table_is_in_it():
    docs = Path(__file__).parents[2] / "docs"
    table = (docs / "verdict_grid.md").read_text().split("## The verdict's errors")[1].split("```")[1]
    fits = {line[:30].strip(): [int(n) for n in line[30:].split()[:7]] for line in table.strip().splitlines()[2:]}
    total, *_, bad, good, refused = fits["all"]
    sound = sum(fits[guide][0] for guide in verdict_grid.GUIDES)
    assert total - sound == sum(fits[kind][0] for kind in SABOTAGE)
    text = " ".join((docs / "trust.md").read_text().split())
    assert f"{sound} of them sound and {total - sound} sabotaged in one of {len(SABOTAGE)} ways" in text
    assert bad == 0
    assert f"none of {total} was bad and certified, and {refused} of {good} good ones were refused" in text


@pytest.fixture(scope="module")
def honest():
    return vi.fit(REGRESSION.model, AutoMultivariateNormal, data=REGRESSION.data, steps=30, engine="eager")


def given(name, honest):
    return SABOTAGE[name](REGRESSION, honest, 0).guide.get_posterior()


def test_given_guides_are_the_honest_one_changed(honest):
    before = honest.guide.get_posterior()
    wide, off, thin = (given(name, honest) for name in ("sd x 2", "one mean shifted", "one sd squeezed"))
    torch.testing.assert_close(wide.covariance_matrix, 4 * before.covariance_matrix)
    torch.testing.assert_close(wide.loc, before.loc)
    torch.testing.assert_close(off.loc[-1], before.loc[-1] + before.stddev[-1] / 3)
    torch.testing.assert_close(off.covariance_matrix, before.covariance_matrix)
    assert thin.stddev[-1] < before.stddev[-1]
    torch.testing.assert_close(thin.stddev[:-1], before.stddev[:-1])


def test_a_frozen_parameter_stays_where_it_started(honest):
    start = vi.fit(REGRESSION.model, AutoMultivariateNormal, data=REGRESSION.data, steps=0)
    for part, other in (("loc", "scale"), ("scale", "loc")):
        frozen = SABOTAGE[f"frozen {part}"](REGRESSION, honest, 0)
        names = {p: f"AutoMultivariateNormal.{p}" for p in (part, other)}
        torch.testing.assert_close(frozen.params[names[part]], start.params[names[part]], rtol=0, atol=0)
        assert not torch.equal(frozen.params[names[other]], start.params[names[other]])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_dropped_mode_is_dropped(seed):
    fit = SABOTAGE["dropped mode"](SIGN, None, seed)
    z = fit.sample(1_000)["z"]
    assert (z.sign() == z[0].sign()).all()
    assert z.mean().item() == pytest.approx([-3.0, 3.0][seed], abs=0.1)
