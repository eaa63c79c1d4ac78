"""A run can be cut off at any moment, by a kill, Ctrl-C or a save, and goes on to the same bits."""

import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.utils.data import DataLoader, Dataset, TensorDataset

import vipack as vi
from tests.training.programs import RECIPES, X, normal
from tests.training.test_isolation import assert_same
from vipack.training.checkpoint import write_file
from vipack.training.trainer import Trainer
from vipack.types import StopReason

ROOT = Path(vi.__file__).parent.parent
STEPS = 14


class Cut(Exception):
    """Stands for a kill."""


def cut(progress):
    raise Cut


def stop_at(step):
    return vi.Every(1, lambda progress: progress.step == step)


def load_again(path, name, **others):
    recipe = RECIPES[name]
    others |= {key: recipe[key] for key in ("guide", "loss", "optim") if key in recipe}
    data = None if isinstance(recipe["data"], torch.Tensor) else recipe["data"]
    return vi.load(path, recipe["model"], data=data, **others)


@pytest.mark.parametrize("kills", [12, pytest.param(30, marks=pytest.mark.slow)])
def test_kills_leave_no_trace(tmp_path, kills):
    command = [sys.executable, "-m", "tests.training.killed", str(tmp_path), str(kills), "0"]
    # With one thread: OpenMP's others do not outlive a fork, and a worker that waits for them never starts.
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1_200, check=False, env=one_thread)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == kills
    assert len(set(found["steps_at_death"])) > kills // 2  # they fell all over the run
    assert found["temporaries_left_by_kills"] > 0  # some of them in the middle of a write
    assert found["unreadable"] == 0
    assert found["stale"] == 0
    assert found["temporaries_at_the_end"] == 0
    assert found["losses_equal"]
    assert found["state_equal"]


# --- resumed runs


@pytest.mark.parametrize("step", [5, 8])
@pytest.mark.parametrize("name", RECIPES)
def test_a_saved_run_goes_on_bit_for_bit(name, step, tmp_path):
    whole = vi.fit(**RECIPES[name], steps=STEPS)
    part = vi.fit(**RECIPES[name], steps=STEPS, callbacks=stop_at(step))
    assert part.steps == step
    part.save(tmp_path / "fit")
    pyro.set_rng_seed(123)
    loaded = load_again(tmp_path / "fit", name)
    assert_same(loaded, part)
    assert_same(loaded.resume(), whole)
    assert_same(part.resume(steps=STEPS - step), whole)
    assert torch.equal(loaded.log_weights(20), whole.log_weights(20))


@pytest.mark.parametrize("name", ["minibatches", "DataLoader", "VAE in batches", "by hand from 1"])
def test_a_checkpointed_run_that_is_started_again_goes_on_bit_for_bit(name, tmp_path):
    whole = vi.fit(**RECIPES[name], steps=STEPS)
    file = vi.Checkpoint(tmp_path / "fit", every_steps=3)
    with pytest.raises(Cut):
        vi.fit(**RECIPES[name], steps=STEPS, checkpoint=file, callbacks=vi.Every(7, cut))
    again = vi.fit(**RECIPES[name], steps=STEPS, checkpoint=file)
    assert_same(again, whole)
    steps = again.engine.steps["eager"]
    assert_same(vi.fit(**RECIPES[name], steps=STEPS, checkpoint=file), whole)  # and once more, with nothing left to do
    assert steps == STEPS


