"""Numbers that follow a schedule are those of their steps in every engine, and go on where a run goes on."""

import math
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch.utils.data import DataLoader, TensorDataset

import vipack as vi
from vipack.errors import UsageError
from vipack.objectives import BetaELBO
from vipack.schedules import Exponential, Function, Linear

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
COOLING = Exponential(2.0, 0.5, 20)


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = torch.nn.Linear(3, 4), torch.nn.Linear(2, 3)

    def model(self, x, temperature=1.0):
        pyro.module("decoder", self.decoder)
        with pyro.plate("rows", 60, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), temperature).to_event(1), obs=x)

    def guide(self, x, temperature=1.0):
        pyro.module("encoder", self.encoder)
        with pyro.plate("rows", 60, subsample_size=len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp() * temperature).to_event(1))


class Seen(Trace_ELBO):
    temperatures: ClassVar[list[float]] = []

    def loss_and_grads(self, model, guide, *args, **kwargs):
        self.temperatures.append(float(kwargs["temperature"]))
        return super().loss_and_grads(model, guide, *args, **kwargs)


def options(**others):
    start = {"data": X, "steps": 30, "batch_size": 20, "progress": False, "fixed": {"temperature": COOLING}}
    return {**start, "loss": BetaELBO(Linear(0.0, 1.0, 25)), **others}


def fitted(engine="eager", **others):
    pair = Encoder()
    return vi.fit(pair.model, pair.guide, engine=engine, **options(**others))


@pytest.fixture(scope="module")
def eager():
    return {batch_size: fitted(batch_size=batch_size) for batch_size in (None, 20, 25)}


@pytest.mark.parametrize("batch_size", [None, 20, 25])
@pytest.mark.parametrize("engine", ["traced", "interpreted"])
def test_losses_are_eagers_step_by_step(eager, engine, batch_size):
    fit = fitted(engine, batch_size=batch_size)
    assert fit.engine.tier == engine
    assert fit.losses == pytest.approx(eager[batch_size].losses, rel=2e-5)


def test_the_compiled_loop_is_given_the_number_of_every_step(eager):
    fit = fitted("compiled")
    assert fit.engine.steps["compiled"] >= 28
    assert fit.losses == pytest.approx(eager[20].losses, rel=2e-5)


@pytest.mark.parametrize("beta", [1.0, Linear(0.0, 1.0, 25)], ids=["constant", "scheduled"])
@pytest.mark.parametrize("engine", ["traced", "interpreted"])
def test_free_bits_follow_schedules_beside_the_weight(engine, beta):
    eager, fast = (fitted(e, loss=BetaELBO(beta, free_bits=Linear(0.4, 0.0, 20))) for e in ("eager", engine))
    assert fast.engine.tier == engine
    assert fast.losses == pytest.approx(eager.losses, rel=2e-5)
    assert fast.losses[:5] != pytest.approx(fitted(loss=BetaELBO(beta), steps=5).losses, rel=1e-3)


def test_eager_steps_have_the_schedules_numbers():
    fitted(loss=Seen())
    seen = Seen.temperatures
    assert seen[-30:] == pytest.approx([COOLING(step) for step in range(30)], rel=1e-6)


def test_a_loader_has_them_too(eager):
    def of(engine):
        return fitted(engine, data=DataLoader(TensorDataset(X), batch_size=20, shuffle=True), batch_size=None)

    assert of("traced").losses == pytest.approx(of("eager").losses, rel=2e-5)


def test_evaluations_have_the_number_of_the_last_step():
    fit = fitted(steps=10)
    assert float(fit.posterior.named_arguments()["temperature"]) == pytest.approx(COOLING(9))
    fit.resume(30)
    assert float(fit.posterior.named_arguments()["temperature"]) == 0.5


