"""A diagnosis shows how far it is, and Ctrl-C leaves a verdict that says what was not checked."""

import signal

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal

import vipack as vi
from vipack.diagnostics import judgement
from vipack.errors import TrustWarning, UsageError
from vipack.posterior import Posterior

Y = torch.tensor([1.2, 0.3, 2.1, 1.7, 0.9])


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


@pytest.fixture(scope="module")
def fit():
    return vi.fit(model, AutoMultivariateNormal, data=Y, steps=1_000, progress=False)


def pressing_in(monkeypatch, owner, name, *, at_call=1):
    """Press Ctrl-C as `owner.name` is called for the n-th time."""
    original, calls = getattr(owner, name), []

    def pressed(*args, **kwargs):
        calls.append(1)
        if len(calls) == at_call:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, pressed)


def test_ctrl_c_in_the_chains_leaves_the_verdict_of_the_weights(fit, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    pressing_in(monkeypatch, judgement, "find_drift")
    found = fit.diagnose(500)
    assert (found.drift, found.modes, len(found.khats)) == (None, None, 4)
    assert "not checked: short chains and other modes: Ctrl-C ended the diagnosis" in str(found)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_climbs_keeps_the_chains(fit, monkeypatch):
    pressing_in(monkeypatch, judgement, "climb_elsewhere")
    found = fit.diagnose(500)
    assert found.drift is not None
    assert found.modes is None
    assert "not checked: other modes: Ctrl-C ended the diagnosis" in str(found)


def test_ctrl_c_in_a_later_set_of_draws_keeps_the_earlier_ones(fit, monkeypatch):
    pressing_in(monkeypatch, Posterior, "_evaluate", at_call=3)
    found = fit.diagnose(500)
    assert len(found.khats) == 2
    assert "not checked: 2 of 4 sets of draws: Ctrl-C ended the diagnosis" in str(found)
    assert found.drift is None


def test_ctrl_c_before_anything_is_known_interrupts(fit, monkeypatch):
    pressing_in(monkeypatch, Posterior, "_evaluate")
    with pytest.raises(KeyboardInterrupt):
        fit.diagnose(500)


def test_ctrl_c_keeps_the_fits_that_a_comparison_has_judged(fit, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    fits = dict.fromkeys(("first", "second", "third"), fit)
    pressing_in(monkeypatch, judgement, "find_drift", at_call=2)
    with pytest.warns(
        TrustWarning, match=r"'third' not judged, and 'second' judged without short chains and other modes"
    ):
        table = vi.compare(fits, num_draws=500, modes=False)
    assert list(table.index) == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_before_a_later_fit_has_draws_leaves_it_out(fit, monkeypatch):
    pressing_in(monkeypatch, Posterior, "_evaluate", at_call=2)
    with pytest.warns(TrustWarning, match=r"ended the comparison: 'second' not judged; call it again"):
        table = vi.compare({"first": fit, "second": fit}, num_draws=500, repeats=1, chains=False, modes=False)
    assert list(table.index) == ["first"]


def test_ctrl_c_before_any_fit_is_judged_interrupts(fit, monkeypatch):
    pressing_in(monkeypatch, Posterior, "_evaluate")
    with pytest.raises(KeyboardInterrupt):
        vi.compare({"first": fit, "second": fit}, num_draws=500)


def test_a_comparison_shows_each_fit(fit, capsys):
    vi.compare({"first": fit, "second": fit}, num_draws=500, modes=False)
    assert capsys.readouterr().err == ""
    vi.compare({"first": fit, "second": fit}, num_draws=500, modes=False, progress=True)
    shown = capsys.readouterr().err
    for piece in ("first (1 of 2): importance weights", "second (2 of 2): short chains"):
        assert piece in shown
    with pytest.raises(UsageError, match="progress: expected True, False or None"):
        vi.compare({"first": fit}, progress="bar")


def test_a_bar_is_shown_where_it_is_asked_for_and_in_no_file(fit, capsys):
    fit.diagnose(500)
    assert capsys.readouterr().err == ""
    fit.diagnose(500, progress=True)
    shown = capsys.readouterr().err
    for piece in ("importance weights", "short chains", "other modes"):
        assert piece in shown


def test_progress_is_a_bool_or_none(fit):
    with pytest.raises(UsageError, match="progress: expected True, False or None"):
        fit.diagnose(progress="bar")
