"""On an accelerator everything runs as on the host; one that only pretends to be one refuses the same mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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
    there, here = made[f"device {tier}"][case], made[f"host {tier}"][case]
    assert np.allclose(there["losses"], here["losses"], rtol=1e-4)
    assert here["tier"] == there["tier"] or case == "SVI", there["reason"]


@pytest.mark.parametrize("case", [case for case in CASES if case != "SVI"])
def test_parameters_stay_on_the_device(case, made):
    for tier in ("eager", "traced", "interpreted"):
        assert made[f"device {tier}"][case]["devices"] == ["pretend"]


def test_the_journey_ends_in_a_verdict_a_table_and_a_file_for_the_host(made):
    journey = made["journey"]
    assert journey["verdict"] == "TRUST"
    assert journey["ranks"]["full-rank"] == 0
    assert abs(journey["read"] - journey["elbo"]) < 0.05
    assert {"posterior", "log_likelihood", "observed_data"} <= set(journey["groups"])
    assert journey["predicted"] == [20, 30]
    assert journey["resumed"] == 610


def test_a_tensor_that_the_program_holds_elsewhere_is_an_error_with_the_cure(made):
    assert "same device" in made["refused"]
    assert "pass it in data or fixed" in made["refused"]


@pytest.mark.slow
def test_a_fit_without_a_guide_is_trusted_on_a_device(pretend, tmp_path):
    assert run(pretend, tmp_path, "ladder")["ladder"] == "TRUST"


# --- on a GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def on_a_gpu(tmp_path_factory):
    return run("cuda", tmp_path_factory.mktemp("cuda"), "tiers", "journey")


@pytest.mark.cuda
@needs_gpu
@pytest.mark.parametrize("tier", ["traced", "interpreted", "compiled"])
@pytest.mark.parametrize("case", CASES)
def test_a_gpu_gives_one_stream_of_losses_in_every_tier(case, tier, on_a_gpu):
    found, expected = on_a_gpu[f"device {tier}"][case], on_a_gpu["device eager"][case]
    if case != "restarts":  # whose eager run is one start
        assert np.allclose(found["losses"], expected["losses"], rtol=1e-4)
    assert found["tier"] == tier, found["reason"]


@pytest.mark.cuda
@needs_gpu
def test_a_gpu_replays_a_recorded_step(on_a_gpu):
    for tier in ("interpreted", "compiled"):
        assert "cannot be recorded" not in on_a_gpu[f"device {tier}"]["mean-field"]["reason"]


@pytest.mark.cuda
@needs_gpu
def test_the_journey_on_a_gpu_ends_in_a_verdict(on_a_gpu):
    assert on_a_gpu["journey"]["verdict"] == "TRUST"
    assert abs(on_a_gpu["journey"]["read"] - on_a_gpu["journey"]["elbo"]) < 0.05
