"""The preflight: no false alarms, all that it found in one place, and warnings for what may be a mistake."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from tests.program.sound_programs import SOUND
from vipack.errors import DataWarning, ProgramWarning, SiteError

X = torch.linspace(-1, 1, 12)


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_program_raises_no_alarm(name):
    model, guide, data, options = SOUND[name]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = vi.check(model, guide, data=data, **options)
        assert found.ok, str(found)
        assert found.warnings == ()
        fit = vi.fit(model, guide, data=data, steps=2, **options)
    assert torch.isfinite(torch.tensor(fit.losses)).all()
    assert [str(w.message) for w in said if issubclass(w.category, UserWarning)] == []


def model(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def twice_wrong(x):
    pyro.sample("typo", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))


def test_a_good_check_reads_as_the_shape_table():
    found = vi.check(model, AutoNormal, data=X, batch_size=4)
    lines = str(found).splitlines()
    assert lines[0].startswith("site  kind")
    assert f"plates: data (4 of {len(X)})" in lines
    assert "parameters: AutoNormal.locs.w (), AutoNormal.scales.w ()" in lines
    assert lines[-1] == "ok"
    found.raise_if_bad()


@pytest.mark.parametrize("size", [lambda x: {}, lambda x: {"subsample_size": len(x)}], ids=["by length", "by size"])
def test_the_table_says_how_much_of_the_batch_plate_was_taken(size):
    def written(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(X) if size(x) else len(x), **size(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    table = vi.check(written, AutoNormal, data=X, batch_size=4).table
    assert (table.plates, table.seen) == ({"data": len(X)}, {"data": 4})
    table = vi.check(written, AutoNormal, data=X).table
    assert (table.plates, table.seen) == ({"data": len(X)}, {})


def test_everything_found_is_told_at_once():
    found = vi.check(model, twice_wrong, data=X)
    assert not found.ok
    assert [type(error) for error in found.errors] == [SiteError, SiteError]
    lines = str(found).splitlines()
    assert lines[-1] == "2 error(s)"
    assert sum(line.startswith("error: ") for line in lines) == 2
    with pytest.raises(SiteError, match="'typo'") as caught:
        found.raise_if_bad()
    assert any("'w'" in note for note in caught.value.__notes__)


def test_a_program_that_cannot_run_is_told_too():
    found = vi.check(model, AutoNormal, data=(X, X))
    assert found.table is None
    assert "error: the model takes (x)" in str(found)


def test_a_check_twice_says_the_same():
    assert str(vi.check(model, AutoNormal, data=X)) == str(vi.check(model, AutoNormal, data=X))


def test_the_check_of_a_fit_is_kept():
    assert vi.fit(model, AutoNormal, data=X, steps=1).check.table["w"].kind == "latent"


def test_a_tensor_that_requires_grad_and_is_no_parameter_is_pointed_out():
    loose = torch.zeros((), requires_grad=True)

    def guide(x):
        pyro.sample("w", dist.Normal(loose, pyro.param("scale", torch.tensor(1.0))))

    found = vi.check(model, guide, data=X)
    assert found.ok
    assert [type(w) for w in found.warnings] == [ProgramWarning]
    with pytest.warns(ProgramWarning, match=r"1 tensor\(s\) that require grad .* never trained; declare them"):
        vi.fit(model, guide, data=X, steps=1)


def test_a_network_that_was_not_registered_is_pointed_out():
    network = torch.nn.Linear(1, 1)

    def guide(x):
        pyro.param("unused", torch.tensor(1.0))
        pyro.sample("w", dist.Normal(network(torch.ones(1))[0], 1.0))

    with pytest.warns(ProgramWarning, match=r"2 tensor\(s\).*\(1, 1\), \(1,\)|2 tensor\(s\).*\(1,\), \(1, 1\)"):
        vi.fit(model, guide, data=X, steps=1)


def test_a_constant_of_another_precision_is_pointed_out():
    constant = torch.ones((), dtype=torch.float64)

    def mixed(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w * constant.expand(len(x)), 1.0), obs=x)

    with pytest.warns(ProgramWarning, match=r"site 'x': log_prob is torch.float64, the fit runs in torch.float32"):
        vi.fit(mixed, AutoNormal, data=X, steps=1)


def test_data_that_reach_no_site_are_pointed_out():
    """A forgotten obs= whose site has another name than the argument, beside one that is there."""

    def forgetful(x, counts):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)
            pyro.sample("number", dist.Normal(w, 1.0))

    data = (X, torch.arange(12.0))
    with pytest.warns(DataWarning, match=r"'counts' changes nothing at any site .* is an obs=counts forgotten\?"):
        vi.fit(forgetful, AutoNormal, data=data, steps=1)
    assert [type(w) for w in vi.check(forgetful, AutoNormal, data=data, batch_size=4).warnings] == [DataWarning]


def test_one_row_with_a_missing_entry_is_not_pointed_out():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            there = ~x.isnan()
            filled = torch.where(there, x, 0.0)
            pyro.factor("x", (there * dist.Normal(z[:, None], 1.0).log_prob(filled)).sum(-1))

    assert vi.check(model, AutoNormal, data=torch.tensor([[1.0, torch.nan]])).warnings == ()


def test_data_for_the_guide_alone_are_not_pointed_out():
    def encoder(x, hint):
        pyro.sample("w", dist.Normal(hint.mean() * hint[0], pyro.param("scale", torch.tensor(1.0))))

    assert vi.check(lambda x, hint: model(x), encoder, data=(X, X + 1)).warnings == ()


def test_a_scale_of_the_users_own_beside_batch_size_is_pointed_out():
    def scaled(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=12 / 4):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    with pytest.warns(ProgramWarning, match=r"site 'x' is scaled by 3 = N/B twice.*remove poutine.scale"):
        vi.fit(scaled, AutoNormal, data=X, batch_size=4, steps=1)
    assert vi.check(scaled, AutoNormal, data=X, batch_size=6).warnings == ()
    assert vi.check(scaled, AutoNormal, data=X).warnings == ()


def test_nothing_to_train_is_an_error_only_when_training():
    def fixed(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    assert vi.check(model, fixed, data=X).ok
    assert vi.fit(model, fixed, data=X, steps=0).elbo(100).value < 0
    with pytest.raises(vi.errors.GuideError, match=r"nothing to train; declare some with pyro.param, or pass steps=0"):
        vi.fit(model, fixed, data=X, steps=1)
