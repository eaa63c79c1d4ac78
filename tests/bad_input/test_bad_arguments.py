"""Options and data that no fit can use: each is refused by name, before a step."""

import functools

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import vipack as vi
from tests.bad_input.refusal import Case, assert_fit_is_refused, assert_refused
from vipack.errors import (
    DataError,
    DtypeError,
    ModelError,
    OptimizerError,
    ShapeError,
    SignatureError,
    SiteError,
    UsageError,
)

N = 20
X = torch.linspace(-1, 1, N)
Y = 2 * X


def regression(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


def normal(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def coin(x):
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(p), obs=x)


def matrix(x, y):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def scaled(x, scale=1.0):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, scale), obs=x)


def one_number(x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(w, 1.0), obs=x)


class Empty(Dataset):
    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError


class Endless(IterableDataset):
    def __iter__(self):
        yield from X


def replaced(values, index, value):
    values = values.clone()
    values[index] = value
    return values


def broken_matrix():
    matrix = scipy.sparse.eye_array(3).tocsr()
    matrix.indices[0] = 99
    return matrix


def fit(**options):
    return lambda: {"model": regression, "guide": AutoNormal, "data": (X, Y), **options}


def of(data, model=normal, **options):
    return lambda: {"model": model, "guide": AutoNormal, "data": data() if callable(data) else data, **options}


NAN, INF = float("nan"), float("inf")
TEXT = pd.DataFrame({"x": [1.0, 2.0], "name": ["a", "b"]})

OPTIONS = [
    Case("batch_size above N", UsageError, ("batch_size: 21", "20 rows", "leave it out"), fit(batch_size=21)),
    Case("batch_size zero", UsageError, ("batch_size", "positive integer", "found 0"), fit(batch_size=0)),
    Case("batch_size negative", UsageError, ("batch_size", "positive integer", "found -1"), fit(batch_size=-1)),
    Case("batch_size True", UsageError, ("batch_size", "positive integer", "found True"), fit(batch_size=True)),
    Case("batch_size a fraction", UsageError, ("batch_size", "positive integer", "found 2.5"), fit(batch_size=2.5)),
    Case("steps negative", UsageError, ("steps", "at least 0", "found -1"), fit(steps=-1)),
    Case("steps a fraction", UsageError, ("steps", "integer", "found 2.5"), fit(steps=2.5)),
    Case("steps True", UsageError, ("steps", "integer", "found True"), fit(steps=True)),
    Case("epochs negative", UsageError, ("epochs", "at least 0", "found -2"), fit(steps=None, epochs=-2)),
    Case("steps and epochs", UsageError, ("steps=3", "epochs=2", "one of them"), fit(steps=3, epochs=2)),
    Case("seed negative", UsageError, ("seed", "integer from 0", "found -1"), fit(seed=-1)),
    Case("seed a fraction", UsageError, ("seed", "integer from 0", "found 1.5"), fit(seed=1.5)),
    Case("seed None", UsageError, ("seed", "integer from 0", "found None"), fit(seed=None)),
    Case("engine unknown", UsageError, ("engine", "'auto', 'eager'", "'gpu'"), fit(engine="gpu")),
    Case("device unknown", UsageError, ("device", "'abacus'", "pass 'cpu'"), fit(device="abacus")),
    Case("device a fraction", UsageError, ("device", "3.5", "pass 'cpu'"), fit(device=3.5)),
    Case("dtype text", DtypeError, ("dtype", "torch.float32 or torch.float64", "'float64'"), fit(dtype="float64")),
    Case("dtype an integer type", DtypeError, ("dtype", "torch.float32", "torch.int64"), fit(dtype=torch.int64)),
    Case("dtype float16", DtypeError, ("dtype", "torch.float32", "torch.float16"), fit(dtype=torch.float16)),
    # loss and optimizer
    Case("loss a class", UsageError, ("loss: Trace_ELBO is a class", "loss=Trace_ELBO()"), fit(loss=Trace_ELBO)),
    Case("loss text", UsageError, ("loss", "'elbo'", "Trace_ELBO("), fit(loss="elbo")),
    Case("loss of a regression", UsageError, ("loss", "MSELoss", "Trace_ELBO("), fit(loss=torch.nn.MSELoss())),
    Case("optim text", OptimizerError, ("optim", "'adam'", "pyro.optim.Adam({'lr': 0.01})"), fit(optim="adam")),
    Case("optim a number", OptimizerError, ("optim", "0.01", "pyro.optim.Adam({'lr': 0.01})"), fit(optim=0.01)),
    Case("optim a torch optimizer", OptimizerError, ("optim", "already holds", "functools.partial(torch.optim.Adam"),
         fit(optim=torch.optim.Adam([torch.zeros(1, requires_grad=True)]))),
    Case("optim made rubbish", OptimizerError, ("optim", "gave a str", "torch.optim.Optimizer"),
         fit(optim=lambda params: "rubbish")),
    Case("optim that raises", OptimizerError, ("optim", "ZeroDivisionError", "options"), fit(optim=lambda params: 1 / 0)),
    Case("optim of Pyro's, not called", OptimizerError, ("optim", "pyro.optim.Adam({'lr': 0.01})"), fit(optim=pyro.optim.Adam)),
    Case("optim with an unknown option", OptimizerError, ("optim", "learning_rate", "options"),
         fit(optim=pyro.optim.Adam({"learning_rate": 0.1}))),
    Case("optim with a negative rate", OptimizerError, ("optim", "Invalid learning rate", "options"),
         fit(optim=functools.partial(torch.optim.Adam, lr=-1.0))),
    Case("optim that needs a closure", OptimizerError, ("optim", "closure"), fit(optim=torch.optim.LBFGS)),
    # what watches a run
    Case("stop a number", UsageError, ("stop", "found 100", "steps="), fit(stop=100)),
    Case("stop a class", UsageError, ("stop", "Converged", "vipack.Converged()"), fit(stop=vi.Converged)),
    Case("progress a word", UsageError, ("progress", "True, False or None", "'yes'"), fit(progress="yes")),
    Case("progress a number", UsageError, ("progress", "True, False or None", "found 1"), fit(progress=1)),
    Case("stop a list with None", UsageError, ("stop", "found None", "vipack.Converged()"), fit(stop=[None])),
    Case("callbacks text", UsageError, ("callbacks", "'print'", "functions of a Progress"), fit(callbacks="print")),
    Case("checkpoint in no folder", UsageError, ("checkpoint", "does not exist", "make it first"),
         fit(checkpoint="/no/such/folder/run.fit")),
    Case("checkpoint a number", UsageError, ("checkpoint", "a path", "found 3"), fit(checkpoint=3)),
]  # fmt: skip

