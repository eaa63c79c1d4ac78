"""What does not vary beyond rounding is constant, for every diagnostic; what varies by more than that is not."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal

import vipack as vi
from vipack import plots
from vipack.diagnostics import Verdict, disagreement, predictive_pvalues
from vipack.diagnostics.chains import whitening
from vipack.diagnostics.moments import Columns, columns_of, comparable, shift_by_weights
from vipack.diagnostics.rounding import COMPUTED, constant, precision, rounding, same
from vipack.plots.kernel_density import density, is_point

EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}
COUNT = 4_000
X = 1.0 + torch.randn(40, generator=torch.Generator().manual_seed(0))
TABLE = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def normals(seed=0, count=COUNT):
    return np.random.default_rng(seed).standard_normal(count)


# --- the one question


@pytest.mark.parametrize("dtype", EPS)
def test_a_cholesky_factors_one_and_its_zeros_do_not_vary(dtype):
    angles = normals()
    corner = np.sqrt(np.cos(angles) ** 2 + np.sin(angles) ** 2, dtype=dtype)
    table = np.stack([corner, np.zeros(COUNT), np.full(COUNT, 0.1)], axis=1).astype(dtype)
    assert constant(table).tolist() == [True, True, True]


@pytest.mark.parametrize("dtype", EPS)
def test_sums_of_probabilities_and_diagonals_of_products_do_not_vary(dtype):
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.ones(200), COUNT).astype(dtype)
    factors = generator.standard_normal((COUNT, 30)).astype(dtype)
    factors /= np.sqrt((factors**2).sum(1, keepdims=True))
    table = np.stack([shares.sum(1), (factors * factors).sum(1)], axis=1)
    assert table.dtype == dtype
    assert len(np.unique(table[:, 0])) > 2
    assert constant(table, COMPUTED * np.finfo(dtype).eps).tolist() == [True, True]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e8])
@pytest.mark.parametrize("units", [2, 100])
def test_a_spread_that_the_type_can_show_is_one(dtype, size, units):
    """Of two units in the last place, whatever the size: a date in seconds, a rate of 1e-30."""
    values = (size * (1 + units * EPS[dtype] * normals())).astype(dtype)
    assert not constant(values[:, None])[0]
    assert not is_point(values)


def test_values_near_a_hundred_million_keep_their_spread_in_double_precision():
    values = 1e8 + 1e-3 * normals()
    assert not constant(values[:, None])[0]
    assert constant(values[:, None].astype(np.float32))[0]


def test_the_type_is_that_in_which_the_numbers_were_computed():
    values = (1 + 1e-7 * normals()).astype(np.float32).astype(np.float64)
    assert constant(values[:, None], EPS[np.float32])[0]
    assert not constant(values[:, None])[0]


def test_what_is_infinite_or_undefined_throughout_is_constant_and_what_is_so_at_times_is_not():
    table = np.ones((100, 6))
    table[:, 1], table[:, 2] = np.inf, np.nan
    table[7, 3], table[7, 4], table[7, 5] = np.inf, np.nan, -np.inf
    assert constant(table).tolist() == [True, True, True, False, False, False]


def test_whole_numbers_have_no_rounding():
    assert precision(np.array([3])) == 0
    assert not constant(np.array([2**53, 2**53, 2**53 + 2]))
    assert constant(np.array([5, 5]))
    assert constant(np.empty((0, 2))).all()


def test_two_numbers_are_the_same_within_rounding_of_their_size():
    double, single = (4 * EPS[kind] for kind in (np.float64, np.float32))
    assert same(0.1 + 0.2, 0.3, double)
    assert not same(1.0, 1.0 + 1e-12, double)
    assert same(1.0, 1.0 + 1e-7, single)
    assert same(np.inf, np.inf, double)
    assert not same(np.inf, 1.0, double)
    assert not same(1e-20, 2e-20, single)
    assert float(rounding(1e8, EPS[np.float32])) == pytest.approx(11.9, abs=0.1)


# --- moments


def columns(values, eps=EPS[np.float64], computed=False):
    names = tuple(f"c[{i}]" for i in range(values.shape[1]))
    return Columns(names, values, np.full(len(names), eps), np.full(len(names), computed))


def test_a_residue_of_averaging_is_no_shift():
    """The mean of 4,000 times 0.1 is not 0.1, whose square root of the squared difference was divided by."""
    table = np.stack([np.full(COUNT, 0.1), np.full(COUNT, 1e8), normals()], axis=1)
    weights = np.random.default_rng(1).dirichlet(np.ones(COUNT))
    found = shift_by_weights(columns(table), weights)
    assert found.names == ("c[2]",)


def test_the_shift_of_a_column_far_from_zero_is_that_of_the_column_at_zero():
    weights = np.random.default_rng(1).dirichlet(np.ones(COUNT))
    near, far = (shift_by_weights(columns(offset + normals()[:, None]), weights) for offset in (0.0, 1e8))
    for one, other in zip(
        (near.mean, near.mean_se, near.log_sd, near.log_sd_se),
        (far.mean, far.mean_se, far.log_sd, far.log_sd_se),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_all_weight_on_equal_draws_is_a_large_shift_and_no_infinity():
    values = normals()
    values[0] = 3.0
    weights = np.zeros(COUNT)
    weights[0] = 1.0
    found = shift_by_weights(columns(values[:, None]), weights)
    assert np.isfinite(found.log_sd).all()
    assert found.worst_log_sd > 20


def test_computed_elements_that_are_infinite_at_times_have_no_moments_to_compare():
    table = np.stack([normals(), normals(1)], axis=1)
    table[5, 1] = np.inf
    kept, without = comparable(columns(table, computed=True))
    assert kept.names == ("c[0]",)
    assert without == ("c[1]",)
    kept, without = comparable(columns(table))  # a latent that is infinite is another matter
    assert without == ()


def test_columns_know_the_type_of_their_site():
    found = columns_of({"a": torch.ones(3), "n": torch.ones(3, dtype=torch.int64)}, {"b": torch.ones(3, 2).double()})
    assert found.names == ("a", "b[0]", "b[1]")
    assert found.rounding.tolist() == [2.0**-23, 2.0**-50, 2.0**-50]
    assert found.computed.tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0])
def test_the_scale_of_a_coordinate_is_found_however_small(dtype, scale):
    u = torch.from_numpy(scale * np.stack([normals(), normals(1)], axis=1)).to(dtype)
    tril = whitening(u).scale_tril
    assert tril.diagonal().tolist() == pytest.approx([scale, scale], rel=0.05)
    still = whitening(torch.cat([u, torch.full((COUNT, 1), 1e8, dtype=dtype)], dim=1))
    assert still.scale_tril.diagonal()[2] > 0
    assert still.scale_tril.isfinite().all()


# --- verdicts


def constants(x):
    """Every number here but mu's own is the same in each draw, give or take a last bit."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    pyro.deterministic("tenth", torch.tensor(0.1))
    pyro.deterministic("thirds", torch.full((3,), 1 / 3))
    pyro.deterministic("total", torch.stack([mu, 1 - mu, mu / 3]).softmax(0).sum(0))
    pyro.deterministic("never", torch.stack([mu, torch.full_like(mu, -math.inf)], dim=-1))
    pyro.deterministic("unknown", torch.tensor(math.nan))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def correlated(x):
    scale = pyro.sample("scale", dist.HalfNormal(2.0).expand([3]).to_event(1))
    factor = pyro.sample("factor", dist.LKJCholesky(3, 2.0))
    pyro.deterministic("correlation", factor @ factor.mT)
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(3), scale_tril=scale[..., None] * factor), obs=x)


