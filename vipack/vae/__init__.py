"""Variational autoencoders: small builders of a plain Pyro model and guide, and the evidence to judge any such pair by."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vipack.vae import likelihoods, networks, posteriors, priors
from vipack.vae.annotated_cells import Cells
from vipack.vae.autoencoder import Autoencoder
from vipack.vae.conditions import Condition, Covariates, Labels
from vipack.vae.judging import Evaluation, evaluate
from vipack.vae.layered import HierarchicalVAE, LadderVAE
from vipack.vae.semi_supervised import SemiSupervisedVAE, oversampled
from vipack.vae.vae import VAE

if TYPE_CHECKING:
    from vipack.vae.generated import GeneratedReport, judge_generated
    from vipack.vae.pictures import latent_map, report, sheet, traverse

__all__ = [
    "VAE",
    "Autoencoder",
    "Cells",
    "Condition",
    "Covariates",
    "Evaluation",
    "GeneratedReport",
    "HierarchicalVAE",
    "Labels",
    "LadderVAE",
    "SemiSupervisedVAE",
    "evaluate",
    "judge_generated",
    "latent_map",
    "likelihoods",
    "networks",
    "oversampled",
    "posteriors",
    "priors",
    "report",
    "sheet",
    "traverse",
]

# Pictures need matplotlib, which takes a while to import.
_HOMES = {
    **dict.fromkeys(["latent_map", "report", "sheet", "traverse"], "vipack.vae.pictures"),
    **dict.fromkeys(["GeneratedReport", "judge_generated"], "vipack.vae.generated"),
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(f"module 'vipack.vae' has no attribute {name!r}; it has {', '.join(__all__)}", name=name)
