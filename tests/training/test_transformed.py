"""Transforms of a batch: drawn anew at every step, the same for guide and model, in every engine; one draw for all else."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import vipack as vi
from vipack.errors import CheckpointError, DataError, UsageError
from vipack.transforms import Binarize, Noise, ToFloat

GREY = 0.05 + 0.9 * torch.rand(90, 6, generator=torch.Generator().manual_seed(0))


class Pair(nn.Module):
    """A VAE of binary pixels, which may keep what guide and model are called with."""

    def __init__(self, *, keeps: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)
        self.keeps = keeps
        self.seen: list[tuple[str, Tensor]] = []

    def model(self, x: Tensor, label: Tensor | None = None) -> None:
        if self.keeps:
            self.seen.append(("model", x))
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            shift = 0.0 if label is None else label[:, None]
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z) + shift).to_event(1), obs=x)

    def guide(self, x: Tensor, label: Tensor | None = None) -> None:
        if self.keeps:
            self.seen.append(("guide", x))
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def fit(**options):
    pair = Pair(keeps=options.get("engine", "eager") == "eager")
    given = {"data": GREY, "transform": {"x": Binarize()}, "batch_size": 30, "steps": 40, "engine": "eager"}
    given["optim"] = pyro.optim.Adam({"lr": 0.01})
    return vi.fit(pair.model, pair.guide, **{**given, **options}), pair


@pytest.fixture(scope="module")
def eager():
    return fit()


def test_guide_and_model_see_one_draw_which_is_new_at_every_step():
    result, pair = fit(steps=0, batch_size=None)
    pair.seen.clear()
    result.resume(300)
    guides, models = ([x for who, x in pair.seen if who == name][:300] for name in ("guide", "model"))
    assert all(torch.equal(one, two) for one, two in zip(guides, models, strict=True))
    draws = torch.stack(guides)
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(draws[0], draws[1])
    z = (draws.mean(0) - GREY) / (GREY * (1 - GREY) / 300).sqrt()
    assert z.abs().max() < 4.5
    assert 0.85 < z.std() < 1.15


@pytest.mark.parametrize("engine", ["traced", "interpreted", pytest.param("compiled", marks=pytest.mark.slow)])
def test_all_engines_see_the_same_draws(engine, eager):
    result, _ = fit(engine=engine)
    assert result.engine.tier == engine
    np.testing.assert_allclose(result.losses, eager[0].losses, rtol=2e-5)


def test_whatever_else_looks_at_the_data_sees_one_draw_of_them(eager):
    result, pair = eager
    pair.seen.clear()
    posterior = result.posterior
    x = posterior.observed["x"]
    assert set(x.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(fit(steps=0)[0].posterior.observed["x"], x)
    assert not torch.equal(fit(steps=0, seed=1)[0].posterior.observed["x"], x)
    assert all(set(seen.unique().tolist()) <= {0.0, 1.0} for _, seen in pair.seen)
    few = result.posterior_of(most=9).observed["x"]
    torch.testing.assert_close(few, x[torch.linspace(0, 89, 9).round().long()])


def test_new_data_and_data_held_out_are_transformed_too(eager):
    result, _ = eager
    new = torch.rand(20, 6)
    assert np.isfinite(result.log_evidence(10, data=new).rows).all()
    assert set(result.posterior_of(new).observed["x"].unique().tolist()) == {0.0, 1.0}
    validated, _ = fit(validation=0.2, steps=200)
    assert np.isfinite(validated.history["elbo"]).all()
    assert validated.num_observations == 72


@pytest.mark.parametrize("form", ["dataset", "loader", "dict", "bytes", "a tuple with labels"])
def test_forms_of_data(form):
    labels = torch.arange(90) % 3
    forms = {
        "dataset": {"data": TensorDataset(GREY)},
        "loader": {"data": DataLoader(TensorDataset(GREY), batch_size=30, shuffle=True), "batch_size": None},
        "dict": {"data": {"x": GREY}},
        "bytes": {"data": (255 * GREY).to(torch.uint8), "transform": {"x": (ToFloat(1 / 255), Binarize())}},
        "a tuple with labels": {"data": (GREY, labels)},
    }
    result, pair = fit(**forms[form])
    assert np.isfinite(result.losses).all()
    assert all(x.is_floating_point() and set(x.unique().tolist()) <= {0.0, 1.0} for _, x in pair.seen)


def test_a_run_that_is_cut_goes_on_with_the_same_draws(tmp_path, eager):
    part, _ = fit(steps=15)
    part.save(tmp_path / "half.pt")
    pair = Pair()
    loaded = vi.load(tmp_path / "half.pt", pair.model, pair.guide, optim=pyro.optim.Adam({"lr": 0.01}))
    torch.testing.assert_close(loaded.posterior.observed["x"], eager[0].posterior.observed["x"])
    loaded.resume(25)
    np.testing.assert_allclose(loaded.losses, eager[0].losses, rtol=1e-6)


def test_functions_of_ones_own(tmp_path):
    result, pair = fit(transform={"x": (Binarize(), lambda x: 1 - x)})
    pair.seen.clear()
    result.resume(3)
    assert set(torch.stack([x for _, x in pair.seen]).unique().tolist()) == {0.0, 1.0}
    result.save(tmp_path / "own.pt")
    with pytest.raises(CheckpointError, match="pass transform="):
        vi.load(tmp_path / "own.pt", pair.model, pair.guide)
    transform, adam = {"x": (Binarize(), lambda x: 1 - x)}, pyro.optim.Adam({"lr": 0.01})
    again = vi.load(tmp_path / "own.pt", pair.model, pair.guide, transform=transform, optim=adam)
    torch.testing.assert_close(again.posterior.observed["x"], result.posterior.observed["x"])


def test_noise_has_its_scale():
    def model(y):
        loc = pyro.sample("loc", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(loc, pyro.param("scale", torch.tensor(1.0))), obs=y)

    def guide(y):
        pyro.sample("loc", dist.Normal(pyro.param("a", torch.zeros(())), 0.1))

    result = vi.fit(model, guide, data=torch.zeros(400), transform={"y": Noise(2.0)}, steps=1_500, engine="traced")
    assert float(result.params["scale"]) == pytest.approx(2.0, rel=0.06)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"transform": Binarize()}, UsageError, "expected a dict"),
        ({"transform": {"x": Binarize}}, UsageError, "found <class"),
        ({"transform": {"pixels": Binarize()}}, UsageError, "'pixels' is not among.* x"),
        ({"data": 255 * GREY}, DataError, "found .*divide by 255"),
        ({"data": GREY.masked_fill(GREY > 0.9, torch.nan)}, DataError, r"found nan at \[.*missing"),
        ({"data": (255 * GREY).to(torch.uint8)}, DataError, "found torch.uint8.*ToFloat"),
        ({"transform": {"x": lambda x: x[:2]}}, UsageError, "as many observations"),
        ({"transform": {"x": lambda x: x @ x}}, UsageError, "raised RuntimeError"),
    ],
)
def test_what_cannot_be_transformed_is_told(options, error, message):
    with pytest.raises(error, match=message):
        fit(**options)
    pair = Pair()
    given = {"data": GREY, "transform": {"x": Binarize()}, **options}
    assert isinstance(vi.check(pair.model, pair.guide, **given).errors[0], error)
    with pytest.raises(UsageError, match="scale"):
        Noise(-1.0)