def single_outcome(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(1)))
    with pyro.plate("several", 3):
        pyro.sample("shares", dist.Dirichlet(torch.ones(1)))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu * share[..., 0], 1.0), obs=x)


def dates(x):
    """Seconds since an epoch: a spread of .16 near 1e8, which double precision shows and single does not."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    pyro.deterministic("date", 1e8 + mu.double())
    pyro.deterministic("coarse", 1e8 + mu.float())
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


RIGHT = {"constants": (constants, X), "single outcomes": (single_outcome, X), "dates": (dates, X)}


@pytest.mark.parametrize(
    ("guide", "dtype"),
    [(AutoNormal, torch.float32), (AutoMultivariateNormal, torch.float64)],
    ids=["AutoNormal", "AutoMultivariateNormal"],
)
@pytest.mark.parametrize("name", RIGHT)
def test_constants_do_not_make_a_right_fit_wrong(name, guide, dtype):
    program, data = RIGHT[name]
    found = vi.fit(program, guide, data=data.to(dtype), steps=1_500, engine="interpreted").diagnose(2_000)
    assert found.verdict is Verdict.TRUST, str(found)
    names = {"constants": {"mu", "never[0]"}, "single outcomes": {"mu"}, "dates": {"mu", "date"}}[name]
    assert set(found.drift.draws.names) <= names
    assert set(found.shift.names) == names


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_a_correlation_matrix_is_judged_by_what_varies_in_it(dtype):
    fit = vi.fit(correlated, AutoMultivariateNormal, data=TABLE.to(dtype), steps=1_500, engine="interpreted")
    found = fit.diagnose(2_000)
    assert found.verdict is not Verdict.DISTRUST, str(found)
    below = [f"factor[{i}, {j}]" for i in range(3) for j in range(i + 1) if (i, j) != (0, 0)]
    beside = [f"correlation[{i}, {j}]" for i in range(3) for j in range(3) if i != j]
    expected = {*below, *beside, "scale[0]", "scale[1]", "scale[2]"}
    assert set(found.drift.draws.names) == set(found.shift.names) == expected


MASK = torch.arange(len(X)) % 4 != 0


def masked(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x, obs_mask=MASK)


def masked_guide(x):
    loc = pyro.param("loc", torch.tensor(0.0, dtype=x.dtype))
    scale = pyro.param("scale", torch.tensor(0.3, dtype=x.dtype), constraint=dist.constraints.positive)
    mu = pyro.sample("mu", dist.Normal(loc, scale))
    with pyro.plate("rows", len(x)), poutine.mask(mask=~MASK):
        pyro.sample("x_unobserved", dist.Normal(mu, 1.0))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_observed_values_between_unobserved_ones_are_constant(dtype):
    """Where the mask observes x, its site is the datum, and the latent that stands by is one the model says nothing of."""
    found = vi.fit(masked, masked_guide, data=X.to(dtype), steps=1_500, engine="interpreted").diagnose(2_000)
    assert found.verdict is Verdict.TRUST, str(found)
    hidden = [i for i in range(len(X)) if not MASK[i]]
    expected = {"mu", *(f"x[{i}]" for i in hidden), *(f"x_unobserved[{i}]" for i in hidden)}
    assert set(found.drift.draws.names) == expected


def test_a_guide_that_has_collapsed_onto_a_constant_is_still_found():
    """sd 1e-7 of what it ought to be: the draws vary by rounding alone, the chains do not."""

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(torch.tensor([1.0, 1.0]), torch.tensor([1e-7, 0.8])).to_event(1))

    found = vi.fit(model, guide, data=torch.tensor(2.0), steps=0).diagnose()
    assert found.verdict is Verdict.DISTRUST
    assert "inf" not in str(found)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_latent_near_a_hundred_million_is_judged_as_one_near_zero(factor):
    """In single precision its sd of 50 is six steps of the type; a guide half as wide must not pass for it."""

    def model():
        pyro.sample("z", dist.Normal(torch.tensor(1e8), 50.0))
        pyro.factor("nothing", torch.zeros(()))

    def guide():
        pyro.sample("z", dist.Normal(torch.tensor(1e8), 50.0 * factor))

    found = vi.fit(model, guide, data=(), steps=0).diagnose()
    assert (found.verdict is Verdict.TRUST) is (factor == 1.0), str(found)
    assert found.drift.draws.names == ("z",)


def test_what_is_infinite_at_some_draws_is_named_and_not_held_against_the_fit():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        pyro.deterministic("odd", (mu > 0.9).float().log())
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    found = vi.fit(model, AutoNormal, data=X, steps=1_500, engine="traced").diagnose()
    assert found.verdict is Verdict.TRUST, str(found)
    assert "means and sds of odd: infinite or NaN at some draws" in found.skipped


# --- the others


@pytest.fixture(scope="module")
def fitted():
    return vi.fit(constants, AutoNormal, data=X, steps=300, engine="traced")


def test_a_summary_gives_constants_no_spread(fitted):
    table = fitted.summary(500)
    assert table.loc[["tenth", "thirds[0]", "total"], "sd"].tolist() == [0.0, 0.0, 0.0]
    assert table.loc["tenth", "mean"] == table.loc["tenth", "50%"] == float(torch.tensor(0.1))
    assert table.loc["never[1]", "mean"] == -math.inf
    assert table.loc["mu", "sd"] > 0.1
    assert math.isnan(fitted.summary(1).loc["mu", "sd"])


def test_fits_do_not_disagree_about_constants(fitted):
    other = vi.fit(constants, AutoMultivariateNormal, data=X, steps=300, seed=1, engine="traced")
    table = disagreement({"one": fitted, "two": other}, num_draws=500)
    still = ["tenth", "thirds[0]", "thirds[1]", "thirds[2]", "total"]
    assert table.loc[still, "mean_gap"].tolist() == [0.0] * 5
    assert table.loc[still, "sd_ratio"].tolist() == [1.0] * 5
    assert 0 < table.loc["mu", "mean_gap"] < 3


def test_constants_that_differ_between_fits_are_infinitely_far_apart():
    def model(x, shift):
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        pyro.deterministic("shift", shift)
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    fits = {
        str(shift): vi.fit(
            model, AutoNormal, data=torch.tensor(1.0), fixed={"shift": torch.tensor(shift)}, steps=50, engine="eager"
        )
        for shift in (1.0, 1.5)
    }
    with pytest.warns(vi.errors.DataWarning, match="different data"):
        table = disagreement(fits, num_draws=300)
    assert table.index[0] == "shift"
    assert table.loc["shift", "mean_gap"] == math.inf
    ax = plots.disagreement(table)
    assert all(np.isfinite(bar.get_width()) for bar in ax.patches)
    assert any("both constant" in text.get_text() for text in ax.texts)


def test_the_same_guide_twice_differs_by_nothing():
    """In single precision two runs of one guide differ in the last bits of their log densities."""
    fit = vi.fit(constants, AutoNormal, data=X, steps=300, engine="traced")
    again = vi.fit(constants, AutoNormal, data=X, steps=300, engine="eager")
    table = vi.compare({"one": fit, "two": again}, num_draws=500, chains=False, modes=False)
    assert table["elbo_diff"].tolist() == pytest.approx([0.0, 0.0], abs=1e-4)
    assert table["diff_khat"].iloc[0] == 0.0


def test_a_statistic_that_every_data_set_has_is_a_tie():
    """Probabilities have the mean 1/K whatever they are: p is a half, not how rounding falls."""

    def model(x):
        share = pyro.sample("share", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Dirichlet(share * torch.ones(3)), obs=x)

    data = dist.Dirichlet(torch.ones(3)).sample((20,))
    fit = vi.fit(model, AutoNormal, data=data, steps=200, engine="traced")
    table = predictive_pvalues(fit, num_draws=200)
    assert table.loc[("x", "mean"), "p"] == 0.5
    assert table.loc[("x", "mean"), "sd"] == 0.0
    assert table.loc[("x", "max"), "sd"] > 0


def test_calibration_leaves_out_what_every_draw_and_every_truth_have_in_common():
    def model(x):
        factor = pyro.sample("factor", dist.LKJCholesky(2, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), scale_tril=factor), obs=x)

    found = vi.vsbc(model, AutoNormal, data=TABLE[:10, :2], steps=200, num_simulations=20, num_draws=100)
    assert found.names == ("factor[1, 0]", "factor[1, 1]")


def test_a_density_is_not_as_narrow_as_the_rounding_of_most_of_its_sample():
    values = np.concatenate([1 + 1e-7 * normals(), 1 + normals(1, 200)]).astype(np.float32)
    points, heights = density(values)
    assert heights.max() < 100
    assert np.trapezoid(heights, points) == pytest.approx(1.0, abs=0.01)


def test_a_loss_that_only_rounding_moves_is_a_straight_line():
    values = (-58.42 * (1 + 1e-8 * normals())).astype(np.float64)
    low, high = plots.losses(values).get_ylim()
    assert high - low > 1.0
