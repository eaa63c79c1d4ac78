"""Files of fits whose optimizer is not the one at hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

import vipack as vi
from vipack.errors import CheckpointError, OptimizerError

Y = torch.linspace(-1.0, 2.0, 20)


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def pyro_adam():
    return pyro.optim.Adam({"lr": 0.01})


def torch_adam(params):
    return torch.optim.Adam(params, lr=0.01)


def torch_sgd(params):
    return torch.optim.SGD([{"params": [p]} for p in params], lr=1e-4)


MAKERS = {"default": lambda: None, "pyro": pyro_adam, "torch": lambda: torch_adam, "groups": lambda: torch_sgd}


@pytest.mark.parametrize(("fitted", "at_hand"), [(a, b) for a in MAKERS for b in MAKERS if a != b])
def test_another_optimizer_answers_but_does_not_train_further(fitted, at_hand, tmp_path):
    fit = vi.fit(model, AutoNormal, data=Y, steps=20, optim=MAKERS[fitted](), engine="eager")
    fit.save(tmp_path / "fit.pt")
    loaded = vi.load(tmp_path / "fit.pt", model, AutoNormal, optim=MAKERS[at_hand]())
    torch.testing.assert_close(loaded.sample(5)["mu"], fit.sample(5)["mu"])
    if fitted == "torch" and at_hand == "groups":
        return  # whose state may be taken for the other's
    with pytest.raises(
        OptimizerError, match=r"was trained with the optimizer .*, pass the former as optim= to vipack\.load"
    ):
        loaded.resume(5)
    loaded.save(tmp_path / "again.pt")  # nothing is lost
    again = vi.load(tmp_path / "again.pt", model, AutoNormal, optim=MAKERS[fitted]()).resume(5)
    fit.resume(5)
    assert again.losses.tolist() == fit.losses.tolist()


def test_a_damaged_state_is_still_told(tmp_path):
    fit = vi.fit(model, AutoNormal, data=Y, steps=5, engine="eager")
    fit.save(tmp_path / "fit.pt")
    content = torch.load(tmp_path / "fit.pt", weights_only=True)
    del content["optimizer"]["scheduler"]
    torch.save(content, tmp_path / "fit.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        vi.load(tmp_path / "fit.pt", model, AutoNormal)
