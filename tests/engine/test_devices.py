"""On an accelerator everything runs as on the host; one that only pretends to be one refuses the same mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tests.engine.devices.pretend import build

CASES = [
    "mean-field", "full-rank", "low-rank", "flow", "batches", "float64", "loader", "enumerated", "networks",
    "draws inside", "another optimizer", "restarts", "SVI",
]  # fmt: skip


def run(device, folder, *parts):
    out = folder / "runs.json"
    command = [sys.executable, "-m", "tests.engine.devices.runs", str(device), str(out), *parts]
    subprocess.run(command, check=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def pretend(tmp_path_factory):
    return build(tmp_path_factory.mktemp("pretend"))


@pytest.fixture(scope="module")
def made(pretend, tmp_path_factory):
    return run(pretend, tmp_path_factory.mktemp("runs"), "tiers", "journey")


@pytest.mark.parametrize("tier", ["eager", "traced", "interpreted"])
@pytest.mark.parametrize("case", CASES)
def test_a_device_gives_the_losses_of_the_host_in_every_tier(case, tier, made):
    there, here = made[f"device {tier}"][case], made["host eager"][case]
    assert np.allclose(there["losses"], here["losses"], rtol=1e-4)
    assert there["tier"] == ("traced" if case == "restarts" and tier == "eager" else tier), there["reason"]


@pytest.mark.parametrize("case", [case for case in CASES if case != "SVI"])
def test_parameters_stay_on_the_device(case, made):
    for tier in ("eager", "traced", "interpreted"):
        assert made[f"device {tier}"][case]["devices"] == ["pretend"]


def test_the_journey_ends_in_a_verdict_a_table_and_a_file_for_the_host(made):
    journey = made["journey"]
    assert journey.get("verdict") == "TRUST", journey
    assert journey["ranks"]["full-rank"] == 0
    assert abs(journey["read"] - journey["elbo"]) < 0.05
    assert {"posterior", "log_likelihood", "observed_data"} <= set(journey["groups"])
    assert journey["predicted"] == [20, 30]
    assert journey["resumed"] == 610


def test_a_tensor_that_the_program_holds_elsewhere_is_an_error_with_the_cure(made):
    assert "same device" in made["refused"]
    assert "pass it in data or fixed" in made["refused"]


@pytest.mark.parametrize("tier", ["traced", "interpreted"])
def test_a_factor_that_fails_is_told_as_by_pyro_though_nothing_waits_for_the_device(tier, made):
    found, expected = made[f"device {tier}"]["failing factor"], made["device eager"]["failing factor"]
    assert "after site 'z'" in expected["reason"]
    assert "not positive-definite" in expected["reason"]
    assert found["reason"] == expected["reason"]
    assert len(expected["losses"]) > 2
    assert np.allclose(found["losses"], expected["losses"], rtol=1e-4)
    assert tier in found["tier"]


@pytest.mark.slow
def test_a_fit_without_a_guide_is_trusted_on_a_device(pretend, tmp_path):
    assert run(pretend, tmp_path, "ladder")["ladder"] == {"verdict": "TRUST"}


# --- on a GPU

_TOGETHER = 4

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def on_a_gpu(tmp_path_factory):
    """Several processes share it, since most of the time goes into compiling."""
    cases = [*CASES, "failing factor"]
    parts = [f"tiers={';'.join(cases[first::_TOGETHER])}" for first in range(_TOGETHER)]
    parts += ["journey", "ladder"]
    folders = [tmp_path_factory.mktemp("cuda") for _ in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(run, ["cuda"] * len(parts), folders, parts))
    whole = {}
    for one in found:
        for name, value in one.items():
            whole[name] = {**whole.get(name, {}), **value} if name.startswith("device") else value
    return whole


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("tier", ["traced", "interpreted", "compiled"])
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_gives_one_stream_of_losses_in_every_tier(case, tier, on_a_gpu):
    found, expected = on_a_gpu[f"device {tier}"][case], on_a_gpu["device eager"][case]
    assert found["tier"] == tier, found["reason"]
    if case != "restarts":  # whose eager run is one start
        assert np.allclose(found["losses"], expected["losses"], rtol=1e-4)


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("tier", ["interpreted", "compiled"])
@pytest.mark.parametrize("case", ["mean-field", "low-rank", "batches", "networks"])
def test_a_gpu_replays_a_recorded_step(case, tier, on_a_gpu):
    assert "cannot be recorded" not in on_a_gpu[f"device {tier}"][case]["reason"]


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("tier", ["traced", "interpreted", "compiled"])
def test_a_factor_that_fails_is_told_on_a_gpu(tier, on_a_gpu):
    found, expected = on_a_gpu[f"device {tier}"]["failing factor"], on_a_gpu["device eager"]["failing factor"]
    assert "after site 'z'" in expected["reason"]
    assert found["reason"] == expected["reason"]
    assert tier in found["tier"]


@pytest.mark.cuda
@needs_gpu
def test_a_fit_without_a_guide_is_trusted_on_a_gpu(on_a_gpu):
    assert on_a_gpu["ladder"] == {"verdict": "TRUST"}


@pytest.mark.cuda
@needs_gpu
def test_the_journey_on_a_gpu_ends_in_a_verdict(on_a_gpu):
    assert on_a_gpu["journey"].get("verdict") == "TRUST", on_a_gpu["journey"]
    assert abs(on_a_gpu["journey"]["read"] - on_a_gpu["journey"]["elbo"]) < 0.05
