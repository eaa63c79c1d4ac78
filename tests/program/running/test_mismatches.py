"""What Pyro refuses about shapes, plates and starts is said with the site, what was found, and the cure that fits."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import (
    AutoDelta,
    AutoMultivariateNormal,
    AutoNormal,
    init_to_mean,
    init_to_value,
)

import vipack as vi
from vipack.errors import (
    CheckpointError,
    GuideError,
    ModelError,
    NonFiniteError,
    PlateError,
    ShapeError,
    SiteError,
    SupportError,
    TrustWarning,
    UsageError,
)

N = 20
X = torch.linspace(-1.0, 1.0, N)
Y = torch.stack([X, 2 * X, 3 * X], dim=1)


def no_event(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x[:, None] * w, 1.0), obs=y)


def no_events(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w, 1.0).expand([len(x), 3, 2]), obs=y[..., None].expand(-1, -1, 2))


def no_event_of_a_latent(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))
        pyro.sample("y", dist.Normal(z, 1.0).to_event(1), obs=y)


def no_event_of_the_value(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def plates_in_another_order(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)), pyro.plate("column", 3):
        pyro.sample("y", dist.Normal(w, 1.0).expand([len(x), 3]), obs=y)


def at_another_dimension(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    with pyro.plate("column", 3, dim=-1), pyro.plate("data", len(x), dim=-2):
        pyro.sample("y", dist.Normal(w, 1.0).expand([len(x), 3]), obs=y)


def of_another_size(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)
    with pyro.plate("data", 3):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y[0])


def made_twice(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    for name in ("one", "two"):
        with pyro.plate("data", len(x)):
            pyro.sample(name, dist.Normal(w, 1.0), obs=x)


def at_one_dimension(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), dim=-1), pyro.plate("column", 3, dim=-1):
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)


SHAPES = [
    (no_event, ShapeError, ("'y'", "(20, 3)", "plate 'data' has 20", ".to_event(1)")),
    (no_events, ShapeError, ("'y'", "(20, 3, 2)", ".to_event(2)")),
    (no_event_of_a_latent, ShapeError, ("'z'", "(3,)", "; declare the 3 with .to_event(1)")),
    (no_event_of_the_value, ShapeError, ("'y'", "(20, 3)", ".to_event(1)")),
    (plates_in_another_order, ShapeError, ("'y'", "(20, 3)", "plate 'column' dim=-1", "dim=-2")),
    (at_another_dimension, SiteError, ("plate 'data'", "size 20 at dim=-1", "size 20 at dim=-2", "one dimension")),
    (of_another_size, SiteError, ("plate 'data'", "size 20 at dim=-1", "size 3", "one size")),
    (made_twice, SiteError, ("plate 'data'", "make it once", "with rows:")),
    (at_one_dimension, PlateError, ("'data' and 'column'", "dim=-1", "dim=-2")),
]


@pytest.mark.parametrize(("model", "error", "words"), SHAPES, ids=[case[0].__name__ for case in SHAPES])
def test_shapes_and_plates(model, error, words):
    check = vi.check(model, AutoNormal, data=(X, Y))
    assert type(check.errors[0]) is error, str(check)
    for word in words:
        assert word in str(check.errors[0])


def test_the_cure_works():
    def mended(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        rows = pyro.plate("data", len(x))
        with rows:
            pyro.sample("y", dist.Normal(x[:, None] * w, 1.0).to_event(1), obs=y)
        with rows:
            pyro.sample("x", dist.Normal(w[0], 1.0), obs=x)

    assert vi.check(mended, AutoNormal, data=(X, Y)).ok


# --- starts


def regression(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    s = pyro.sample("s", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, s), obs=y)


def cauchy(x, y):
    w = pyro.sample("w", dist.Cauchy(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def broken(site):
    raise LookupError("no start")


STARTS = {
    "NaN": (init_to_value(values={"w": torch.tensor(torch.nan)}), NonFiniteError, ("'w'", "nan", "init_to_median")),
    "of another shape": (init_to_value(values={"w": torch.zeros(3)}), ShapeError, ("'w'", "(3,)", "expected ()")),
    "outside the support": (init_to_value(values={"s": torch.tensor(-1.0)}), SupportError, ("'s'", "-1.0", "support")),
    "a number": (init_to_value(values={"w": 0.0}), GuideError, ("'w'", "float 0.0", "torch.tensor(0.0)")),
    "that raises": (broken, GuideError, ("'w'", "LookupError: no start", "init_to_value")),
}  # fmt: skip


@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal, AutoDelta, vi.guides.Structured])
@pytest.mark.parametrize("name", STARTS)
def test_a_start_that_fails_names_the_latent(name, guide):
    start, error, words = STARTS[name]
    check = vi.check(regression, functools.partial(guide, init_loc_fn=start), data=(X, X))
    assert type(check.errors[0]) is error, str(check)
    assert str(check.errors[0]).startswith("latent site ")
    assert "Trace Shapes" not in str(check.errors[0])
    for word in words:
        assert word in str(check.errors[0])


def test_a_mean_that_is_not_there_names_the_latent():
    check = vi.check(cauchy, functools.partial(AutoDelta, init_loc_fn=init_to_mean), data=(X, X))
    assert check.ok or "'w'" in str(check.errors[0])


def test_a_start_that_is_off_by_rounding_is_taken():
    def shares(x):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        pyro.sample("x", dist.Multinomial(10, p), obs=x)

    start = init_to_value(values={"p": torch.tensor([0.333, 0.333, 0.333])})
    assert vi.check(shares, functools.partial(AutoNormal, init_loc_fn=start), data=torch.tensor([2.0, 3.0, 5.0])).ok


# --- files, what a model reads, and factors


def local(x, y):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z * x, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "batch_size", "words"),
    [
        (regression, 10, ("minibatches of 10 rows", "data has 7", "fit.predict(data=")),
        (local, 10, ("minibatches of 10 rows", "data has 7")),
        (local, None, ("'AutoNormal.locs.z'", "other data", "fit.predict(data=")),
    ],
)
def test_a_file_that_is_loaded_on_other_rows(model, batch_size, words, tmp_path):
    vi.fit(model, AutoNormal, data=(X, X), steps=2, batch_size=batch_size).save(tmp_path / "fit")
    with pytest.raises(CheckpointError) as caught:
        vi.load(tmp_path / "fit", model, AutoNormal, data=(X[:7], X[:7]))
    for word in words:
        assert word in str(caught.value)


class Holder:
    """A model that reads its data from itself."""

    def __init__(self):
        self.data = {"x": X}

    def __call__(self):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        for name, value in self.data.items():
            with pyro.plate(f"rows_{name}", len(value)):
                pyro.sample(name, dist.Normal(w, 1.0), obs=value)


@pytest.mark.parametrize("ask", [vi.diagnostics.loo, lambda fit: fit.to_arviz(10)], ids=["loo", "to_arviz"])
def test_data_that_change_their_names_after_the_fit_are_told_of(ask):
    model = Holder()
    fit = vi.fit(model, AutoNormal, data=(), steps=2)
    fit.elbo(10)
    model.data = {"z": X}
    with pytest.raises(
        SiteError, match=r"observed site 'x' is not in the model any more, whose sites are now w, z.*fit anew"
    ):
        ask(fit)


def test_an_error_of_a_models_call_quotes_its_line():
    class Strict(Holder):
        def __call__(self):
            pyro.sample("w", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=self.data["z"])

    with pytest.raises(ModelError, match=r"KeyError after site 'w', at test_mismatches.py:\d+: .*self.data\[.z.\]"):
        vi.fit(Strict(), AutoNormal, data=(), steps=2)


def by_factor(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.factor("likelihood", dist.Normal(w * x, 1.0).log_prob(y))


def partly_by_factor(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.factor("likelihood", dist.Normal(w * x, 1.0).log_prob(y))
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def test_loo_tells_of_factors():
    with pytest.raises(UsageError, match=r"pyro\.factor 'likelihood'"):
        vi.diagnostics.loo(vi.fit(by_factor, AutoNormal, data=(X, X), steps=2))
    fit = vi.fit(partly_by_factor, AutoNormal, data=(X, X), steps=2)
    with pytest.warns(TrustWarning, match="pyro.factor 'likelihood' has no observations.*obs=") as caught:
        vi.diagnostics.loo(fit, num_draws=100)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_guide_without_to_event_on_all_rows_is_not_told_of_minibatches():
    def guide(x, y):
        pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0))

    def model(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(z + w, 1.0).to_event(1), obs=y)

    error = vi.check(model, guide, data=(X, Y)).errors[0]
    assert isinstance(error, ShapeError)
    assert "; declare the 3 with .to_event(1)" in str(error)
    assert "minibatch" not in str(error)
