"""Networks that are to be trained while they are in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from vipack.errors import ProgramWarning
from vipack.program.running.params import Parameters

__all__ = ["left_in_evaluation_mode"]

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)  # lazy ones become these


def left_in_evaluation_mode(parameters: Parameters) -> Iterator[ProgramWarning]:
    """Dropout and BatchNorm in evaluation mode within networks that have something to train; a frozen one is meant to be so."""
    containers = sorted(parameters.modules, key=lambda module: sum(1 for _ in module.modules()))
    layers = [
        layer
        for layer in parameters.modules
        if not layer.training and _acts_in_training(layer) and _is_trained(layer, containers)
    ]
    if layers:
        kinds = ", ".join(dict.fromkeys(type(layer).__name__ for layer in layers))
        yield ProgramWarning(
            f"{len(layers)} layer(s) ({kinds}) of networks to be trained are in evaluation mode, so they train without dropout and "
            "without new BatchNorm statistics; call .train() on the network before the fit, or, if that is meant, "
            "requires_grad_(False) on what is frozen."
        )


def _acts_in_training(layer: nn.Module) -> bool:
    if isinstance(layer, _DROPOUT):
        return layer.p > 0
    return isinstance(layer, _BATCH_NORM) and layer.track_running_stats


def _is_trained(layer: nn.Module, containers: Sequence[nn.Module]) -> bool:
    """Whether the smallest network around a layer that has parameters has some to train."""
    for container in containers:
        if any(layer is child for child in container.modules()):
            weights = list(container.parameters())
            if weights:
                return any(weight.requires_grad for weight in weights)
    return False
