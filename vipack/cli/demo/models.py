"""The demo's models and guides, in plain Pyro."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["INK", "NUM_TOPICS", "TOPIC_CONCENTRATION", "VAE", "centred", "lda", "mean_field_lda", "non_centred"]

NUM_TOPICS = 10
TOPIC_CONCENTRATION = 0.2  # of the Dirichlet over a topic's words
SHARE_CONCENTRATION = 0.2  # of the Dirichlet over a document's topics
INK = 16  # a pixel of the digits is a whole number from 0 to 16


def centred(y: Tensor, sigma: Tensor) -> None:
    """Eight schools with the effects drawn around their mean."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def non_centred(y: Tensor, sigma: Tensor) -> None:
    """The same, with the effects computed from standard normal ones."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def lda(counts: Tensor) -> None:
    """Latent Dirichlet allocation of word counts ``(D, V)``, the topics of single words summed out."""
    num_documents, num_words = counts.shape
    with pyro.plate("topic", NUM_TOPICS):
        words = pyro.sample("words", dist.Dirichlet(torch.full((num_words,), TOPIC_CONCENTRATION)))
    with pyro.plate("document", num_documents):
        shares = pyro.sample("shares", dist.Dirichlet(torch.full((NUM_TOPICS,), SHARE_CONCENTRATION)))
        # Documents differ in length, which Multinomial's own check of its counts does not expect.
        pyro.sample("counts", dist.Multinomial(probs=shares @ words, validate_args=False), obs=counts)


def mean_field_lda(num_documents: int, num_words: int) -> Callable[[Tensor], None]:
    """A Dirichlet for each topic and each document."""

    def random_topics() -> Tensor:  # unlike each other, or they would stay alike for ever
        return torch.randn(NUM_TOPICS, num_words).mul(0.5).exp()

    def guide(counts: Tensor) -> None:
        with pyro.plate("topic", NUM_TOPICS):
            topics = pyro.param("topics", random_topics, constraint=constraints.positive, event_dim=1)
            pyro.sample("words", dist.Dirichlet(topics))
        with pyro.plate("document", num_documents):
            start = torch.ones(num_documents, NUM_TOPICS)
            documents = pyro.param("documents", start, constraint=constraints.positive, event_dim=1)
            pyro.sample("shares", dist.Dirichlet(documents))

    return guide


class VAE(nn.Module):
    """A variational autoencoder of images of 64 pixels that count ink from 0 to 16."""

    def __init__(self, num_latents: int = 8, num_hidden: int = 256, num_pixels: int = 64) -> None:
        super().__init__()
        self.num_latents = num_latents
        self.encoder = _network(num_pixels, num_hidden, 2 * num_latents)
        self.decoder = _network(num_latents, num_hidden, num_pixels)

    def model(self, pixels: Tensor) -> None:
        """p(z) and p(x | z)."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("image", len(pixels)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([self.num_latents]).to_event(1))
            pyro.sample("pixels", dist.Binomial(INK, logits=self.decoder(z)).to_event(1), obs=pixels)

    def guide(self, pixels: Tensor) -> None:
        """q(z | x)."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("image", len(pixels)):
            loc, log_scale = self.encoder(pixels / INK).chunk(2, dim=-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def _network(num_inputs: int, num_hidden: int, num_outputs: int) -> nn.Module:
    first = [nn.Linear(num_inputs, num_hidden), nn.SiLU(), nn.Linear(num_hidden, num_hidden), nn.SiLU()]
    return nn.Sequential(*first, nn.Linear(num_hidden, num_outputs))
