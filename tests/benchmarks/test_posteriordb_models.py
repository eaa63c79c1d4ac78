"""Each Pyro program is the Stan program: the same density up to a constant, from the same raw data."""

import json

import numpy as np
import pytest
import torch

from benchmarks.posteriordb_models import POSTERIORS, flat_names, shaped
from tests.benchmarks import stan_densities as stan
from vipack.program import Arguments, LogJoint, Program, seeded

RNG = np.random.default_rng(0)


def normal(count, loc=0.0, scale=1.0):
    return RNG.normal(loc, scale, count).tolist()


def integers(count, low, high):
    return RNG.integers(low, high, count).tolist()


def positive(count):
    return np.exp(RNG.normal(0, 0.5, count)).tolist()


# Files of the same form as posteriordb's, with numbers of the test's own.
SCHOOLS = {"J": 8, "y": normal(8, 8, 10), "sigma": [10 * s for s in positive(8)]}
KIDS = {"kid_score": normal(9, 80, 20), "mom_hs": integers(9, 0, 2), "mom_iq": normal(9, 100, 15)}
BUSHES = {
    **{name: positive(7) for name in ("weight", "diam1", "diam2", "canopy_height", "total_height", "density")},
    "group": integers(7, 0, 2),
}
WORKING_MOTHERS = {**KIDS, "mom_work": [1, 2, 3, 4, 1, 2, 3, 4, 4]}
EARNERS = {"earn": [2e4 * e for e in positive(6)], "height": normal(6, 67, 4), "male": integers(6, 0, 2)}
VOTERS = {
    "partyid7": integers(12, 1, 8),
    "real_ideo": integers(12, 1, 8),
    "race_adj": normal(12),
    "age_discrete": [1, 2, 3, 4] * 3,
    "educ1": integers(12, 1, 5),
    "gender": integers(12, 0, 2),
    "income": integers(12, 1, 6),
}
SERIES = {"K": 3, "T": 12, "y": normal(12)}
RETURNS = {"T": 10, "y": normal(10, 5, 2), "sigma1": 0.5}
STATES = {"N": 9, "K": 2, "y": [*normal(4, 3), *normal(5, 9)]}
DRIVES = {"N": 7, "K": 2, "u": positive(7), "v": [10 * d for d in positive(7)], "alpha": [[4, 2], [2, 3]]}
MEASURED = {"N": 8, "D": 3, "X": RNG.normal(0, 30, (8, 3)).tolist(), "y": normal(8, 0, 40)}
TREND = {"N": 9, "x": list(range(3952, 3961)), "y": normal(9, 9, 1), "xpred": 2016}
TREND |= {"pmualpha": 9.3, "psalpha": 100, "pmubeta": 0.1, "psbeta": 0.03}
MIXED = {"N": 9, "y": [*normal(5, -2), *normal(4, 3)]}
CURVE = {"N": 6, "x": [-5.0, -3.0, -1.0, 1.0, 3.0, 5.0], "y": normal(6)}
HARES = {"N": 4, "ts": [1, 2, 3, 4], "y_init": [30.0, 4.0], "y": [[47.2, 6.1], [70.2, 9.8], [77.4, 35.2], [36.3, 59.4]]}


def lotka_start(u):
    """Near rates that two species live by: elsewhere counts reach 1e-300 and no two solvers agree."""
    return torch.tensor([0.55, 0.028, 0.8, 0.024, 33.0, 6.0, 0.25, 0.25], dtype=torch.float64).log() + 0.3 * u


def unchanged(u):
    return u


REGRESSIONS = [
    ("kidiq", KIDS, "kidscore_momhs kidscore_momiq kidscore_momhsiq kidscore_interaction"),
    (
        "kidiq_with_mom_work",
        WORKING_MOTHERS,
        "kidscore_mom_work kidscore_interaction_c kidscore_interaction_c2 kidscore_interaction_z",
    ),
    (
        "mesquite",
        BUSHES,
        "logmesquite logmesquite_logvolume logmesquite_logva logmesquite_logvas logmesquite_logvash",
    ),
    (
        "earnings",
        EARNERS,
        "earn_height logearn_height log10earn_height logearn_height_male logearn_logheight_male logearn_interaction_z",
    ),
    *((f"nes{year}", VOTERS, "nes") for year in range(1972, 2004, 4)),
    ("sblri", MEASURED, "blr"),
]

