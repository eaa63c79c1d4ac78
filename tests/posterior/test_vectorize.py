"""What many draws are computed from, chunk by chunk."""

import pytest
import torch

import vipack as vi
from tests.posterior.linear_vae import TrainedEncoder, observations
from vipack.posterior import posterior as module
from vipack.posterior.vectorize import joined


def chunks(sizes):
    start = 0
    for size in sizes:
        values = torch.arange(start, start + size)
        yield {"z": values[:, None].expand(size, 2), "none": {}}, (values.double(),)
        start += size


@pytest.mark.parametrize("sizes", [[7], [3, 3, 1], [1] * 7])
def test_chunks_are_joined_in_order(sizes):
    latents, (densities,) = joined(chunks(sizes), 7)
    assert latents["none"] == {}
    assert latents["z"][:, 1].tolist() == densities.tolist() == list(range(7))
    assert densities.dtype == torch.float64


def test_chunks_may_come_empty():
    assert joined(({} for _ in range(3)), 7) == {}


def test_no_pass_has_more_numbers_than_it_may_and_free_memory_is_returned_after_each(monkeypatch):
    returned, sizes = [], []
    monkeypatch.setattr(module, "return_free_memory", lambda: returned.append(1))
    vae = TrainedEncoder()
    fit = vi.fit(vae.model, vae.guide, data=observations(500, 0), batch_size=50, steps=0)
    run = module.Posterior._draw_guide

    def counted(posterior, num_draws, *others):
        sizes.append(num_draws * posterior.numbers)
        return run(posterior, num_draws, *others)

    monkeypatch.setattr(module.Posterior, "_draw_guide", counted)
    fit.log_evidence(2_000, progress=False)
    assert len(sizes) == len(returned) > 1
    assert max(sizes) <= module._ELEMENTS_AT_ONCE