@pytest.mark.parametrize("checkpoint", [True, False], ids=["checkpoint", "no checkpoint"])
def test_ctrl_c_keeps_the_fit_so_far_and_it_goes_on_bit_for_bit(checkpoint, tmp_path):
    def press(progress):
        if progress.step == 9:
            signal.raise_signal(signal.SIGINT)

    recipe = RECIPES["VAE in batches"]
    whole = vi.fit(**recipe, steps=STEPS)
    file = tmp_path / "fit" if checkpoint else None
    part = vi.fit(**recipe, steps=STEPS, callbacks=vi.Every(1, press), checkpoint=file)
    assert part.stopped.reason is StopReason.INTERRUPTED
    assert part.steps == 9
    assert "9 steps" in part.stopped.detail
    np.testing.assert_array_equal(part.losses, whole.losses[:9])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if checkpoint:
        assert_same(vi.load(file, recipe["model"], recipe["guide"], data=recipe["data"]), part)
        assert_same(vi.fit(**recipe, steps=STEPS, checkpoint=file), whole)
    assert_same(part.resume(), whole)
    assert part.stopped.reason is StopReason.STEPS


def test_a_second_ctrl_c_is_a_keyboard_interrupt():
    def press_twice(progress):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        vi.fit(normal, AutoNormal, data=X, steps=STEPS, callbacks=vi.Every(2, press_twice))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_gets_sigint_keeps_its_fit(tmp_path):
    """From outside, in a step: the run ends after it, and what the script does next is done."""
    script = f"""
import os, signal, threading
import vipack as vi
from pyro.infer.autoguide import AutoNormal
from tests.training.programs import X, normal

press = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
fit = vi.fit(normal, AutoNormal, data=X, steps=100_000, callbacks=vi.Every(10, lambda p: p.step == 10 and press.start()))
fit.save({str(tmp_path / "fit")!r})
print(fit.stopped.reason.name, fit.steps)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    reason, steps = done.stdout.split()
    assert reason == "INTERRUPTED"
    assert vi.load(tmp_path / "fit", normal, AutoNormal).steps == int(steps) < 100_000


def test_training_in_another_thread_leaves_signals_alone():
    fits = []
    thread = threading.Thread(target=lambda: fits.append(vi.fit(normal, AutoNormal, data=X, steps=5)))
    thread.start()
    thread.join()
    assert_same(fits[0], vi.fit(normal, AutoNormal, data=X, steps=5))


# --- runs that end by themselves


@pytest.fixture(scope="module")
def converged():
    return vi.fit(normal, AutoNormal, data=X, engine="traced")


def test_a_run_of_open_end_converges_and_then_cools(converged):
    assert converged.stopped.reason is StopReason.CONVERGED
    settled = round(converged.steps / 1.5)
    assert settled % 100 == 0
    assert f"over the last {settled // 3} steps" in converged.stopped.detail


@pytest.mark.parametrize("where", ["before", "at", "after"])
def test_a_run_of_open_end_is_resumed_bit_for_bit_around_the_step_where_it_converges(
    where, converged, tmp_path, monkeypatch
):
    settled = round(converged.steps / 1.5)
    last = {"before": settled - 100, "at": settled, "after": settled + 150}[where]

    def save_and_die(trainer):
        write_file(tmp_path / "fit", trainer.content())
        if trainer.state.step == last:
            raise Cut

    file = vi.Checkpoint(tmp_path / "fit", every_steps=50)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_checkpoint", save_and_die)
        with pytest.raises(Cut):
            vi.fit(normal, AutoNormal, data=X, checkpoint=file, engine="traced")
    left = vi.load(tmp_path / "fit", normal, AutoNormal, data=X)
    assert left.steps == last
    again = vi.fit(normal, AutoNormal, data=X, checkpoint=file, engine="traced")
    assert_same(again, converged)
    assert again.stopped == converged.stopped
    if where != "at":  # there the file knows that the rule has spoken, and resuming asks for more
        assert_same(left.resume(), converged)


def test_an_interrupted_run_of_open_end_converges_as_it_would_have(converged):
    settled = round(converged.steps / 1.5)

    def press(progress):
        if progress.step in (settled, settled + 100):
            signal.raise_signal(signal.SIGINT)

    fit = vi.fit(normal, AutoNormal, data=X, callbacks=vi.Every(100, press), engine="traced")
    for step in (settled, settled + 100):
        assert (fit.steps, fit.stopped.reason) == (step, StopReason.INTERRUPTED)
        fit.resume()
    assert_same(fit, converged)
    assert fit.stopped == converged.stopped


def test_a_finished_run_that_is_started_again_stays_as_it_is(tmp_path):
    stops = {
        "rule": {"stop": vi.Converged(min_steps=200, tolerance=100.0)},
        "callback": {"callbacks": vi.Every(150, lambda progress: "enough")},
        "time": {"stop": vi.TimeLimit(0.05)},
    }
    for name, options in stops.items():
        path = tmp_path / name
        fit = vi.fit(normal, AutoNormal, data=X, steps=5_000, checkpoint=path, **options)
        again = vi.fit(normal, AutoNormal, data=X, steps=5_000, checkpoint=path, **options)
        assert again.steps == fit.steps < 5_000, name
        assert again.stopped.reason is fit.stopped.reason
        assert_same(again, fit)


def test_resuming_beyond_the_plan_trains_at_a_useful_rate():
    """The default rate has fallen to a hundredth at the planned end; more steps start high again."""
    fit, other = (vi.fit(normal, AutoNormal, data=X, steps=100, engine="traced") for _ in range(2))
    assert fit.resume(steps=900).elbo().value > other.elbo().value + 1.0
    assert fit.steps == 1_000


@pytest.mark.parametrize("engine", ["traced", "interpreted"])
def test_resuming_beyond_the_plan_takes_the_steps_of_the_eager_tier(engine):
    found, expected = (vi.fit(normal, AutoNormal, data=X, steps=50, engine=tier) for tier in (engine, "eager"))
    found.resume(steps=50), expected.resume(steps=50)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)


# --- files


def regression(x, y, prior=1.0, name=None, missing=None):
    b = pyro.sample("b", dist.Normal(0.0, prior).expand([x.shape[1]]).to_event(1))
    x = x.to_dense() if x.layout != torch.strided else x
    with pyro.plate("rows", x.shape[0]):
        pyro.sample("y", dist.Normal(x.float() @ b, 1.0), obs=y)


def torch_csr(table):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.from_numpy(table).to_sparse_csr()


TABLE = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
LINE = TABLE.sum(1)
FORMS = {
    "torch": (torch.from_numpy(TABLE), torch.from_numpy(LINE)),
    "NumPy": (TABLE, LINE),
    "NumPy float64": (TABLE.astype(np.float64), LINE.astype(np.float64)),
    "a dict": {"y": torch.from_numpy(LINE), "x": TABLE},
    "pandas": (pd.DataFrame(TABLE), pd.Series(LINE)),
    "integers": ((TABLE > 0).astype(np.int32), LINE),
    "SciPy CSR": (scipy.sparse.csr_matrix(TABLE), LINE),
    "torch CSR": (torch_csr(TABLE), torch.from_numpy(LINE)),
    "with None and a word": {"x": TABLE, "y": LINE, "name": "word", "missing": None},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fixed", [None, {"prior": 2.0}, {"prior": torch.tensor(2.0)}], ids=["", "number", "tensor"])
def test_a_file_holds_data_of_every_form(form, fixed, tmp_path):
    fit = vi.fit(regression, AutoNormal, data=FORMS[form], fixed=fixed, steps=5)
    fit.save(tmp_path / "fit")
    loaded = vi.load(tmp_path / "fit", regression, AutoNormal)
    assert loaded.data_fingerprint == fit.data_fingerprint
    assert torch.equal(loaded.log_weights(10), fit.log_weights(10))
    assert_same(loaded.resume(3), fit.resume(3))
    again = vi.load(tmp_path / "fit", regression, AutoNormal, data=FORMS[form], fixed=fixed)
    assert torch.equal(again.resume(3).log_weights(10), fit.log_weights(10))


class Rows(Dataset):
    """Random numbers for every row that is read, as for augmentation."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i] + 0.01 * torch.randn(())