@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_a_run_in_two_parts_is_the_run_in_one(engine, tmp_path):
    whole, half = fitted(engine), fitted(engine, callbacks=vi.Every(13, lambda progress: progress.step == 13))
    assert half.steps == 13
    half.save(tmp_path / "half.pt")
    pair = Encoder()
    loaded = vi.load(tmp_path / "half.pt", pair.model, pair.guide, loss=BetaELBO(Linear(0.0, 1.0, 25)))
    loaded.resume()
    half.resume()
    assert half.losses == pytest.approx(whole.losses, rel=0, abs=0)
    assert loaded.losses == pytest.approx(whole.losses, rel=1e-6)
    for name, value in half.params.items():
        torch.testing.assert_close(value, whole.params[name], rtol=0, atol=0)


def test_a_checkpoint_goes_on_at_the_right_step(tmp_path):
    whole = fitted(checkpoint=vi.Checkpoint(tmp_path / "whole.pt"))
    file = vi.Checkpoint(tmp_path / "run.pt", every_steps=10)
    with pytest.raises(RuntimeError, match="power"):
        fitted(checkpoint=file, callbacks=vi.Every(20, cut_off))
    again = fitted(checkpoint=file)
    assert again.losses.tolist() == whole.losses.tolist()


def cut_off(progress):
    raise RuntimeError("power")


def test_several_starts_share_the_schedule(eager):
    fit = fitted("traced", restarts=2)
    assert len(fit.restarts) == 2
    assert fit.engine.tier == "traced"
    assert fit.steps == 30
    assert float(fit.posterior.named_arguments()["temperature"]) == 0.5


def test_any_function_of_the_step_may_be_a_weight():
    for engine in ("eager", "traced"):
        fit = fitted(engine, loss=BetaELBO(lambda step: min(1.0, step / 10)), fixed={})
        assert fit.engine.tier == engine


@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_a_schedule_need_not_reach_beyond_the_run(engine):
    weights = [step / 30 for step in range(30)]
    assert fitted(engine, loss=BetaELBO(lambda step: weights[step])).steps == 30
    with pytest.raises(UsageError, match=r"beta.*IndexError at step 30"):
        fitted(engine, loss=BetaELBO(lambda step: weights[step]), steps=31)


@pytest.mark.parametrize("engine", ["eager", "traced"])
@pytest.mark.parametrize("bad", [math.nan, -1.0, math.inf, "much", None])
def test_what_is_no_weight_is_refused_with_its_step(engine, bad):
    with pytest.raises(UsageError, match=r"beta.*at step 7"):
        fitted(engine, loss=BetaELBO(lambda step: bad if step == 7 else 1.0))


def test_a_function_in_fixed_is_wrapped_and_its_errors_named():
    fit = fitted("traced", fixed={"temperature": Function(lambda step: 1.0 + 1 / (1 + step))})
    assert fit.engine.tier == "traced"
    with pytest.raises(UsageError, match=r"fixed\['temperature'\].*nan.*step 3"):
        fitted(fixed={"temperature": Function(lambda step: math.nan if step == 3 else 1.0)})


def test_observations_held_out_see_the_number_of_the_step():
    def of(temperature):
        held_out = {
            "validation": X[:30] + 1.0,
            "steps": 100,
            "batch_size": None,
            "optim": pyro.optim.Adam({"lr": 1e-12}),
        }
        return fitted(fixed={"temperature": temperature}, **held_out).history["elbo"].iloc[-1]

    def late(step):
        return 2.0 if step == 99 else 1.0

    assert of(Function(late)) == pytest.approx(of(2.0), rel=1e-4)


def test_a_fit_without_a_guide_takes_none():
    with pytest.raises(UsageError, match=r"fixed\['temperature'\].*pass a guide"):
        vi.fit(Encoder().model, data=X, fixed={"temperature": COOLING})


def test_calibration_takes_none():
    pair = Encoder()
    with pytest.raises(UsageError, match=r"calibration takes no schedule"):
        vi.vsbc(pair.model, pair.guide, data=X, fixed={"temperature": COOLING})
