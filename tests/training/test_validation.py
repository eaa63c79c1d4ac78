"""Observations held out: their ELBO along the run, and stopping by it."""

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import vipack as vi
from vipack.errors import DataError, GuideError, UsageError
from vipack.training.validation import ValidationPoint
from vipack.types import StopReason

NUM_PIXELS = 4
TRUE = torch.randn(NUM_PIXELS, 2, generator=torch.Generator().manual_seed(0))


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z, noise = torch.randn(count, 2, generator=generator), torch.randn(count, NUM_PIXELS, generator=generator)
    return z @ TRUE.T + 0.3 * noise


class Pair(nn.Module):
    """A VAE whose encoder keeps running statistics, so that a state is more than parameters."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Sequential(
            nn.Linear(NUM_PIXELS, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 4)
        )
        self.decoder = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, NUM_PIXELS))

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.3).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def adam(rate: float = 0.01):
    return pyro.optim.Adam({"lr": rate})


def fit(**options):
    pair = Pair()
    given = {"data": images(300, 2), "batch_size": 50, "steps": 600, "engine": "traced", "optim": adam()}
    return vi.fit(pair.model, pair.guide, **{**given, **options})


@pytest.fixture(scope="module")
def held_out() -> Tensor:
    return images(400, 3)


@pytest.fixture(scope="module")
def validated(held_out) -> vi.Fit:
    return fit(validation=held_out)


def test_evaluations_are_the_elbo_of_observations_held_out(validated, held_out):
    history = validated.history
    assert list(history["step"]) == list(range(102, 601, 102))  # whole epochs of six steps
    assert (history["epoch"] == history["step"] / 6).all()
    assert history["elbo"].iloc[-1] > history["elbo"].iloc[0] + 0.5
    more = validated.resume(12).elbo(500, data=held_out).per_row  # step 612, an evaluation's
    last = validated.history.iloc[-1]
    assert last["step"] == 612
    assert last["elbo"] == pytest.approx(more.value, abs=0.15)
    assert last["elbo_se"] == pytest.approx(more.se, rel=0.3)


def test_validation_does_not_change_the_run(validated):
    with_them, without = fit(steps=300, validation=images(20, 5)), fit(steps=300)
    np.testing.assert_array_equal(with_them.losses, without.losses)


def test_a_share_is_held_out_and_not_trained_on():
    data = pd.DataFrame(images(300, 2).numpy(), index=[f"cell {i}" for i in range(300)])
    one, two = fit(data=data, validation=0.1, steps=100), fit(data=data, validation=0.1, steps=100)
    assert one.num_observations == 270
    assert one.data_fingerprint == two.data_fingerprint
    assert one.data_fingerprint != fit(data=data, validation=0.1, steps=0, seed=1).data_fingerprint
    rows, held = one._trainer.rows, one._trainer.plan.validation
    assert sorted([*rows.axes[0][0].labels, *held.axes[0][0].labels]) == sorted(data.index)
    index = list(data.index).index(held.axes[0][0].labels[3])
    torch.testing.assert_close(held.full().args[0][3], torch.tensor(data.to_numpy()[index]).float())


@pytest.mark.parametrize("form", ["tuple", "dict", "dataset", "loader"])
def test_every_form_of_data(form, held_out):
    x = images(300, 2)
    forms = {"tuple": ((x,), (held_out,)), "dict": ({"x": x}, {"x": held_out}), "dataset": (TensorDataset(x), 0.2)}
    forms["loader"] = (DataLoader(TensorDataset(x), batch_size=50), TensorDataset(held_out))
    data, validation = forms[form]
    result = fit(data=data, validation=validation, batch_size=None if form == "loader" else 50, steps=120)
    assert np.isfinite(result.history["elbo"]).all()
    assert result.num_observations == (240 if form == "dataset" else 300)


def overfitted(**options):
    return fit(data=images(30, 2), batch_size=None, steps=3_000, validation=images(200, 3), optim=adam(0.02), **options)


@pytest.fixture(scope="module")
def stopped() -> vi.Fit:
    return overfitted(stop=vi.EarlyStopping(patience=4))


def test_early_stopping_ends_with_the_best_state_buffers_and_all(stopped):
    assert stopped.stopped.reason is StopReason.EARLY
    assert "for 4 evaluations" in str(stopped.stopped)
    history = stopped.history
    best = int(history.loc[history["elbo"].idxmax(), "step"])
    assert stopped.steps == best + 400
    np.testing.assert_allclose(stopped._trainer._validation[0]().value, history["elbo"].max(), rtol=1e-6)
    again = fit(data=images(30, 2), batch_size=None, steps=best, validation=images(200, 3), optim=adam(0.02))
    for name, value in again._trainer.program.parameters.buffers().items():
        torch.testing.assert_close(stopped._trainer.program.parameters.buffers()[name], value)
    for name, value in again.params.items():
        torch.testing.assert_close(stopped.params[name], value)


def test_without_restore_best_the_last_state_stays():
    last = overfitted(stop=vi.EarlyStopping(patience=4, restore_best=False))
    value = last._trainer._validation[0]().value
    assert value == pytest.approx(last.history["elbo"].iloc[-1])
    assert value < last.history["elbo"].max()


def test_a_run_that_is_cut_goes_on_as_if_it_had_not_been(tmp_path, stopped):
    def cut(progress):
        return progress.step == 250

    path = tmp_path / "run.pt"
    part = overfitted(stop=vi.EarlyStopping(patience=4), callbacks=vi.Every(50, cut))
    assert part.stopped.reason is StopReason.CALLBACK
    part.save(path)
    pair = Pair()
    loaded = vi.load(path, pair.model, pair.guide, optim=adam(0.02))
    assert loaded.history.equals(part.history)
    loaded._trainer.state.stopped = None
    loaded.resume()
    assert loaded.steps == stopped.steps
    for name, value in stopped.params.items():
        torch.testing.assert_close(loaded.params[name], value)


def test_a_finished_run_taken_up_from_its_checkpoint_has_its_best_state(tmp_path):
    options = {"stop": vi.EarlyStopping(patience=2), "checkpoint": tmp_path / "run.pt"}
    first, again = overfitted(**options), overfitted(**options)
    assert again.steps == first.steps
    for name, value in first.params.items():
        torch.testing.assert_close(again.params[name], value, rtol=0, atol=0)


def test_patience_counts_evaluations_without_a_rise():
    rule = vi.EarlyStopping(patience=2, min_delta=0.5)

    def points(*values):
        return [ValidationPoint(100 * i, i, 0.0, value, 0.1) for i, value in enumerate(values)]

    assert rule.ask(points(-3.0, -2.0)) is None
    assert rule.ask(points(-3.0, -2.0, -1.6)) is None
    assert rule.ask(points(-3.0, -2.0, -1.6, -1.55)) is not None
    assert rule.ask(points(-3.0, -2.0, -1.6, -1.4)) is None
    assert rule.ask([]) is None


def test_callbacks_see_the_latest_evaluation(held_out):
    seen = []
    result = fit(steps=210, validation=held_out, callbacks=vi.Every(35, lambda p: seen.append(p.validation)))
    assert seen[:2] == [None, None]
    assert [estimate.value for estimate in seen[2:5]] == [result.history["elbo"].iloc[0]] * 3


def test_shared_latents_are_given():
    """Their own divergence belongs to no observation."""
    x = torch.randn(100, generator=torch.Generator().manual_seed(0)) + 2.0

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    result = vi.fit(model, AutoNormal, data=x, validation=0.2, steps=600, engine="eager")
    draws = result.sample(4_000)["mean"]
    held = result._trainer.plan.validation.full().args[0]
    expected = dist.Normal(draws[:, None], 1.0).log_prob(held).mean()
    assert result.history["elbo"].iloc[-1] == pytest.approx(float(expected), abs=0.05)


def test_discrete_latents_that_are_summed_out():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.zeros(2))[k], 1.0), obs=x)

    def guide(x):
        pass

    x = torch.linspace(-2, 2, 50)
    result = vi.fit(model, guide, data=x, validation=x[::5], loss=TraceEnum_ELBO(max_plate_nesting=1), steps=100)
    loc = result.params["loc"]
    mixture = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(loc, 1.0))
    assert result.history["elbo"].iloc[-1] == pytest.approx(float(mixture.log_prob(x[::5]).mean()), abs=1e-4)


def local(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation": 1.5}, UsageError, "between 0 and 1"),
        ({"validation": 0.999}, UsageError, "no row would be left"),
        ({"validation": True}, UsageError | DataError, "validation|data"),
        ({"validation": torch.zeros(0)}, DataError, "validation: .*empty"),
        ({"validation": 0.5, "restarts": 2}, UsageError, "restarts=2"),
        ({"stop": vi.EarlyStopping()}, UsageError, r"validation=0\.1"),
        ({"validation": 0.5}, GuideError, "amortised"),
    ],
)
def test_what_cannot_be_validated_is_told(options, error, message):
    kinds = error.__args__ if hasattr(error, "__args__") else error
    with pytest.raises(kinds, match=message):
        vi.fit(local, AutoNormal, data=torch.zeros(10), steps=10, **options)
    with pytest.raises(UsageError, match="patience"):
        vi.EarlyStopping(patience=0)


def test_the_plot_shows_what_was_held_out(validated):
    ax = vi.plots.losses(validated)
    (line,) = [line for line in ax.lines if line.get_label() == "held out"]
    np.testing.assert_allclose(line.get_ydata(), -300 * validated.history["elbo"])


def test_history_without_validation():
    history = fit(steps=250).history
    assert history["step"].iloc[-1] == 250
    assert len(history) <= 100
    weights = np.diff([0, *history["step"]])
    assert float((history["loss"] * weights).sum() / 250) == pytest.approx(fit(steps=250).losses.mean())
    assert fit(steps=0).history.empty
