"""The Stan programs' log densities, written again in NumPy from the raw contents of a data file, up to a constant.

Nothing here is shared with the Pyro programs: not the reading of the data, not the transforms, not the ODE solver.
"""

import numpy as np
from scipy import integrate, special, stats


def eight_schools(file, stan):
    y, sigma = np.array(file["y"]), np.array(file["sigma"])
    prior = stats.norm.logpdf(stan["mu"], 0, 5) + stats.halfcauchy.logpdf(stan["tau"], scale=5)
    return prior + stats.norm.logpdf(y, stan["theta"], sigma).sum()


def eight_schools_centered(file, stan):
    return eight_schools(file, stan) + stats.norm.logpdf(stan["theta"], stan["mu"], stan["tau"]).sum()


def eight_schools_noncentered(file, stan):
    return eight_schools(file, stan) + stats.norm.logpdf(stan["theta_trans"]).sum()


def regression(outcome, centre, prior=None):
    """A Stan program whose likelihood is ``outcome ~ normal(centre, sigma)``, written row by row.

    Args:
        outcome: ``(row) -> number``; a row is a dict of the file's entries, with the whole file under "file".
        centre: ``(b, row) -> number``, where b[1] is the first coefficient, as in Stan.
        prior: ``(stan) -> log density``; flat by default.
    """

    def density(file, stan):
        b = [None, *stan["beta"]]
        columns = {name: values for name, values in file.items() if isinstance(values, list)}
        total = 0.0 if prior is None else prior(stan)
        for values in zip(*columns.values(), strict=True):
            row = {**dict(zip(columns, values, strict=True)), "file": file}
            total += stats.norm.logpdf(outcome(row), centre(b, row), stan["sigma"])
        return total

    return density


def mean(row, name):
    return float(np.mean(row["file"][name]))


def sd(row, name):
    values = row["file"][name]
    return float(np.sqrt(np.sum((np.array(values) - np.mean(values)) ** 2) / (len(values) - 1)))


def cauchy(stan):
    return stats.cauchy.logpdf(stan["sigma"], 0, 2.5)


def score(r):
    return r["kid_score"]


kidscore_momhs = regression(score, lambda b, r: b[1] + b[2] * r["mom_hs"], cauchy)
kidscore_momiq = regression(score, lambda b, r: b[1] + b[2] * r["mom_iq"], cauchy)
kidscore_momhsiq = regression(score, lambda b, r: b[1] + b[2] * r["mom_hs"] + b[3] * r["mom_iq"], cauchy)


def interacting(b, first, second):
    return b[1] + b[2] * first + b[3] * second + b[4] * first * second


kidscore_interaction = regression(score, lambda b, r: interacting(b, r["mom_hs"], r["mom_iq"]), cauchy)
kidscore_interaction_c = regression(
    score, lambda b, r: interacting(b, r["mom_hs"] - mean(r, "mom_hs"), r["mom_iq"] - mean(r, "mom_iq"))
)
kidscore_interaction_c2 = regression(score, lambda b, r: interacting(b, r["mom_hs"] - 0.5, r["mom_iq"] - 100))
kidscore_interaction_z = regression(
    score,
    lambda b, r: interacting(
        b,
        (r["mom_hs"] - mean(r, "mom_hs")) / (2 * sd(r, "mom_hs")),
        (r["mom_iq"] - mean(r, "mom_iq")) / (2 * sd(r, "mom_iq")),
    ),
)
kidscore_mom_work = regression(score, lambda b, r: b[1] + {1: 0.0, 2: b[2], 3: b[3], 4: b[4]}[r["mom_work"]])


def log_weight(r):
    return np.log(r["weight"])


def log_volume(r):
    return np.log(r["diam1"] * r["diam2"] * r["canopy_height"])


def log_area(r):
    return np.log(r["diam1"] * r["diam2"])


