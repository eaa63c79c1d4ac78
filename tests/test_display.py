"""What a user sees at a prompt and in a notebook: readable, short, escaped."""

import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam

import vipack as vi
from vipack.display import block, grid, listed, shortened
from vipack.progress import ProgressBar

X = 1.0 + torch.randn(40, generator=torch.Generator().manual_seed(0))
DUMP = re.compile(r"array\(|tensor\(|object at 0x|frozenset|np\.float|\w+=\w+\(")
PAGE_COLOURS = re.compile(r"(?<!-)\b(color|background)\b")


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    pyro.deterministic("twice", 2 * mu)
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


PROGRESS = []


def _stop(progress):
    PROGRESS.append(progress)
    return "enough <b>now</b>"


@pytest.fixture(scope="module")
def shown():
    """Every kind of result that a user can have at a prompt."""
    fit = vi.fit(model, AutoNormal, data=X, steps=200, progress=False, callbacks=vi.Every(150, _stop))
    diagnosis = fit.diagnose(1_000)
    ladder = vi.fit(model, data=X, progress=False)
    draws = fit.posterior.draws(500)
    return {
        "fit": fit,
        "guide": fit.guide,
        "engine": fit.engine,
        "stopped": fit.stopped,
        "check": fit.check,
        "sites": fit.check.table,
        "site": fit.check.table["mu"],
        "posterior": fit.posterior,
        "draws": draws,
        "elbo": fit.elbo(),
        "diagnosis": diagnosis,
        "evidence": diagnosis.evidence,
        "shift": diagnosis.shift,
        "drift": diagnosis.drift,
        "modes": diagnosis.modes,
        "ladder": ladder,
        "stages": ladder.stages,
        "stage": ladder.stages[0],
        "no stages": fit.stages,
        "loo": vi.diagnostics.loo(fit),
        "importance": vi.diagnostics.importance(draws.log_weights),
        "calibration": vi.vsbc(model, AutoNormal, data=X, steps=5, num_simulations=20),
        "progress": PROGRESS[0],
        "svi": vi.SVI(model, AutoNormal(model), Adam({"lr": 0.1}), Trace_ELBO()),
        "objective": vi.objectives.StickingTheLanding(4, antithetic=True),
        "beta": vi.objectives.BetaELBO(lambda step: 1.0),
        "rules": vi.datasets.TextRules(),
        "converged": vi.Converged(),
        "checkpoint": vi.Checkpoint("fit.pt"),
    }


def test_nothing_is_a_dump_of_its_fields_at_a_prompt(shown):
    for name, result in shown.items():
        assert result is not None, name
        text = repr(result)
        assert not DUMP.search(text), f"{name}: {text}"
        assert len(text) < 1_500, f"{name}: {text}"


def test_what_a_prompt_shows_is_the_text(shown):
    for name in ("diagnosis", "check", "stages", "elbo", "loo", "calibration", "engine", "stopped"):
        assert repr(shown[name]) == str(shown[name])


def test_notebooks_get_small_html_that_takes_the_colours_of_the_page(shown):
    for name in ("fit", "check", "sites", "diagnosis", "ladder", "stages", "no stages", "loo", "calibration", "elbo"):
        page = shown[name]._repr_html_()
        assert len(page) < 6_000, name
        outside = re.sub(r"<span style=[^>]*>\w+</span>|color:inherit", "", page)  # a verdict brings its own ground
        assert not PAGE_COLOURS.search(outside), name
    assert "background" in shown["diagnosis"].verdict._repr_html_()
    assert shown["diagnosis"].verdict.value in shown["fit"]._repr_html_()


def test_html_is_escaped(shown):
    assert "&lt;b&gt;now" in shown["fit"]._repr_html_()
    assert "<b>" not in shown["fit"]._repr_html_()
    assert "<" not in re.sub(r"</?(pre|table|thead|tbody|tr|td|th|span)\b[^>]*>", "", grid([["<i>", "&"]], ["<u>"]))

    def odd(x):
        pyro.sample("<i>z</i>", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    page = vi.check(odd, AutoNormal, data=torch.tensor(1.0))._repr_html_()
    assert "&lt;i&gt;z" in page
    assert "<i>" not in page


def test_a_fit_of_the_ladder_says_how_it_was_found(shown):
    text = repr(shown["ladder"])
    assert "found by the ladder: paths (" in text
    assert not re.search(r"\b0 steps", text + str(shown["ladder"].stopped))
    assert "ladder" in shown["ladder"]._repr_html_()


def test_a_model_of_many_sites_fills_no_screen():
    def many(x):
        for i in range(300):
            pyro.sample(f"z_{i}", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    found = vi.check(many, AutoNormal, data=torch.tensor(1.0))
    assert len(repr(found).splitlines()) <= 45
    assert len(repr(found)) < 6_000
    assert len(found._repr_html_()) < 40_000
    assert "z_0" in repr(found)
    assert repr(found).endswith("ok")
    assert str(found).count("latent") == 300


def test_long_texts_and_lists_say_what_is_left_out():
    assert shortened("a\nb") == "a\nb"
    assert "60 more lines" in shortened("\n".join(map(str, range(100))))
    assert len(shortened("x" * 10_000)) < 1_000
    assert listed("abc") == "a, b, c"
    assert listed(map(str, range(20)), 2) == "0, 1 and 18 more"
    assert "<" not in block("<").removeprefix('<pre style="margin:0;white-space:pre-wrap">').removesuffix("</pre>")


@pytest.mark.parametrize(("module", "show", "expected"), [
    ("tqdm.notebook", None, False), ("tqdm.notebook", False, True), ("tqdm.std", None, None), ("tqdm.std", True, False),
])  # fmt: skip
def test_a_notebook_has_a_bar_though_its_output_is_no_terminal(monkeypatch, module, show, expected):
    seen = {}

    def keep(self, **options):
        seen.update(options)

    monkeypatch.setattr("vipack.progress.tqdm", type("Bar", (), {"__init__": keep, "__module__": module}))
    ProgressBar(10, 0, show)
    assert seen["disable"] is expected


def test_tables_of_figures_are_frames_too(shown):
    stages = shown["stages"].to_frame()
    assert list(stages.index) == [stage.name for stage in shown["stages"]]
    assert stages["elbo"].iloc[0] == shown["stages"][0].elbo.value
    assert shown["no stages"].to_frame().empty
    assert shown["sites"].to_frame().loc["mu", "distribution"] == "Normal"
    assert shown["loo"].to_frame()["elpd"].sum() == pytest.approx(shown["loo"].elpd.value)
    assert shown["calibration"].to_frame().loc["mu"].tolist() == [
        shown["calibration"].bias[0],
        shown["calibration"].spread[0],
    ]
    assert list(shown["drift"].draws.to_frame().columns) == ["mean", "mean_se", "log_sd", "log_sd_se"]
