"""A folder with a model, guides and data in it, where the commands run."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse

MODELS = '''
"""Models and guides for the command line."""
import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

def line(x, y, spread=1.0):
    slope = pyro.sample("slope", dist.Normal(0.0, 5.0))
    noise = pyro.sample("noise", dist.HalfNormal(spread))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(slope * x, noise), obs=y)

count = 0

def telling_line(x, y):
    global count
    count += 1
    if count == 200:  # far more than the preflight makes: training is under way
        open("training", "w").close()
    line(x, y)

def line_guide(x, y, spread=1.0):
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(0.1), constraint=constraints.positive)
    pyro.sample("slope", dist.Normal(loc, scale))
    pyro.sample("noise", dist.LogNormal(pyro.param("log_noise", torch.tensor(0.0)), scale))

def forgetful(x, y):
    slope = pyro.sample("slope", dist.Normal(0.0, 5.0))
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 1.0))

def schools(J, y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("school", J):
        pyro.sample("y", dist.Normal(mu, sigma), obs=y)

def counts(table):
    rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
    with pyro.plate("row", table.shape[0]):
        pyro.sample("table", dist.Poisson(rate).expand([table.shape[0], table.shape[1]]).to_event(1), obs=table.to_dense())

def wrong_guide(x, y, spread=1.0):
    pyro.sample("slope", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

class Class:
    def __call__(self, x):
        pass

NUMBER = 3
'''


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "models.py").write_text(MODELS)
    (folder / "broken.py").write_text("def model(x):\n    return x +\n")
    (folder / "missing_import.py").write_text("import pyro\n\nimport no_such_package\n\ndef model(x):\n    pass\n")
    (folder / "raises.py").write_text("settings = {}\nwidth = settings['width']\n\ndef model(x):\n    pass\n")
    (folder / "script.py").write_text("import sys\n\ndef model(x):\n    pass\n\nsys.exit('no arguments')\n")
    (folder / "neighbour.py").write_text("from models import line\n")
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = 2 * x + 0.5 * rng.normal(size=40)
    table = pd.DataFrame({"x": x, "y": y, "weight": np.abs(x), "name": "a"})
    table.to_csv(folder / "table.csv", index=False)
    table[["x", "y"]].to_csv(folder / "xy.csv", index=False)
    table[["x", "y"]].to_csv(folder / "xy.tsv", index=False, sep="\t")
    np.savez(folder / "xy.npz", x=x, y=y, spread=2.0)
    np.savez(folder / "unequal.npz", x=x, y=y[:30])
    np.savez(folder / "nan.npz", x=x, y=np.where(x > 1, np.nan, y))
    np.save(folder / "x.npy", x)
    (folder / "empty.csv").write_text("")
    (folder / "no_rows.csv").write_text("x,y\n")
    (folder / "schools.json").write_text(
        json.dumps({"J": 8, "y": [28, 8, -3, 7, -1, 1, 18, 12], "sigma": [15, 10, 16, 11, 9, 11, 10, 18]})
    )
    (folder / "list.json").write_text("[1, 2]")
    (folder / "cut_off.json").write_text('{"x": [1, 2')
    (folder / "ragged.json").write_text('{"x": [[1, 2], [3]]}')
    (folder / "nested.json").write_text('{"x": {"a": 1}}')
    (folder / "words.json").write_text('{"x": ["a", "b"], "y": [1, 2]}')
    (folder / "damaged.npz").write_bytes((folder / "xy.npz").read_bytes()[:100])
    np.save(folder / "hostile.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "notes.txt").write_text("nothing")
    sparse = scipy.sparse.csr_array(rng.poisson(0.5, (12, 4)).astype(float))
    scipy.sparse.save_npz(folder / "table.npz", sparse.tocsr())
    scipy.io.mmwrite(folder / "table.mtx", sparse)
    return folder


@pytest.fixture
def here(workplace, monkeypatch):
    """Commands run in the workplace."""
    monkeypatch.chdir(workplace)
    return workplace