def log_shape(r):
    return np.log(r["diam1"] / r["diam2"])


logmesquite = regression(
    log_weight,
    lambda b, r: (
        b[1]
        + b[2] * np.log(r["diam1"])
        + b[3] * np.log(r["diam2"])
        + b[4] * np.log(r["canopy_height"])
        + b[5] * np.log(r["total_height"])
        + b[6] * np.log(r["density"])
        + b[7] * r["group"]
    ),
)
logmesquite_logvolume = regression(log_weight, lambda b, r: b[1] + b[2] * log_volume(r))
logmesquite_logva = regression(
    log_weight, lambda b, r: b[1] + b[2] * log_volume(r) + b[3] * log_area(r) + b[4] * r["group"]
)
logmesquite_logvas = regression(
    log_weight,
    lambda b, r: (
        b[1]
        + b[2] * log_volume(r)
        + b[3] * log_area(r)
        + b[4] * log_shape(r)
        + b[5] * np.log(r["total_height"])
        + b[6] * np.log(r["density"])
        + b[7] * r["group"]
    ),
)
logmesquite_logvash = regression(
    log_weight,
    lambda b, r: (
        b[1]
        + b[2] * log_volume(r)
        + b[3] * log_area(r)
        + b[4] * log_shape(r)
        + b[5] * np.log(r["total_height"])
        + b[6] * r["group"]
    ),
)


def log_earn(r):
    return np.log(r["earn"])


earn_height = regression(lambda r: r["earn"], lambda b, r: b[1] + b[2] * r["height"])
logearn_height = regression(log_earn, lambda b, r: b[1] + b[2] * r["height"])
log10earn_height = regression(lambda r: np.log10(r["earn"]), lambda b, r: b[1] + b[2] * r["height"])
logearn_height_male = regression(log_earn, lambda b, r: b[1] + b[2] * r["height"] + b[3] * r["male"])
logearn_logheight_male = regression(log_earn, lambda b, r: b[1] + b[2] * np.log(r["height"]) + b[3] * r["male"])
logearn_interaction_z = regression(
    log_earn, lambda b, r: interacting(b, (r["height"] - mean(r, "height")) / sd(r, "height"), r["male"])
)
nes = regression(
    lambda r: r["partyid7"],
    lambda b, r: (
        b[1]
        + b[2] * r["real_ideo"]
        + b[3] * r["race_adj"]
        + {1: 0.0, 2: b[4], 3: b[5], 4: b[6]}[r["age_discrete"]]
        + b[7] * r["educ1"]
        + b[8] * r["gender"]
        + b[9] * r["income"]
    ),
)
blr = regression(
    lambda r: r["y"],
    lambda b, r: sum(b[d + 1] * x for d, x in enumerate(r["X"])),
    lambda stan: stats.norm.logpdf(stan["beta"], 0, 10).sum() + stats.norm.logpdf(stan["sigma"], 0, 10),
)


def kilpisjarvi(file, stan):
    total = stats.norm.logpdf(stan["alpha"], file["pmualpha"], file["psalpha"])
    total += stats.norm.logpdf(stan["beta"], file["pmubeta"], file["psbeta"])
    for x, y in zip(file["x"], file["y"], strict=True):
        total += stats.norm.logpdf(y, stan["alpha"] + stan["beta"] * x, stan["sigma"])
    return total


def ar_k(file, stan):
    y, order = file["y"], file["K"]
    total = stats.norm.logpdf(stan["alpha"], 0, 10) + stats.norm.logpdf(stan["beta"], 0, 10).sum()
    total += stats.halfcauchy.logpdf(stan["sigma"], scale=2.5)
    for t in range(order, file["T"]):
        loc = stan["alpha"] + sum(stan["beta"][k] * y[t - 1 - k] for k in range(order))
        total += stats.norm.logpdf(y[t], loc, stan["sigma"])
    return total


