"""log p(x) of observations over twenty seeds: what the estimates lack, and how often their intervals cover."""

import numpy as np
import pytest

from tests.posterior.linear_vae import exact, observations, trained

SEEDS = 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "most"), [(4_000, {"sampled": 0.015, "annealed": 0.015}), (150, {"annealed": 0.015})]
)
def test_intervals_cover(steps, most):
    fit = trained(steps)
    lacks = {"sampled": [], "annealed": []}
    covered = dict.fromkeys(lacks, 0)
    for seed in range(SEEDS):
        new = observations(200, 100 + seed)
        truth = float(exact(new).mean())
        answers = {
            "sampled": fit.log_evidence(5_000, data=new, seed=seed),
            "annealed": fit.annealed_evidence(data=new, seed=seed),
        }
        for name, answer in answers.items():
            lacks[name].append(truth - answer.rows.mean())
            covered[name] += answer.interval[0] <= truth <= answer.interval[1]
    assert min(covered.values()) >= 19
    for name, limit in most.items():
        assert -0.004 < np.mean(lacks[name]) < limit
