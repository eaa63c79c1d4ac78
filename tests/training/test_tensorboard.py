"""What TensorBoard is told of a run, by a writer that keeps it, and by the event files where the package is installed."""

import importlib.util
import sys
from collections import defaultdict

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.errors import MissingExtraError, SignatureError, UsageError

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.flushed = 0

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.curves[tag].append((step, value))

    def flush(self) -> None:
        self.flushed += 1


def decaying(params):
    optimizer = torch.optim.Adam(params, lr=0.01)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=100, gamma=0.5)


def fitted(steps, callback, engine="traced", optim=None):
    torch.manual_seed(0)
    vae = vi.vae.VAE(likelihood=vi.vae.likelihoods.Gaussian(4), num_latents=2).initialize(X)
    run = {"data": X, "batch_size": 10, "steps": steps, "validation": 0.25, "engine": engine, "callbacks": callback}
    return vi.fit(vae.model, vae.guide, optim=optim, **run)


@pytest.mark.parametrize("engine", ["eager", "traced", "interpreted"])
def test_every_loss_evaluation_rate_and_divergence_is_written(engine):
    writer = Kept()
    fit = fitted(400, vi.Every(100, vi.TensorBoard(writer=writer, every=200)), engine, decaying)
    steps, losses = zip(*writer.curves["loss"], strict=True)
    assert steps == tuple(range(1, 401))
    np.testing.assert_array_equal(losses, fit.losses)
    history = fit.history.set_index("step")["elbo"]
    assert writer.curves["validation/elbo"]
    for step, value in writer.curves["validation/elbo"]:
        assert value == history[history.index <= step].iloc[-1]
    rates = dict(writer.curves["learning_rate"])
    assert [rates[step] for step in (100, 200, 300, 400)] == pytest.approx([0.005, 0.0025, 0.00125, 0.000625])
    for dimension in (0, 1):
        values = writer.curves[f"divergence/z/{dimension}"]
        assert [step for step, _ in values] == [200, 400]
        assert all(value >= 0 for _, value in values)
    assert writer.flushed == 4


def test_a_run_goes_on_as_if_nobody_wrote():
    alone, written = fitted(150, ()), fitted(150, vi.TensorBoard(writer=Kept(), every=50))
    np.testing.assert_array_equal(alone.losses, written.losses)


def test_a_plain_callback_has_all_steps_in_the_end_and_a_resumed_run_goes_on():
    writer = Kept()
    fit = fitted(120, vi.TensorBoard(writer=writer))
    assert [step for step, _ in writer.curves["loss"]] == list(range(1, 121))
    fit.resume(steps=30)
    assert [step for step, _ in writer.curves["loss"]] == list(range(1, 151))


def test_models_without_latents_of_observations_have_no_divergences():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    writer = Kept()
    vi.fit(model, AutoNormal, data=X[:, 0], steps=60, callbacks=vi.Every(20, vi.TensorBoard(writer=writer, every=20)))
    assert set(writer.curves) == {"loss", "learning_rate"}


def test_a_missing_package_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vipack\[tensorboard\]'"):
        vi.TensorBoard(tmp_path)


@pytest.mark.parametrize("every", [-1, 1.5, True, "x"])
def test_bad_periods(every):
    with pytest.raises(UsageError, match="TensorBoard: every must be a whole number of at least 0"):
        vi.TensorBoard(writer=Kept(), every=every)
    with pytest.raises(SignatureError, match="TensorBoard takes no argument 'logdir'"):
        vi.TensorBoard(logdir="runs")


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="the extra tensorboard is not installed")
def test_event_files_say_the_same(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit = fitted(60, vi.Every(20, vi.TensorBoard(tmp_path, every=20)))
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    assert {"loss", "divergence/z/0", "divergence/z/1"} <= set(events.Tags()["scalars"])
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in losses] == list(range(1, 61))
    np.testing.assert_allclose([value for _, value in losses], fit.losses, rtol=1e-6)