DATA = [
    # how arguments are given
    Case("a list", DataError, ("data: found a list", "tuple", "torch.tensor"), of([1.0, 2.0])),
    Case("a list inside a tuple", DataError, ("data[1]", "list", "torch.tensor"), fit(data=(X, [1.0] * N))),
    Case("text", DataError, ("data: found a str", "read the file"), of("data.csv")),
    Case("a generator", DataError, ("data: found a generator", "numpy.array"), of(lambda: (i for i in range(3)))),
    Case("None for an argument", ModelError, ("None", "by hand"), of((None,))),
    Case("too few", SignatureError, ("model takes (x, y)", "'y'"), fit(data=X)),
    Case("too many", SignatureError, ("model takes (x, y)", "too many"), fit(data=(X, Y, Y))),
    Case("fixed a list", UsageError, ("fixed", "dict", "list"), fit(fixed=[1])),
    Case("fixed and data clash", UsageError, ("'y'", "both data and fixed", "once"),
         fit(data={"x": X, "y": Y}, fixed={"y": Y})),
    Case("fixed and a position clash", SignatureError, ("model takes (x, y)", "'y'"), fit(fixed={"y": Y})),
    Case("fixed that the model does not take", SignatureError, ("model takes (x, y)", "'z'"), fit(fixed={"z": 1})),
    # rows
    Case("ragged in batches", DataError, ("batch_size", "data[0]: 20", "data[1]: 19", "fixed={"),
         fit(data=(X, Y[1:]), batch_size=5)),
    Case("ragged", ShapeError, ("'y'", "19", "20"), fit(data=(X, Y[1:]))),
    Case("a scalar in batches", DataError, ("data[1]", "no rows", "fixed={"),
         of((X, torch.tensor(1.0)), scaled, batch_size=5)),
    Case("a number in batches", DataError, ("data['scale']", "no rows", "fixed={"),
         of({"x": X, "scale": 1.0}, scaled, batch_size=5)),
    Case("no data in batches", DataError, ("batch_size", "no arrays"), of((), batch_size=5)),
    Case("empty", DataError, ("data: is empty", "at least one"), of(torch.empty(0))),
    Case("empty columns", DataError, ("data: is empty", "(3, 0)"), of(np.empty((3, 0)))),
    Case("empty sparse", DataError, ("data: is empty", "(0, 5)"), of(scipy.sparse.csr_matrix((0, 5)))),
    Case("a sparse matrix with a column that is not there", DataError, ("data: is no valid sparse", "make it anew"),
         of(broken_matrix)),
    Case("empty data frame", DataError, ("data: is empty", "at least one"), of(lambda: TEXT[["x"]][:0])),
    Case("empty Dataset", DataError, ("Empty is empty", "at least one"), of(Empty)),
    Case("Dataset without a length", DataError, ("Endless has no length", "map-style"), of(Endless)),
    Case("DataLoader and batch_size", UsageError, ("batch_size=5", "DataLoader", "leave batch_size out"),
         of(lambda: DataLoader(TensorDataset(X), batch_size=5), batch_size=5)),
    # values
    Case("NaN in the response", DataError, ("'y'", "1 NaN or infinite", "obs_mask"), fit(data=(X, replaced(Y, 3, NAN)))),
    Case("infinity in the response", DataError, ("'y'", "1 NaN or infinite", "remove"), fit(data=(X, replaced(Y, 3, INF)))),
    Case("NaN in a covariate", DataError, ("'x'", "1 NaN or infinite", "impute"), fit(data=(replaced(X, 3, NAN), Y))),
    Case("NaN in a later batch", DataError, ("'y'", "1 NaN or infinite", "impute"),
         fit(data=(X, replaced(Y, 3, NAN)), batch_size=4)),
    Case("NaN in fixed", DataError, ("argument 'scale'", "1 NaN or infinite", "impute"),
         of(X, scaled, fixed={"scale": torch.tensor(NAN)})),
    Case("NaN from NumPy", DataError, ("'x'", "1 NaN or infinite", "impute"), of(np.array([1.0, np.nan]))),
    Case("NaN from pandas", DataError, ("'x'", "1 NaN or infinite", "impute"), of(pd.Series([1.0, None]))),
    Case("an observed value that is no tensor", SiteError, ("'x'", "float", "torch.as_tensor"), of((1.0,), one_number)),
    # types
    Case("float32 with float64", DtypeError, ("data[0] is torch.float32", "data[1] is torch.float64", "dtype=torch.float64"),
         fit(data=(X, Y.double()))),
    Case("float16", DtypeError, ("data is torch.float16", "too coarse", "dtype=torch.float32"), of(X.half())),
    Case("complex", DtypeError, ("data", "complex", "real and imaginary"), of(X + 0j)),
    Case("complex from NumPy", DtypeError, ("data", "complex", "real and imaginary"), of(X.numpy() + 0j)),
    Case("integers where the model wants floats", ModelError, ("x @ w", "dtype"),
         of((torch.ones(N, 2, dtype=torch.int64), Y), matrix)),
    Case("booleans where the model wants floats", DtypeError, ("site 'x'", "Bernoulli", "torch.bool", ".float()"),
         of(X > 0, coin)),
    Case("integers where the likelihood wants floats", DtypeError, ("'x'", "Bernoulli", "torch.int64", ".float()"),
         of(np.array([0, 1, 1]), coin)),
    Case("an array of objects", DataError, ("data", "object", "not numeric", "pandas.factorize"),
         of(np.array([1, None], dtype=object))),
    Case("an array of text", DataError, ("data", "not numeric", "pandas.factorize"), of(np.array(["a", "b"]))),
    Case("an array of dates", DataError, ("data", "datetime64", "not numeric"), of(np.array(["2020-01-01"], dtype="M8"))),
    Case("a data frame with text", DataError, ("data", "column", "'name'", "pandas.factorize"), of(TEXT)),
    Case("a pandas category", DataError, ("data", "not numeric", "pandas.factorize"),
         of(pd.Series(["a", "b"], dtype="category"))),
    Case("a masked array", DataError, ("data", "masked", "obs_mask="), of(np.ma.masked_less(np.arange(3.0), 1))),
    Case("ragged rows", DataError, ("data", "object", "not numeric"),
         of(np.array([np.ones(2), np.ones(3)], dtype=object))),
    Case("fixed with text arrays", DataError, ("fixed['scale']", "not numeric"),
         of(X, scaled, fixed={"scale": np.array(["a"])})),
]  # fmt: skip


@pytest.mark.parametrize("case", [*OPTIONS, *DATA], ids=str)
def test_nothing_is_trained_and_the_cure_is_said(case, monkeypatch, capfd):
    assert_fit_is_refused(case, monkeypatch, capfd)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vi.TimeLimit(-3), ("TimeLimit", "positive", "-3")),
        (lambda: vi.TimeLimit("1 h"), ("TimeLimit", "seconds", "'1 h'")),
        (lambda: vi.Converged(tolerance=-1.0), ("tolerance", "at least 0", "-1.0")),
        (lambda: vi.Converged(min_steps=5), ("min_steps", "at least 30", "5")),
        (lambda: vi.Every(0, print), ("Every", "positive integer", "0")),
        (lambda: vi.Checkpoint("x", every_steps=0), ("every_steps", "positive integer", "0")),
        (lambda: vi.Checkpoint("x", every_seconds=-1), ("every_seconds", "positive", "-1")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_setting_out_of_range_is_refused_when_it_is_made(make, words, capfd):
    assert_refused(UsageError, words, make, capfd)
