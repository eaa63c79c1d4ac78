"""Counts as a SciPy sparse matrix train a built VAE and are judged and encoded as the same counts in a tensor are."""

import pytest
import scipy.sparse
import torch

import vipack as vi
from vipack.vae.likelihoods import NegativeBinomial

X = torch.poisson(torch.full((60, 12), 0.5), generator=torch.Generator().manual_seed(0))
CSR = scipy.sparse.csr_matrix(X.numpy())

ANSWERS = {
    "encode": lambda fit, data: fit.encode(data).mean["z"],
    "reconstruct": lambda fit, data: fit.reconstruct(data)["x"],
    "log_evidence": lambda fit, data: torch.from_numpy(fit.log_evidence(20, data=data).rows),
    "elbo": lambda fit, data: torch.from_numpy(fit.elbo(5, data=data).rows),
    "predict": lambda fit, data: torch.as_tensor(fit.predict(5, data=data)["x"]),
}


def fitted(data):
    torch.manual_seed(0)
    vae = vi.vae.VAE(likelihood=NegativeBinomial(12), num_latents=2).initialize(data)
    return vi.fit(vae.model, vae.guide, data=data, batch_size=20, steps=10, progress=False)


@pytest.fixture(scope="module")
def fits():
    return fitted(CSR), fitted(X)


def test_losses_are_those_of_a_tensor(fits):
    sparse, dense = fits
    assert sparse.losses == pytest.approx(dense.losses, rel=1e-5)


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_for_new_sparse_rows_are_those_of_a_tensor(fits, name):
    sparse, dense = fits
    torch.testing.assert_close(ANSWERS[name](sparse, CSR[:30]), ANSWERS[name](dense, X[:30]), rtol=1e-4, atol=1e-5)
