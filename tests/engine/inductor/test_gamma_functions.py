"""digamma in compiled loops, which Inductor's code takes number by number."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO

import vipack as vi
from vipack.engine.inductor.gamma_functions import at_once

COUNTS = torch.poisson(torch.rand(60, 50, generator=torch.Generator().manual_seed(0)) * 30)


def test_calls_on_vectors_are_written_anew_and_those_on_numbers_left():
    source = "auto tmp4 = tmp3.digamma();\nauto tmp5 = calc_digamma(tmp2);\nauto tmp6 = digamma_of_lanes(tmp3);"
    assert at_once(source) == source.replace("tmp3.digamma()", "digamma_of_lanes(tmp3)")


def test_a_compiled_negative_binomial_trains_as_in_pyro():
    """The gradient of its concentrations is digamma of each count."""

    def model(x):
        concentration = pyro.param("concentration", torch.full((50,), 2.0), constraint=dist.constraints.positive)
        logits = pyro.param("logits", torch.ones(50))
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.NegativeBinomial(concentration, logits=logits).to_event(1), obs=x)

    def trained(engine):
        pyro.clear_param_store()
        svi = vi.SVI(model, lambda x: None, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(), engine=engine)
        svi.run(40, COUNTS)
        assert svi.engine.tier == engine
        return pyro.param("concentration").detach().clone()

    assert torch.allclose(trained("compiled"), trained("eager"), rtol=1e-4)
