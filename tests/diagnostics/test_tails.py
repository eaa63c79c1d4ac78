"""Tails and the evidence are certified where they were shown to be right, and named where they are not."""

import dataclasses
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

import vipack as vi
from vipack.diagnostics import Verdict
from vipack.diagnostics.moments import columns_of
from vipack.diagnostics.tails import Tails, doubt_of_evidence, doubt_of_tails, tails_by_chains, tails_by_weights
from vipack.types import Judged


def columns(values):
    return columns_of({"z": torch.as_tensor(values)})


def test_weights_give_the_shares_of_both_tails():
    """Draws of Normal(0, 1) for Normal(0.2, 1), whose density is exp(0.2 z - 0.02) times theirs."""
    z = np.random.default_rng(0).normal(size=40_000)
    weights = np.exp(0.2 * z)
    found = tails_by_weights(columns(z), weights / weights.sum())
    below, above = (float(at) for at in found.at[0])
    assert found.estimate[0] == pytest.approx([stats.norm.cdf(below, 0.2), stats.norm.sf(above, 0.2)], abs=0.006)
    assert found.drawn[0] == pytest.approx([stats.norm.cdf(below), stats.norm.sf(above)], abs=0.005)
    assert found.off in (
        f"the lower tail of z is too heavy: P(z < {below:.3g}) is {found.drawn[0, 0]:.3f} in the draws, "
        f"{found.estimate[0, 0]:.3f} by the weights",
        f"the upper tail of z is too thin: P(z > {above:.3g}) is {found.drawn[0, 1]:.3f} in the draws, "
        f"{found.estimate[0, 1]:.3f} by the weights",
    )
    assert found.unsure()


def ar(start, correlation, num_states, rng):
    """Chains that leave Normal(0, 1) as it is, ``(T, N, 1)``."""
    states = [start]
    for _ in range(num_states - 1):
        noise = rng.normal(size=start.shape)
        states.append(correlation * states[-1] + math.sqrt(1 - correlation**2) * noise)
    return np.stack(states)[:, :, None]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_standard_errors_of_chains_cover_the_share_of_a_tail(correlation):
    """Forty times, from draws that are right: the estimate is within its standard errors as often as it says."""
    z = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        drawn = rng.normal(size=4_000)
        states = ar(drawn[:800], correlation, 12, rng)
        found = tails_by_chains(columns(drawn), np.full(4_000, 1 / 4_000), states, 6)
        truth = np.array([stats.norm.cdf(found.at[0, 0]), stats.norm.sf(found.at[0, 1])])
        z.append((found.estimate[0] - truth) / found.se[0])
    assert np.mean(np.abs(np.array(z)) < 2) > 0.85
    assert np.mean(found.se) < 0.02


def test_chains_on_their_way_say_where_they_are_going():
    """The draws' sd is 0.7, so that their 5% quantile has 12.5% below it; chains that forget 3% a step have not arrived."""
    rng = np.random.default_rng(0)
    drawn = 0.7 * rng.normal(size=8_000)
    states = ar(drawn[:4_000], 0.97, 12, rng)
    found = tails_by_chains(columns(drawn), np.full(8_000, 1 / 8_000), states, 6)
    late = float((states[6:] <= -0.7 * 1.645).mean())
    truth = stats.norm.cdf(-0.7 * 1.645)
    assert abs(found.estimate[0, 0] - truth) < 0.6 * abs(late - truth)
    assert "too thin" in found.off


def test_chains_that_hardly_come_and_go_certify_nothing():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=4_000)
    still = np.repeat(drawn[None, :800, None], 12, axis=0)
    found = tails_by_chains(columns(drawn), np.full(4_000, 1 / 4_000), still, 6)
    assert np.isinf(found.se).all()
    assert not found.off
    assert found.unsure()
    assert doubt_of_evidence(0.001, found)


def made_of(drawn, estimate, se):
    shape = [[0.0, 1.0]]
    return Tails(("tau",), np.array(shape), np.array([drawn]), np.array([estimate]), np.array([se]), "short chains")


RIGHT = made_of([0.05, 0.05], [0.052, 0.049], [0.004, 0.004])
THIN = made_of([0.05, 0.05], [0.11, 0.05], [0.005, 0.005])
NOISY = made_of([0.05, 0.05], [0.05, 0.05], [0.004, 0.009])
LEAKING = made_of([0.005, 0.05], [0.022, 0.05], [0.004, 0.004])


def test_a_tail_is_certified_by_a_test_of_equivalence():
    assert doubt_of_tails(None, RIGHT) == ""
    assert doubt_of_tails(None, None) == "not checked"
    assert doubt_of_tails(RIGHT, None) == "not checked"  # weights see nothing where no draw is
    assert doubt_of_tails(None, NOISY) == "short chains do not show the upper tail of tau closely enough"
    assert doubt_of_tails(RIGHT, NOISY) == ""  # where weights vouch, chains only have to rule out that mass flows in
    said = "the lower tail of tau is too thin: P(tau < 0) is 0.050 in the draws, 0.110 by short chains"
    assert doubt_of_tails(RIGHT, THIN) == doubt_of_tails(THIN, RIGHT) == said


