"""Pictures of an autoencoder: what stands where, and one clear error for what cannot be drawn."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import vipack as vi
from vipack.errors import DataError, UsageError
from vipack.vae.pictures import latent_map, report, sheet, traverse


class Pair(nn.Module):
    """Three latents, of which the first is the mean of the nine pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(3, 9)
        self.decoder.weight.data = torch.zeros(9, 3)
        self.decoder.weight.data[:, 0] = 1.0

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.1).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor([0.033, 1.0, 1.0]))
        with pyro.plate("data", len(x)):
            loc = torch.stack([x.mean(-1), 0 * x[:, 0], 0 * x[:, 0]], -1)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, generator=generator) + 0.1 * torch.randn(count, 9, generator=generator)


@pytest.fixture(scope="module")
def fit() -> vi.Fit:
    pair = Pair()
    with torch.no_grad():
        return vi.fit(pair.model, pair.guide, data=images(120, 1), steps=0)


def test_decoding_is_the_models_mean(fit):
    z = torch.tensor([[1.0, 5.0, -5.0], [-2.0, 0.0, 0.0]])
    bias = fit.params["decoder$$$bias"]
    torch.testing.assert_close(fit.decode(z)["x"], z[:, :1] + bias)
    torch.testing.assert_close(fit.decode({"z": z.numpy()})["x"], z[:, :1] + bias)
    many = torch.randn(2_500, 3)
    torch.testing.assert_close(fit.decode(many)["x"], many[:, :1] + bias)


@pytest.mark.parametrize(
    ("latents", "said"),
    [
        (torch.zeros(4, 2), r"'z' has shape \(3,\).*\(4, 2\)"),
        ({"y": torch.zeros(4, 3)}, "expected values of 'z', found 'y'"),
        ({}, "found none"),
    ],
)
def test_latents_that_do_not_fit_are_told(fit, latents, said):
    with pytest.raises(UsageError, match=said):
        fit.decode(latents)


@pytest.mark.parametrize("shape", [(5, 9), (5, 3, 3), (5, 1, 3, 3), (5, 3, 3, 3)])
def test_sheets_take_every_layout(shape):
    values = torch.rand(shape)
    ax = sheet(values, columns=2)
    page = np.asarray(ax.images[0].get_array())
    assert page.shape[:2] == (11, 7)  # three rows and two columns of three, a pixel between
    colour = shape[-3:] == (3, 3, 3) and len(shape) == 4
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low)
    first = np.moveaxis(np.asarray(scaled[1]), 0, -1) if colour else 1 - np.asarray(scaled[1]).reshape(3, 3)
    np.testing.assert_allclose(page[:3, 4:7], first, atol=1e-6)


def test_images_of_no_known_layout_are_told():
    with pytest.raises(DataError, match="8 pixels are no squares"):
        sheet(torch.zeros(2, 8))
    assert sheet(torch.zeros(2, 8), shape=(2, 4)).images
    with pytest.raises(DataError, match="1 or 3 channels"):
        sheet(torch.zeros(2, 5, 4, 4))


def test_maps_have_a_colour_a_label(fit):
    labels = torch.arange(40) % 3
    ax = latent_map(fit.encode(images(40, 2)), labels)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1", "2"]
    assert sum(len(points.get_offsets()) for points in ax.collections) == 40
    assert latent_map(torch.randn(20, 2)).get_legend() is None
    with pytest.raises(DataError, match="at least 2"):
        latent_map(torch.randn(20, 1))
    with pytest.raises(DataError, match="one an observation"):
        latent_map(torch.randn(20, 2), torch.zeros(3))


def test_traversals_move_one_dimension_at_a_time(fit):
    ax = traverse(fit, torch.zeros(3), [0, 1], steps=5)
    page = np.asarray(ax.images[0].get_array())
    assert page.shape == (7, 19)
    top, bottom = page[1, ::4], page[5, ::4]
    assert (np.diff(top) < 0).all()  # brighter values are darker ink
    assert np.ptp(bottom) < 1e-6
    with pytest.raises(UsageError, match="one latent"):
        traverse(fit, torch.zeros(2, 3))


def test_a_page_stands_alone(fit, tmp_path):
    path = tmp_path / "page.html"
    figure = report(fit, images(80, 3), path, labels=torch.arange(80) % 2, title="Nine <pixels>")
    text = path.read_text()
    assert "Nine &lt;pixels&gt;" in text
    assert "data:image/png;base64," in text
    for said in ("log p(x)", "mutual information", "no copies"):
        assert said in text
    titles = [ax.get_title("left") for ax in figure.axes]
    assert any("nearest training image" in title for title in titles)
    report(fit, images(80, 3), tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    with pytest.raises(UsageError, match="does not exist"):
        report(fit, images(80, 3), tmp_path / "nowhere" / "page.html")


def test_what_is_conditioned_on_must_be_possible():
    """Labels that there are none of gave images of zeros, or torch's own error."""
    torch.manual_seed(0)
    networks = vi.vae.networks.MLP(9 + 3, (8,)), vi.vae.networks.MLP(2 + 3, (8,))
    bernoulli = vi.vae.likelihoods.Bernoulli(9)
    vae = vi.vae.VAE(*networks, likelihood=bernoulli, num_latents=2, condition=vi.vae.Labels(3))
    fit = vi.fit(vae.model, vae.guide, data=(torch.ones(6, 9), torch.arange(6) % 3), steps=0)
    assert fit.generate(data={"y": torch.tensor([2, 0])})["x"].shape == (2, 9)
    labels = {"y": torch.tensor([1, 7])}
    with pytest.raises(vi.errors.SupportError, match=r"labels from 0 to 2, found \[7\]"):
        fit.generate(data=labels)
    with pytest.raises(vi.errors.SupportError, match=r"labels from 0 to 2, found \[7\]"):
        fit.decode(torch.zeros(2, 2), data=labels)
    with pytest.raises(UsageError, match="'z' has values that are not finite"):
        fit.decode(torch.full((1, 2), torch.nan))