@pytest.mark.parametrize(
    "data",
    [TensorDataset(X), Rows(), DataLoader(Rows(), batch_size=8, shuffle=True)],
    ids=["Dataset", "random", "loader"],
)
def test_datasets_are_not_kept_in_files_and_must_be_passed_again(data, tmp_path):
    batches = {} if isinstance(data, DataLoader) else {"batch_size": 8}
    whole = vi.fit(normal, AutoNormal, data=data, steps=10, **batches)
    part = vi.fit(normal, AutoNormal, data=data, steps=10, callbacks=stop_at(6), **batches)
    part.save(tmp_path / "fit")
    with pytest.raises(vi.errors.CheckpointError, match=r"pass data="):
        vi.load(tmp_path / "fit", normal, AutoNormal)
    before = torch.get_rng_state()
    loaded = vi.load(tmp_path / "fit", normal, AutoNormal, data=data)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(loaded.resume(), whole)


def test_a_file_without_its_data_needs_them_again(tmp_path):
    fit = vi.fit(normal, AutoNormal, data=X, steps=5)
    fit.save(tmp_path / "fit", data=False)
    with pytest.raises(vi.errors.CheckpointError, match=r"pass data="):
        vi.load(tmp_path / "fit", normal, AutoNormal)
    assert_same(vi.load(tmp_path / "fit", normal, AutoNormal, data=X), fit)


