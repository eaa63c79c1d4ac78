"""A minibatch counts for all rows: log p and log q in the batch plate are scaled by N/B, however the plate is written."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import vipack as vi
from vipack.errors import PlateError
from vipack.program import Arguments, BatchPlate, Program

N = 10
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, dtype=torch.float64, generator=GENERATOR)
Y = torch.randn(N, dtype=torch.float64, generator=GENERATOR)
W = torch.tensor(0.7, dtype=torch.float64)
Z = torch.randn(N, dtype=torch.float64, generator=GENERATOR)
PRIOR = dist.Normal(0.0, 1.0).log_prob(W)
LIKELIHOOD = dist.Normal(W * X, 1.0).log_prob(Y)  # (N,)


def by_data(x):
    return pyro.plate("data", len(x))


def by_count(x):
    return pyro.plate("data", N)


def by_subsample_size(x):
    return pyro.plate("data", N, subsample_size=len(x))


def by_data_with_dim(x):
    return pyro.plate("data", len(x), dim=-1)


SPELLINGS = [by_data, by_count, by_subsample_size, by_data_with_dim]


def regression(plate):
    def model(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with plate(x):
            pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    return model


def no_guide(*args):
    pass


def traced(model, rows, latents, *data):
    """The model's trace on the given rows, with these latents and its log densities."""
    program = Program(model, no_guide, dtype=torch.float64, device=torch.device("cpu"))
    program.batch_plate = BatchPlate("data", N)
    indices = torch.tensor(rows)
    arguments = Arguments(tuple(value[indices] for value in data), {}, indices)
    with program.bound(arguments):
        trace = poutine.trace(poutine.condition(model, data=latents)).get_trace(*arguments.args)
        trace.compute_log_prob()
    return trace


def log_p(model, rows, *data, **latents):
    return traced(model, rows, latents, *data).log_prob_sum()


@pytest.mark.parametrize("rows", [[0, 1, 2], [7], [9, 4, 3, 8], list(range(N))], ids=len)
@pytest.mark.parametrize("plate", SPELLINGS)
def test_every_spelling_scales_a_batch_alike(plate, rows):
    found = log_p(regression(plate), rows, X, Y, w=W)
    torch.testing.assert_close(found, PRIOR + N / len(rows) * LIKELIHOOD[rows].sum())


@pytest.mark.parametrize("plate", SPELLINGS)
def test_an_epoch_averages_to_the_full_log_density(plate):
    batches = torch.randperm(N, generator=torch.Generator().manual_seed(1)).split(4)  # of 4, 4 and 2 rows
    assert [len(rows) for rows in batches] == [4, 4, 2]
    mean = sum(len(rows) / N * log_p(regression(plate), rows.tolist(), X, Y, w=W) for rows in batches)
    torch.testing.assert_close(mean, PRIOR + LIKELIHOOD.sum())


@pytest.mark.parametrize("plate", SPELLINGS)
def test_a_plate_hands_out_the_rows_that_the_batch_holds(plate):
    def model(x):
        with plate(x) as rows:
            pyro.sample("x", dist.Normal(Z[rows] if len(rows) == len(x) else Z, 1.0), obs=x)

    rows = [2, 5, 9]
    found = log_p(model, rows, X)
    if plate in (by_count, by_subsample_size):  # it says which rows of all N
        torch.testing.assert_close(found, N / 3 * dist.Normal(Z[rows], 1.0).log_prob(X[rows]).sum())
    else:  # the plate has the batch's rows, 0 to 2
        torch.testing.assert_close(found, N / 3 * dist.Normal(Z[:3], 1.0).log_prob(X[rows]).sum())


def test_local_latents_scale_with_the_data():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    rows = [1, 4]
    trace = traced(model, rows, {"z": Z[rows]}, X)
    expected = dist.Normal(0.0, 1.0).log_prob(Z[rows]) + dist.Normal(Z[rows], 1.0).log_prob(X[rows])
    torch.testing.assert_close(trace.log_prob_sum(), N / 2 * expected.sum())


@pytest.mark.parametrize("plate", SPELLINGS)
def test_the_guide_is_scaled_like_the_model(plate):
    def guide(x):
        with plate(x):
            pyro.sample("z", dist.Normal(x, 0.5))

    rows = [1, 4]
    found = log_p(guide, rows, X, z=Z[rows])
    torch.testing.assert_close(found, N / 2 * dist.Normal(X[rows], 0.5).log_prob(Z[rows]).sum())


def test_a_users_own_scale_multiplies():
    found = log_p(poutine.scale(regression(by_data), scale=0.25), [0, 1, 2], X, Y, w=W)
    torch.testing.assert_close(found, 0.25 * (PRIOR + N / 3 * LIKELIHOOD[:3].sum()))


