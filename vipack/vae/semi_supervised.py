"""The semi-supervised variational autoencoder: labels that only some observations have, and a classifier learned from all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from vipack.errors import DataError, UsageError
from vipack.hints import checked_class
from vipack.training import Fit
from vipack.vae.autoencoder import Autoencoder, expect, tensor_of
from vipack.vae.coders import Decoder, Encoder, joined, output_shape
from vipack.vae.conditions import PartialLabels
from vipack.vae.likelihoods import Likelihood
from vipack.vae.networks import MLP
from vipack.vae.posteriors import DiagonalNormal, Posterior
from vipack.vae.priors import Prior, StandardNormal

__all__ = ["SemiSupervisedVAE", "oversampled"]

_CERTAIN = 100.0  # logit of a label that is known: the others have a probability of zero, and finite logs
_MOST_ROWS = 1_000  # to classify at a time


@checked_class
@final
class SemiSupervisedVAE(Autoencoder):
    """A label and a style for each observation: ``label ~ p(label)``, ``z ~ p(z)``, ``x ~ p(x | z, label)`` (M2).

    The guide is a classifier ``q(label | x)`` and an encoder ``q(z | x, label)``. The argument ``y`` of both holds the labels,
    -1 where one is missing. A label that is known is what ``label`` is, in model and guide; one that is missing is summed out by
    ``loss=TraceEnum_ELBO(max_plate_nesting=1)``. Known labels train the classifier by a site ``classified``, which, as dropout,
    is there in training alone: ``fit.elbo()`` and ``fit.log_evidence()`` are of p(x), and of p(x | label) where it is known.

    Args:
        encoder: a module from ``likelihood.features(x)`` to features, which the label joins before the last layer.
        decoder: a module from z and one indicator a class, ``num_latents + num_classes`` numbers, to features.
        classifier: a module from ``likelihood.features(x)`` to features; the last layer, for logits, is made here.
        num_classes: labels are 0 to ``num_classes - 1``.
        class_probs: p(label), equal by default.
        alpha: the weight of log q(label | x) of an observation with a label, beside the bounds of all observations, in nats.
        prior, posterior, head: as for :class:`VAE`.

    Raises:
        ShapeError: a network cannot be run on what it is given, or the decoder's output does not fit x.

    Source: Kingma et al. (2014), arXiv:1406.5298, equations 6 to 9; M1+M2 is this model of the encodings of a :class:`VAE`.
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        classifier: nn.Module | None = None,
        *,
        likelihood: Likelihood,
        num_latents: int,
        num_classes: int,
        class_probs: Sequence[float] | None = None,
        alpha: float = 50.0,
        prior: Prior | None = None,
        posterior: Posterior | None = None,
        head: bool = True,
    ) -> None:
        super().__init__()
        name = "SemiSupervisedVAE"
        expect(name, "likelihood", likelihood, Likelihood, "Bernoulli(784)")
        expect(name, "prior", prior, Prior | None, "MixturePrior(20)")
        expect(name, "posterior", posterior, Posterior | None, "FullNormal()")
        for option, value in (("num_latents", num_latents), ("num_classes", num_classes)):
            least = 2 if option == "num_classes" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(f"{name}: {option} must be an integer of at least {least}, found {value!r}.")
        if not 0 <= alpha < math.inf:
            raise UsageError(f"{name}: alpha must be a number of at least 0, found {alpha!r}.")
        if prior is not None and (prior.reads_inputs or not prior.proper):
            given = type(prior).__name__
            raise UsageError(f"{name}: {given} is a prior of a VAE without labels; take MixturePrior or FlowPrior.")
        self.likelihood, self.num_latents, self.num_classes, self.alpha = likelihood, num_latents, num_classes, alpha
        self.condition = self._labels = PartialLabels(num_classes)
        inputs = likelihood.feature_shape
        encoder, classifier = (MLP(math.prod(inputs)) if each is None else each for each in (encoder, classifier))
        decoder = MLP(num_latents + num_classes) if decoder is None else decoder
        self.encoder = Encoder(
            encoder, DiagonalNormal() if posterior is None else posterior, inputs, num_latents, num_classes
        )
        self.decoder = Decoder(decoder, likelihood, num_latents + num_classes, head)
        last = nn.Linear(math.prod(output_shape("classifier", classifier, inputs)), num_classes)
        nn.init.zeros_(last.bias)
        self.classifier = nn.Sequential(classifier, nn.Flatten(), last)
        self.prior = StandardNormal() if prior is None else prior
        self.prior.build(num_latents)
        self.register_buffer("log_probs", _log_probs(class_probs, num_classes))

    log_probs: Tensor

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """See :class:`Autoencoder`.

        Args:
            y: labels ``(N,)``, -1 where missing; None where all are.
        """
        x, known = self.read(x, y)
        assert known is not None
        pyro.module("decoder", self.decoder)
        self.prior.register()
        with pyro.plate("data", len(x)):
            label = self._draw(self.log_probs.to(known.dtype).expand(known.shape), known)
            z = pyro.sample("z", self.prior())
            # A label that is no class is NaN in `known`, and makes x what no step takes.
            self.observe(joined(z, self._indicators(label, x) + 0 * known), x, y)
            if self.classifier.training and self.alpha:
                pyro.module("classifier", self.classifier)
                logits = self.classifier(self.likelihood.features(x))
                with poutine.mask(mask=known.sum(-1) > 0), poutine.scale(scale=self.alpha):
                    pyro.sample("classified", dist.Categorical(logits=logits), obs=known.argmax(-1))

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """See :class:`Autoencoder`."""
        x, known = self.read(x, y)
        assert known is not None
        pyro.module("encoder", self.encoder)
        pyro.module("classifier", self.classifier)
        features = self.likelihood.features(x)
        with pyro.plate("data", len(x)):
            label = self._draw(self.classifier(features), known)
            pyro.sample("z", self.encoder(features, self._indicators(label, x)))

    def classify(self, fit: Fit, x: Any) -> Tensor:
        """q(label | x): the probability of each class, ``(N, num_classes)``, by the weights of `fit`.

        Args:
            x: ``(N, *likelihood.shape)``; NumPy arrays will do.

        Raises:
            UsageError: `fit` is of another model.
            ShapeError, SupportError: as of :meth:`check_data`.
        """
        if "label" not in {site.name for site in fit.posterior.table}:
            raise UsageError(
                "classify: expected a fit of this model, vi.fit(vae.model, vae.guide, ...); it has no site 'label'."
            )
        x = tensor_of(x, next(self.decoder.parameters()).dtype)
        self.check_data(x)
        probs = []
        for block in x.split(_MOST_ROWS):
            with torch.no_grad(), pyro.validation_enabled(False):
                trace = poutine.trace(fit.guide).get_trace(block)
            probs.append(trace.nodes["label"]["fn"].probs)
        return torch.cat(probs)

    def encode(self, x: Tensor, y: Tensor) -> Any:
        """q(z | x, label), batch shape (N,) and event shape (num_latents,), of labels ``(N,)``."""
        x, known = self.read(x, self._complete(y))
        return self.encoder(self.likelihood.features(x), known)

    def decode(self, z: Tensor, y: Tensor) -> Any:
        """p(x | z, label) given z ``(N, num_latents)`` and labels ``(N,)``; its mean is the reconstruction."""
        return self.decoder(joined(z, self._labels.encode(self._complete(y), z)))

    def _draw(self, logits: Tensor, known: Tensor) -> Tensor:
        """The label: what is known, or else what the logits say."""
        logits = torch.where(known.sum(-1, keepdim=True) > 0, _CERTAIN * known, logits)
        label: Tensor = pyro.sample("label", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
        return label

    def _indicators(self, label: Tensor, like: Tensor) -> Tensor:
        classes = torch.arange(self.num_classes, device=like.device)
        return (label[..., None] == classes).to(like.dtype)

    def _complete(self, y: Tensor) -> Tensor:
        if bool((y == -1).any()):
            raise DataError("y: expected a label for each observation, found -1 for a missing one.")
        return y

    def _initialize(self, inputs: Tensor) -> None:
        """Nothing else depends on the data."""


def oversampled(y: Tensor, share: float = 0.1) -> Tensor:
    """Row numbers of all observations, those with a label repeated until they are `share` of all: ``(M,)``, for ``x[rows], y[rows]``.

    Where few observations have labels, most batches would have none. Each repeated one counts as often as it stands there, in the
    bound too.

    Args:
        y: labels ``(N,)``, -1 where missing.

    Raises:
        DataError: no observation has a label.
        UsageError: `share` is not between 0 and 1.
    """
    labelled = (y >= 0).nonzero()[:, 0]
    if not len(labelled):
        raise DataError("oversampled: no observation has a label, all of y are -1.")
    if not 0 < share < 1:
        raise UsageError(f"oversampled: share must be between 0 and 1, found {share!r}.")
    times = max(1, round(share / (1 - share) * (len(y) - len(labelled)) / len(labelled)))
    return torch.cat([(y < 0).nonzero()[:, 0], labelled.repeat(times)])


def _log_probs(probs: Sequence[float] | None, num_classes: int) -> Tensor:
    values = torch.ones(num_classes) if probs is None else torch.as_tensor(probs, dtype=torch.get_default_dtype())
    if values.shape != (num_classes,) or not bool((values > 0).all() & values.isfinite().all()):
        raise UsageError(
            f"SemiSupervisedVAE: class_probs must be {num_classes} positive numbers, found {values.tolist()}."
        )
    return (values / values.sum()).log()