# name, file, density, the parameters' free coordinates (a simplex has one less than its length), start of the points
CASES = [
    ("eight_schools-eight_schools_centered", SCHOOLS, stan.eight_schools_centered, ["mu", "tau", "theta"]),
    ("eight_schools-eight_schools_noncentered", SCHOOLS, stan.eight_schools_noncentered, ["mu", "tau", "theta_trans"]),
    *(
        (f"{data}-{program}", file, getattr(stan, program), ["beta", "sigma"])
        for data, file, programs in REGRESSIONS
        for program in programs.split()
    ),
    ("kilpisjarvi_mod-kilpisjarvi", TREND, stan.kilpisjarvi, ["alpha", "beta", "sigma"]),
    ("arK-arK", SERIES, stan.ar_k, ["alpha", "beta", "sigma"]),
    ("garch-garch11", RETURNS, stan.garch11, ["mu", "alpha0", "alpha1", "beta1"]),
    ("bball_drive_event_0-hmm_drive_0", DRIVES, stan.hmm_drive_0, ["theta1", "theta2", "phi", "lambda"]),
    ("hmm_example-hmm_example", STATES, stan.hmm_example, ["theta1", "theta2", "mu"]),
    ("low_dim_gauss_mix-low_dim_gauss_mix", MIXED, stan.low_dim_gauss_mix, ["mu", "sigma", "theta"]),
    ("gp_pois_regr-gp_regr", CURVE, stan.gp_regr, ["rho", "alpha", "sigma"]),
    ("hudson_lynx_hare-lotka_volterra", HARES, stan.lotka_volterra, ["theta", "z_init", "sigma"]),
]
SIMPLEXES = dict.fromkeys(("bball_drive_event_0-hmm_drive_0", "hmm_example-hmm_example"), ("theta1", "theta2"))


def log_joint(name, file):
    posterior = POSTERIORS[name]
    program = Program(posterior.model, lambda **_: None, dtype=torch.float64, device=torch.device("cpu"))
    with seeded(0):
        return LogJoint(program, Arguments((), posterior.read(file)))


def points(name, dim):
    u = torch.randn(5, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return lotka_start(u) if "lotka" in name else u


def test_each_has_a_density_to_be_held_against():
    assert sorted(POSTERIORS) == sorted(name for name, *_ in CASES)
    assert all(posterior.name == name for name, posterior in POSTERIORS.items())


@pytest.mark.parametrize(("name", "file", "density", "parameters"), CASES, ids=[case[0] for case in CASES])
def test_the_density_is_stans_up_to_a_constant(name, file, density, parameters):
    """log p(u) - log |d parameters / du| is Stan's log density on the parameters' own scale, plus a constant."""
    joint = log_joint(name, file)

    def free(u):
        values = joint.constrain(u)
        parts = [values[p][:-1] if p in SIMPLEXES.get(name, ()) else values[p] for p in parameters]
        return torch.cat([part.reshape(-1) for part in parts])

    differences = []
    for u in points(name, joint.dim):
        log_det = torch.linalg.slogdet(torch.autograd.functional.jacobian(free, u)).logabsdet
        values = {site: value.numpy() for site, value in joint.constrain(u).items()}
        differences.append(float(joint(u) - log_det) - density(file, values))
    scale = max(1.0, max(abs(float(joint(u))) for u in points(name, joint.dim)))
    tolerance = 1e-5 if "lotka" in name else 1e-9  # 20 substeps of RK4 a year against 1e-11
    np.testing.assert_allclose(differences, differences[0], atol=tolerance * scale)


@pytest.mark.parametrize(("name", "file"), [case[:2] for case in CASES], ids=[case[0] for case in CASES])
def test_stans_parameters_give_back_the_latents(name, file):
    joint, posterior = log_joint(name, file), POSTERIORS[name]
    batch = points(name, joint.dim)
    values = torch.func.vmap(joint.constrain)(batch)
    latents = posterior.latents(shaped(flat_names(values)))
    for i, u in enumerate(batch):
        found = joint.unconstrain({site: latents[site][i] for site in joint.shapes})
        torch.testing.assert_close(found, u)


@pytest.mark.parametrize(("name", "file"), [case[:2] for case in CASES], ids=[case[0] for case in CASES])
def test_the_gradient_is_finite_and_vmappable(name, file):
    joint = log_joint(name, file)
    batch = points(name, joint.dim)
    gradients, values = torch.func.vmap(torch.func.grad_and_value(joint))(batch)
    torch.testing.assert_close(values, torch.stack([joint(u) for u in batch]))
    assert gradients.isfinite().all()


def test_the_data_are_read_from_a_folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "eight_schools.json").write_text(json.dumps(SCHOOLS))
    data = POSTERIORS["eight_schools-eight_schools_centered"].data(tmp_path)
    assert {name: value.dtype for name, value in data.items()} == {"y": torch.float64, "sigma": torch.float64}
    assert data["y"].tolist() == SCHOOLS["y"]


def test_flat_names_are_the_references():
    draws = {"tau": torch.zeros(3), "L": torch.arange(12.0).reshape(3, 2, 2)}
    flat = flat_names(draws)
    assert list(flat) == ["tau", "L[1,1]", "L[1,2]", "L[2,1]", "L[2,2]"]
    assert flat["L[2,1]"].tolist() == [2.0, 6.0, 10.0]
    assert all(torch.equal(value, draws[name]) for name, value in shaped(flat).items())
