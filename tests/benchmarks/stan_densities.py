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


def kidscore_interaction(file, stan):
    b, total = stan["beta"], stats.halfcauchy.logpdf(stan["sigma"], scale=2.5)
    for score, school, iq in zip(file["kid_score"], file["mom_hs"], file["mom_iq"], strict=True):
        total += stats.norm.logpdf(score, b[0] + b[1] * school + b[2] * iq + b[3] * school * iq, stan["sigma"])
    return total


def logmesquite(file, stan):
    b, total = stan["beta"], 0.0
    for i, weight in enumerate(file["weight"]):
        loc = b[0] + b[1] * np.log(file["diam1"][i]) + b[2] * np.log(file["diam2"][i])
        loc += b[3] * np.log(file["canopy_height"][i]) + b[4] * np.log(file["total_height"][i])
        loc += b[5] * np.log(file["density"][i]) + b[6] * file["group"][i]
        total += stats.norm.logpdf(np.log(weight), loc, stan["sigma"])
    return total


def earn_height(file, stan):
    loc = stan["beta"][0] + stan["beta"][1] * np.array(file["height"])
    return stats.norm.logpdf(file["earn"], loc, stan["sigma"]).sum()


def nes(file, stan):
    b, total = stan["beta"], 0.0
    for i, party in enumerate(file["partyid7"]):
        loc = b[0] + b[1] * file["real_ideo"][i] + b[2] * file["race_adj"][i]
        loc += {1: 0.0, 2: b[3], 3: b[4], 4: b[5]}[file["age_discrete"][i]]
        loc += b[6] * file["educ1"][i] + b[7] * file["gender"][i] + b[8] * file["income"][i]
        total += stats.norm.logpdf(party, loc, stan["sigma"])
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