def test_evidence_is_certified_where_weights_are_even_and_no_mass_flows_in():
    assert doubt_of_evidence(0.01, RIGHT) == ""
    assert doubt_of_evidence(0.03, RIGHT) == "its standard error is 0.03 nats"
    assert doubt_of_evidence(math.nan, RIGHT)
    assert doubt_of_evidence(0.01, None) == "not checked"
    assert "miss mass" in doubt_of_evidence(0.01, THIN)
    assert doubt_of_evidence(0.01, LEAKING) == "mass flows in where P(tau < 0)"


# --- whole diagnoses


def of(distribution):
    """A model with this posterior of z."""

    def model():
        z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
        pyro.factor("density", distribution.log_prob(z))

    return model


heavy = of(dist.StudentT(5.0, 0.0, 1.0))


def exact():
    pyro.sample("z", dist.StudentT(5.0, 0.0, 1.0))


def normal(loc, scale):
    def guide():
        pyro.sample("z", dist.Normal(loc, scale))

    return guide


class Cut(dist.Normal):
    """Normal(0, 1) without its upper tenth."""

    def __init__(self):
        super().__init__(0.0, 1.0, validate_args=False)

    def rsample(self, sample_shape=()):
        return torch.special.ndtri(0.9 * torch.rand(sample_shape))

    def log_prob(self, value):
        return super().log_prob(value) - math.log(0.9)


def cut():
    pyro.sample("z", Cut())


def diagnosis_of(guide, model=heavy, data=()):
    return vi.fit(model, guide, data=data, steps=0).diagnose()


def test_an_exact_guide_is_certified_as_a_whole():
    found = diagnosis_of(exact)
    assert found.certified == ("means", "sds", "tails", "evidence")
    assert str(found).startswith(
        "TRUST: means, sds and tails of the guide's own draws, and the evidence, are certified; "
    )
    assert found.evidence.value == pytest.approx(0.0, abs=0.05)
    assert [each.witness for each in found.tails] == ["the weights", "short chains"]
    assert max(each.worst for each in found.tails) < 0.02
    assert list(found.tails[1].to_frame().index) == [("z", "lower"), ("z", "upper")]


def test_mass_that_no_draw_comes_near_is_seen_by_chains_alone():
    """The weights are all the same, and say that nothing is wrong; 10% of the mass and 0.105 nats are missing."""
    found = diagnosis_of(cut, of(dist.Normal(0.0, 1.0)))
    assert found.ess_share > 0.999
    assert "tails" not in found.certified
    assert "evidence" not in found.certified
    assert found.drift.tails.off.startswith("the upper tail of z is too thin")


def test_wrong_tails_are_named_in_the_first_line_beside_right_moments():
    """The posterior lies an eighth of an sd higher and is 6% wider than the draws."""
    found = diagnosis_of(normal(0.0, 1.0), of(dist.Normal(0.12, 1.06)))
    assert found.verdict is Verdict.TRUST
    assert found.doubts["tails"].startswith("the upper tail of z is too thin: P(z > 1.6")
    first = str(found).splitlines()[0]
    assert first.startswith(
        "TRUST: means and sds of the guide's own draws, and the evidence, are certified, tails not (the upper"
    )


def test_a_normal_guide_lacks_the_tails_of_a_student_t():
    """Of 3 degrees, whose 5% quantile a normal of the same quartiles lays at 3.9%: nothing says that its tails are right."""
    found = diagnosis_of(normal(0.0, 1.13), of(dist.StudentT(3.0, 0.0, 1.0)))
    assert "evidence" not in found.certified
    assert "tails" not in found.certified


def test_of_a_corrected_fit_the_weighted_tails_are_certified():
    found = diagnosis_of(normal(0.0, 1.2), of(dist.Normal(0.4, 1.0)))
    assert found.verdict is Verdict.CORRECTED
    assert found.certified == ("means", "sds", "tails", "evidence")
    assert found.certifies == "means, sds and tails of resampled draws, and the evidence"
    assert found.drift.tails.off  # the guide's own are wrong


def test_without_chains_neither_is_certified():
    fit = vi.fit(heavy, exact, data=(), steps=0)
    found = vi.diagnostics.diagnose(fit.posterior, chains=False)
    assert found.certified == ("means", "sds")
    assert "are certified, tails and the evidence not (not checked); " in str(found)


def test_answers_and_files_keep_what_was_certified(tmp_path):
    fit = vi.fit(heavy, exact, data=(), steps=0)
    fit.diagnose()
    fit.save(tmp_path / "fit.pt")
    loaded = vi.load(tmp_path / "fit.pt", heavy, exact)
    assert loaded.posterior.judged.certified == ("means", "sds", "tails", "evidence")
    table = loaded.summary()
    assert table.columns.name == "draws of the guide, TRUST"
    assert table.attrs["draws"] == "draws of the guide, whose means, sds and tails are certified (TRUST)"
    fit.posterior.judge(Judged(Verdict.TRUST))
    assert fit.summary().columns.name == "draws of the guide, TRUST but for tails"


def test_a_distrusted_fit_certifies_nothing():
    found = dataclasses.replace(diagnosis_of(exact), verdict=Verdict.DISTRUST)
    assert found.certified == ()
    assert found.certifies == "nothing"
