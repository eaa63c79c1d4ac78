"""The adapter with ArviZ 1.x, in an interpreter of its own: it needs Python >= 3.12 and no torch.

VIPACK_ARVIZ1_PYTHON names that interpreter; without it, the environment .venv-arviz1 that arviz1_environment.sh makes;
without that, arviz-base and arviz-stats here, of which ArviZ 1.x is made.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import arviz as az
import numpy as np
import pytest

import vipack
from tests.export import models
from vipack.export.variables import SAMPLE_DIMS
from vipack.importance import importance

ROOT = Path(vipack.__file__).parent.parent


@pytest.fixture(scope="module")
def data():
    # The two ArviZ round the length of the tail, 3 sqrt(S), up and down; of 400 draws there is nothing to round.
    return models.eight_schools().to_arviz(400, seed=5, prior=30, coords={"school": list("ABCDEFGH")})


@pytest.fixture(scope="module")
def outcome(data, tmp_path_factory):
    """The script's report and the values in its container."""
    folder = tmp_path_factory.mktemp("arviz1")
    save(data, folder / "groups.npz")
    python, stand_in = interpreter()
    script, module = Path(__file__).with_name("arviz1_adapter.py"), ROOT / "vipack/importance.py"
    done = subprocess.run(
        [python, script, folder / "groups.npz", module, folder / "out.npz", *stand_in],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), dict(np.load(folder / "out.npz"))


def interpreter() -> tuple[str, list[str]]:
    named = os.environ.get("VIPACK_ARVIZ1_PYTHON")
    if named:
        return named, []
    own = ROOT / ".venv-arviz1/bin/python"
    return (str(own), []) if own.exists() else (sys.executable, ["arviz-base"])


def save(data, path: Path) -> None:
    layout, arrays = {}, {}
    for group in data.groups():
        layout[group] = {}
        for name, variable in data[group].data_vars.items():
            sampled = variable.dims[:2] == SAMPLE_DIMS
            labels = {dim: data[group][dim].values.tolist() for dim in variable.dims if dim not in SAMPLE_DIMS}
            layout[group][name] = [variable.dims[2:] if sampled else variable.dims, sampled, labels]
            arrays[f"{group}|{name}"] = variable.values
    np.savez(path, layout=json.dumps(layout), **arrays)


def test_the_container_is_a_data_tree_of_the_same_groups_and_dimensions(data, outcome):
    report, _ = outcome
    assert report["arviz"].startswith("1")
    assert report["imported"] == []
    assert report["container"] == "xarray.DataTree"
    assert report["attrs"] == {"inference_library": "vipack"}
    expected = {g: {n: list(v.dims) for n, v in data[g].data_vars.items()} for g in data.groups()}
    assert report["dims"] == expected
    assert report["labels"] == {"school": list("ABCDEFGH")}


def test_the_values_are_those_that_went_in(data, outcome):
    _, values = outcome
    assert set(values) == {f"{group}|{name}" for group in data.groups() for name in data[group].data_vars}
    for key, found in values.items():
        group, name = key.split("|")
        np.testing.assert_array_equal(found, data[group][name].values)


def test_the_groups_equal_those_of_arviz_from_dict(outcome):
    assert all(outcome[0]["as_from_dict"].values()), outcome[0]["as_from_dict"]


def test_summary_and_loo_of_1x_read_the_tree(data, outcome):
    report, _ = outcome
    assert len(report["summary"]) == 18
    assert report["elpd_loo"] == pytest.approx(float(az.loo(data).elpd_loo), rel=1e-6)


def test_khat_is_the_same_with_either_arviz_and_without_torch(data, outcome):
    report, _ = outcome
    here = importance(data.sample_stats.log_weight.values[0])
    theirs, ours = report["khat"]
    assert ours == theirs
    assert report["smoothed_differ_by"] < 1e-9
    assert ours == pytest.approx(here.khat, rel=1e-6)
    assert report["ess"] == pytest.approx(here.ess, rel=1e-6)


def test_weights_without_a_tail_to_fit_have_infinite_khat_with_either_arviz(data, outcome):
    report, _ = outcome
    log_weights = data.sample_stats.log_weight.values[0]
    assert report["khat_of_few"] == importance(log_weights[:20]).khat == np.inf
    assert report["khat_of_even_tail"] == importance(np.minimum(log_weights, np.median(log_weights))).khat == np.inf