def garch11(file, stan):
    y, sigma = file["y"], file["sigma1"]
    total = stats.norm.logpdf(y[0], stan["mu"], sigma)
    for t in range(1, file["T"]):
        shock = stan["alpha1"] * (y[t - 1] - stan["mu"]) ** 2
        sigma = np.sqrt(stan["alpha0"] + shock + stan["beta1"] * sigma**2)
        total += stats.norm.logpdf(y[t], stan["mu"], sigma)
    return total


def hmm_example(file, stan):
    moves, mu = np.stack([stan["theta1"], stan["theta2"]]), stan["mu"]
    forward = stats.norm.logpdf(file["y"][0], mu, 1)
    for y in file["y"][1:]:
        forward = special.logsumexp(forward[:, None] + np.log(moves), axis=0) + stats.norm.logpdf(y, mu, 1)
    return stats.norm.logpdf(mu, [3, 10], 1).sum() + special.logsumexp(forward)


def hmm_drive_0(file, stan):
    theta = [stan["theta1"], stan["theta2"]]
    total = sum(stats.dirichlet.logpdf(theta[k], file["alpha"][k]) for k in range(2))
    for rates in (stan["phi"], stan["lambda"]):
        total += stats.norm.logpdf(rates[0], 0, 1) + stats.norm.logpdf(rates[1], 3, 1)

    def emitted(t, k):
        phi, rate = stan["phi"][k], stan["lambda"][k]
        return stats.expon.logpdf(file["u"][t], scale=1 / phi) + stats.expon.logpdf(file["v"][t], scale=1 / rate)

    gamma = [emitted(0, k) for k in range(2)]
    for t in range(1, file["N"]):
        acc = [[gamma[j] + np.log(theta[j][k]) + emitted(t, k) for j in range(2)] for k in range(2)]
        gamma = [special.logsumexp(each) for each in acc]
    return total + special.logsumexp(gamma)


def low_dim_gauss_mix(file, stan):
    mu, sigma, theta = stan["mu"], stan["sigma"], stan["theta"]
    total = stats.norm.logpdf(mu, 0, 2).sum() + stats.norm.logpdf(sigma, 0, 2).sum() + stats.beta.logpdf(theta, 5, 5)
    for y in file["y"]:
        first, second = stats.norm.pdf(y, mu, sigma)
        total += np.log(theta * first + (1 - theta) * second)
    return total


def gp_regr(file, stan):
    x, rho, alpha, sigma = np.array(file["x"]), stan["rho"], stan["alpha"], stan["sigma"]
    cov = alpha**2 * np.exp(-((x[:, None] - x) ** 2) / (2 * rho**2)) + np.diag(np.full(len(x), sigma))
    prior = stats.gamma.logpdf(rho, 25, scale=1 / 4) + stats.norm.logpdf(alpha, 0, 2) + stats.norm.logpdf(sigma, 0, 1)
    return prior + stats.multivariate_normal.logpdf(file["y"], np.zeros(len(x)), cov)


def lotka_volterra(file, stan):
    theta, z_init, sigma = stan["theta"], stan["z_init"], stan["sigma"]

    def change(_, z):
        return [(theta[0] - theta[1] * z[1]) * z[0], (-theta[2] + theta[3] * z[0]) * z[1]]

    z = integrate.solve_ivp(change, (0, file["N"]), z_init, "DOP853", file["ts"], rtol=1e-11, atol=1e-11).y.T
    total = stats.norm.logpdf(theta, [1, 0.05, 1, 0.05], [0.5, 0.05, 0.5, 0.05]).sum()
    total += stats.lognorm.logpdf(sigma, 1, scale=np.exp(-1)).sum() + stats.lognorm.logpdf(z_init, 1, scale=10).sum()
    total += stats.lognorm.logpdf(file["y_init"], sigma, scale=z_init).sum()
    return total + stats.lognorm.logpdf(file["y"], sigma, scale=z).sum()
