"""Counts of cells from an AnnData object to a fit and back; here an object with its attributes, and AnnData itself where it is installed."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import vipack as vi
from vipack.vae import VAE, Cells, Labels
from vipack.vae.likelihoods import NegativeBinomial

N, G = 60, 12
GENES = [f"gene {i}" for i in range(G)]
DONORS = ["b", "a", "c"]


def annotated(rows=slice(None), **changes):
    generator = np.random.default_rng(0)
    counts = scipy.sparse.csr_matrix(generator.poisson(2.0, (N, G)).astype(np.float32))[rows]
    donors = pd.Series(np.array(DONORS)[np.arange(N) % 3])[rows].reset_index(drop=True)
    obs = pd.DataFrame({"donor": donors.astype("category")})
    whole = {"X": counts * 0.5, "layers": {"counts": counts}, "obs": obs, "obsm": {}, "var_names": pd.Index(GENES)}
    return SimpleNamespace(**{**whole, **changes})


OPTIONS = {"layer": "counts", "batch_key": "donor"}


@pytest.fixture(scope="module")
def cells():
    return Cells(annotated(), **OPTIONS)


@pytest.fixture(scope="module")
def fit(cells):
    torch.manual_seed(0)
    vae = VAE(
        likelihood=NegativeBinomial(G, library=True), num_latents=2, condition=Labels(len(cells.batches))
    ).initialize(*cells.data)
    return vi.fit(vae.model, vae.guide, data=cells.data, batch_size=20, steps=30, engine="eager")


def test_a_layer_and_the_numbers_of_sorted_batches_are_the_data(cells):
    counts, batches = cells.data
    assert (counts != cells.annotated.layers["counts"]).nnz == 0
    assert cells.batches == ("a", "b", "c")
    assert batches[:4].tolist() == [1, 0, 2, 1]
    assert str(cells) == "Cells(60 cells of 3 batches, 12 genes)"
    assert Cells(annotated()).data.dtype == np.float32


def test_embeddings_and_expected_counts_are_written_beside_the_cells(cells, fit):
    cells.embed(fit)
    np.testing.assert_array_equal(cells.annotated.obsm["X_vipack"], fit.encode(cells.data).mean["z"].numpy())
    cells.denoise(fit, "expected", num_draws=3)
    expected = cells.annotated.layers["expected"]
    assert expected.shape == (N, G)
    totals = np.asarray(cells.data[0].sum(1)).ravel()
    np.testing.assert_allclose(expected.sum(1), totals, rtol=1e-4)  # rates are shares of the cell's own total


def test_other_cells_are_read_by_the_names_of_genes_and_batches(cells, fit):
    order = np.random.default_rng(1).permutation(G)
    part = annotated(slice(1, 20, 3))  # of batch "a" alone, which has the number 0 by itself and here
    part.layers["counts"] = part.layers["counts"][:, order]
    part.var_names = pd.Index(GENES)[order]
    other = cells.like(part)
    assert other.genes == tuple(GENES)
    other.embed(fit, "X_z")
    np.testing.assert_allclose(part.obsm["X_z"], fit.encode(cells.data).mean["z"].numpy()[1:20:3], rtol=1e-5)
    last = cells.like(annotated(slice(2, 20, 3)))
    assert last.data[1].unique().tolist() == [2]


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({"var_names": pd.Index(["x"] * G)}, {}, vi.errors.DataError, "the gene 'x' occurs twice"),
        ({}, {"layer": "spliced"}, vi.errors.UsageError, "layer='spliced': there are the layers counts"),
        ({}, {"batch_key": "lab"}, vi.errors.UsageError, "batch_key='lab': obs has the columns donor"),
        ({"X": None}, {}, vi.errors.UsageError, "X is empty; pass layer="),
        ({"isbacked": True}, {}, vi.errors.UsageError, "in backed mode; pass it to vipack.stream"),
        (
            {"obs": pd.DataFrame({"donor": [None, *"ab" * 29, "a"]})},
            {"batch_key": "donor"},
            vi.errors.DataError,
            "1 cells have no 'donor'",
        ),
    ],
)
def test_what_is_wrong_is_named(changes, options, error, message):
    with pytest.raises(error, match=message):
        Cells(annotated(**changes), **options)


def test_what_is_no_annotated_matrix_is_named():
    with pytest.raises(vi.errors.UsageError, match="found a ndarray without X, layers, obs, obsm, var_names"):
        Cells(np.ones((3, 2)))


def test_other_genes_and_new_batches_are_named(cells):
    renamed = annotated(var_names=pd.Index([*GENES[:-1], "other"]))
    with pytest.raises(vi.errors.DataError, match="1 genes of the fit are not there, 'gene 11' among them"):
        cells.like(renamed)
    with pytest.raises(vi.errors.DataError, match="the batch 'new' is new; the fit knows a, b, c"):
        cells.like(annotated(obs=pd.DataFrame({"donor": ["new"] * N})))


def test_fits_of_other_sites_are_named(cells):
    def answer(*data):
        return SimpleNamespace(mean={"w": torch.zeros(N)})

    with pytest.raises(vi.errors.UsageError, match="no latent site 'z'; it has w"):
        cells.embed(SimpleNamespace(encode=answer))


def test_anndata_itself(fit):
    anndata = pytest.importorskip("anndata")
    plain = annotated()
    real = anndata.AnnData(plain.X, obs=plain.obs.set_index(plain.obs.index.astype(str)), layers=plain.layers)
    real.var_names = GENES
    cells = Cells(real, **OPTIONS)
    cells.embed(fit)
    cells.denoise(fit)
    assert real.obsm["X_vipack"].shape == (N, 2)
    assert real.layers["vipack"].shape == (N, G)