def test_a_file_of_another_model_or_guide_is_refused(tmp_path):
    def other(x):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    vi.fit(normal, AutoNormal, data=X, steps=2).save(tmp_path / "fit")
    with pytest.raises(vi.errors.CheckpointError, match=r"'sigma'"):
        vi.load(tmp_path / "fit", other, AutoNormal)
    with pytest.raises(vi.errors.CheckpointError, match=r"AutoNormal.locs.mu"):
        vi.load(tmp_path / "fit", normal, AutoMultivariateNormal)


def test_a_checkpoint_of_another_run_is_refused_with_the_difference(tmp_path):
    vi.fit(normal, AutoNormal, data=X, steps=2, checkpoint=tmp_path / "fit")
    with pytest.raises(vi.errors.CheckpointError, match=r"seed 0, this fit has 1"):
        vi.fit(normal, AutoNormal, data=X, steps=2, checkpoint=tmp_path / "fit", seed=1)
    with pytest.raises(vi.errors.CheckpointError, match=r"data "):
        vi.fit(normal, AutoNormal, data=X + 1, steps=2, checkpoint=tmp_path / "fit")


def test_everything_of_a_fit_comes_back(tmp_path):
    fit = vi.fit(**RECIPES["local latents"], steps=120, stop=vi.Converged(min_steps=50, tolerance=100.0))
    fit.save(tmp_path / "fit")
    loaded = load_again(tmp_path / "fit", "local latents")
    assert_same(loaded, fit)
    assert (loaded.steps, loaded.seconds, loaded.stopped) == (fit.steps, fit.seconds, fit.stopped)
    assert loaded.engine.steps == fit.engine.steps
    assert loaded.data_fingerprint == fit.data_fingerprint
    assert repr(loaded) == repr(fit)
    for name, value in fit.sample(5).items():
        assert torch.equal(value, loaded.sample(5)[name])


def test_temporaries_of_the_dead_are_cleaned_away_and_of_the_living_kept(tmp_path):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    dead, living = (tmp_path / f".fit.{pid}.tmp" for pid in (gone.stdout.strip(), os.getppid()))
    stranger = tmp_path / ".fit.notes.tmp"
    for path in (dead, living, stranger):
        path.write_bytes(b"half a file")
    with pytest.warns(vi.errors.CheckpointWarning, match="removed 1 temporary"):
        vi.fit(normal, AutoNormal, data=X, steps=1, checkpoint=tmp_path / "fit")
    assert not dead.exists()
    assert living.exists()
    assert stranger.exists()
