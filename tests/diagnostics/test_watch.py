"""A diagnosis shows how far it is, and Ctrl-C leaves a verdict that says what was not checked."""

import signal

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal

import vipack as vi
from vipack.diagnostics import verdict
from vipack.errors import UsageError
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
    pressing_in(monkeypatch, verdict, "find_drift")
    found = fit.diagnose(500)
    assert (found.drift, found.modes, len(found.khats)) == (None, None, 4)
    assert "not checked: short chains and other modes: Ctrl-C ended the diagnosis" in str(found)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_the_climbs_keeps_the_chains(fit, monkeypatch):
    pressing_in(monkeypatch, verdict, "search_modes")
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
