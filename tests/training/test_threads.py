"""Fits in threads wait for one another, and are what they are one after another, bit for bit."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.utils.data import DataLoader, TensorDataset

import vipack as vi
from tests.training.test_isolation import process

X = 1.0 + torch.randn(30, generator=torch.Generator().manual_seed(0))
STEPS = 60
SEEDS = 4


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, scale), obs=x)


def started(seed, **options):
    """Of single and of double precision in turn, which is a matter of the process's default dtype."""
    data = X.double() if seed % 2 else X
    engine = ("eager", "traced")[seed // 2 % 2]
    return vi.fit(model, AutoNormal, data=data, steps=STEPS, seed=seed, engine=engine, progress=False, **options)


@pytest.fixture(scope="module")
def bases():
    return [vi.fit(model, AutoMultivariateNormal, data=x, steps=200, engine="eager") for x in (X, X.double())]


def trained(bases, seed, folder):
    fit = started(seed)
    return fit.losses.tolist(), fit.params["AutoNormal.locs.mu"].item()


def diagnosed(bases, seed, folder):
    report = bases[seed % 2].diagnose(200, seed=seed)
    return report.khat, report.drift.draws.mean.tolist()


def resumed(bases, seed):
    fit = started(seed, callbacks=vi.Every(20, lambda progress: True))
    fit.resume()
    return fit.losses.tolist()


def loaded(bases, seed, folder):
    path = folder / f"{seed}-{threading.get_ident()}"
    bases[seed % 2].save(path)
    return vi.load(path, model, AutoMultivariateNormal).sample(10, seed=seed)["mu"].tolist()


WORK = {
    "fit": trained,
    "resume": lambda bases, seed, folder: resumed(bases, seed),
    "check": lambda bases, seed, folder: str(vi.check(model, AutoNormal, data=X, seed=seed)),
    "sample": lambda bases, seed, folder: bases[seed % 2].sample(30, seed=seed)["mu"].tolist(),
    "resampled": lambda bases, seed, folder: bases[seed % 2].sample(30, seed=seed, resample=True)["mu"].tolist(),
    "predict": lambda bases, seed, folder: bases[seed % 2].predict(20, seed=seed)["x"].tolist(),
    "log weights": lambda bases, seed, folder: bases[seed % 2].log_weights(30, seed=seed).tolist(),
    "diagnose": diagnosed,
    "summary": lambda bases, seed, folder: bases[seed % 2].summary(50, seed=seed).to_dict(),
    "guide": lambda bases, seed, folder: bases[seed % 2].guide.median()["mu"].item(),
    "arviz": lambda bases, seed, folder: bases[seed % 2].to_arviz(5, seed=seed).posterior["mu"].values.tolist(),
    "loo": lambda bases, seed, folder: vi.diagnostics.loo(bases[seed % 2], num_draws=100, seed=seed).elpds.tolist(),
    "plot": lambda bases, seed, folder: vi.plots.posterior(bases[seed % 2], num_draws=50, seed=seed)[0].get_xlabel(),
    "load": loaded,
}
# Seeds beyond the second are of another engine, which fits alone have.
TASKS = [(name, seed) for seed in range(SEEDS) for name in WORK if seed < 2 or name in ("fit", "resume")]


@pytest.fixture(scope="module")
def serial(bases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    return {task: WORK[task[0]](bases, task[1], folder) for task in TASKS}


def test_whatever_runs_in_threads_is_what_it_is_in_turn(bases, serial, tmp_path):
    before = process()
    with ThreadPoolExecutor(6) as pool:
        found = dict(zip(TASKS, pool.map(lambda task: WORK[task[0]](bases, task[1], tmp_path), TASKS), strict=True))
    assert [task for task in TASKS if found[task] != serial[task]] == []
    assert process() == before


def test_the_guides_of_two_fits_may_be_called_beside_a_fit(bases):
    """`fit.guide` waits for the fit, and the fit for it; neither reads the other's parameters or dtype."""
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(started, 3)
        drawn = [pool.submit(bases[i % 2].guide, X) for i in range(40)]
        dtypes = [each.result()["mu"].dtype for each in drawn]
        fit = running.result()
    assert dtypes == [torch.float32, torch.float64] * 20
    assert fit.losses.tolist() == started(3).losses.tolist()


def test_a_callback_may_fit_in_its_own_thread():
    def looks(progress):
        inner.append(started(1).losses.tolist())

    inner = []
    outer = started(0, callbacks=vi.Every(30, looks))
    assert outer.losses.tolist() == started(0).losses.tolist()
    assert inner == [started(1).losses.tolist()] * 2


def test_a_callback_may_wait_for_a_fit_in_another_thread():
    with ThreadPoolExecutor(1) as pool:
        inner = []

        def waits(progress):
            torch.rand(3)  # of the run's own stream, which is as before afterwards
            inner.append(pool.submit(started, 1).result().losses.tolist())

        outer = started(0, callbacks=vi.Every(30, waits))
    assert outer.losses.tolist() == started(0).losses.tolist()
    assert inner == [started(1).losses.tolist()] * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_with_workers_are_read_in_threads_too(workers):
    """Worker processes are forked from a thread that holds the lock."""

    def fitted(seed):
        loader = DataLoader(TensorDataset(X), batch_size=10, shuffle=True, num_workers=workers)
        return vi.fit(
            model, AutoNormal, data=loader, steps=9, seed=seed, engine="eager", progress=False
        ).losses.tolist()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(fitted, range(3)))
    assert found == [fitted(seed) for seed in range(3)]


def test_a_loader_may_use_threads_of_its_own():
    class Threaded(TensorDataset):
        def __getitem__(self, index):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(super().__getitem__, index).result()

    fit = vi.fit(model, AutoNormal, data=Threaded(X), batch_size=10, steps=6, engine="eager", progress=False)
    assert fit.steps == 6
