"""Built programs reach the interpreted tier, with every prior and posterior, and its losses are eager's."""

import pytest

import vipack as vi
from tests.vae.table import POSTERIORS, PRIORS, data_of, small_vae

PAIRS = [(prior, "DiagonalNormal") for prior in PRIORS] + [("StandardNormal", posterior) for posterior in POSTERIORS]
PAIRS += [("MixturePrior", "FullNormal"), ("VampPrior", "CouplingFlow")]


@pytest.mark.parametrize(("prior", "posterior"), list(dict.fromkeys(PAIRS)))
def test_losses_of_interpreted_steps_are_eagers(prior, posterior):
    def fitted(engine):
        vae = small_vae(prior=prior, posterior=posterior)
        return vi.fit(
            vae.model, vae.guide, data=data_of("Bernoulli"), batch_size=20, steps=12, engine=engine, progress=False
        )

    fast = fitted("interpreted")
    assert fast.engine.tier == "interpreted", fast.engine.reason
    assert fast.losses == pytest.approx(fitted("eager").losses, rel=1e-4)