def test_a_mask_leaves_the_scale_alone():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)), poutine.mask(mask=torch.tensor([True, False, True])):
            pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)

    found = log_p(model, [0, 1, 2], X, Y, w=W)
    torch.testing.assert_close(found, PRIOR + N / 3 * (LIKELIHOOD[0] + LIKELIHOOD[2]))


def test_a_sequential_plate_is_scaled_too():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"y_{i}", dist.Normal(w * x[i], 1.0), obs=y[i])

    found = log_p(model, [3, 4, 8], X, Y, w=W)
    torch.testing.assert_close(found, PRIOR + N / 3 * LIKELIHOOD[[3, 4, 8]].sum())


@pytest.mark.parametrize("plate", SPELLINGS[:3])
def test_a_plate_nested_in_the_batch_plate_is_scaled_once(plate):
    columns = torch.stack([X, Y], 1)  # (N, 2)

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("columns", 2), plate(x):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x.T)

    found = log_p(model, [0, 5], columns, w=W)
    torch.testing.assert_close(found, PRIOR + N / 2 * dist.Normal(W, 1.0).log_prob(columns[[0, 5]]).sum())


def test_a_subsampled_plate_of_the_users_own_stacks():
    """The batch plate by its rows, the columns by Pyro's own subsampling."""
    columns = torch.stack([X, Y], 1)

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with (
            pyro.plate("data", len(x), dim=-2),
            pyro.plate("columns", 2, subsample=torch.tensor([1]), dim=-1) as chosen,
        ):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x[:, chosen])

    found = log_p(model, [0, 5], columns, w=W)
    torch.testing.assert_close(found, PRIOR + 2 * N / 2 * dist.Normal(W, 1.0).log_prob(Y[[0, 5]]).sum())


def test_a_plate_of_another_size_is_refused():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 1):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x.sum())

    with pytest.raises(
        PlateError, match=r"site 'x': plate 'data' has size 1, but the minibatch has 2 rows; size it by"
    ):
        log_p(model, [0, 5], X, w=W)


def test_pyros_plate_is_itself_again_afterwards():
    original = pyro.poutine.subsample_messenger.SubsampleMessenger._subsample
    log_p(regression(by_count), [0, 1], X, Y, w=W)
    assert pyro.poutine.subsample_messenger.SubsampleMessenger._subsample is original
    with pyro.plate("data", N, subsample_size=3) as rows:
        assert len(rows) == 3


def test_pyros_own_subsampling_trains_and_is_evaluated_on_all_rows():
    def model(x, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            pyro.sample("y", dist.Normal(w * x[rows], 1.0), obs=y[rows])

    fit = vi.fit(model, data=(X, Y), steps=20)
    draws = fit.posterior.draws(3)
    w = draws.latents["w"]
    expected = dist.Normal(0.0, 1.0).log_prob(w) + dist.Normal(w[:, None] * X, 1.0).log_prob(Y).sum(-1)
    torch.testing.assert_close(draws.log_joint, expected)
    assert len({round(loss, 3) for loss in fit.losses}) == 20  # every step its own rows


@pytest.mark.parametrize("plate", [by_data, by_subsample_size])
def test_a_fit_finds_the_batch_plate_and_ends_at_the_full_posterior(plate):
    """Conjugate: precision 1 + sum x^2; with the batch plate unscaled the sd would be too wide by a third."""
    x, y = torch.linspace(-2, 2, N), torch.linspace(-1, 3, N)
    fit = vi.fit(regression(plate), data=(x, y), batch_size=5, steps=600)
    assert fit._trainer.program.batch_plate == BatchPlate("data", N)
    precision = 1 + (x**2).sum()
    draws = fit.sample(2_000)["w"]
    assert draws.mean().item() == pytest.approx(float((x * y).sum() / precision), abs=0.05)
    assert draws.std().item() == pytest.approx(float(precision**-0.5), rel=0.1)


def test_two_batch_like_plates_are_told_apart_by_what_changes():
    """Both have the batch's size, but only one follows the data."""

    def model(x):
        with pyro.plate("five", 5):
            w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w.sum(), 1.0), obs=x)

    fit = vi.fit(model, data=X, batch_size=5, steps=1)
    assert fit._trainer.program.batch_plate == BatchPlate("data", N)


def test_batch_plate_names_one_of_several():
    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("a", torch.tensor(0.0)), 1.0), obs=x)
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("same", len(x)):
            pyro.sample("w", dist.Normal(0.0, 1.0))
        return z

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))
        with pyro.plate("same", len(x)):
            pyro.sample("w", dist.Normal(loc, 1.0))

    with pytest.raises(PlateError, match=r"plates 'rows', 'same' all have the size .* batch_plate="):
        vi.fit(model, guide, data=X, batch_size=5, steps=1)
    with pytest.raises(PlateError, match=r"latent site 'w' changes with the minibatch but stands outside plate 'rows'"):
        vi.fit(model, guide, data=X, batch_size=5, steps=1, batch_plate="rows")
