"""Networks that would not be trained as they are meant to be: in evaluation mode, or with hooks on their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from vipack.compat.gradient_hooks import has_gradient_hooks
from vipack.display import listed
from vipack.errors import ProgramWarning
from vipack.program.running.params import Parameters

__all__ = ["warnings_of_networks"]

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)  # lazy ones become these


def warnings_of_networks(parameters: Parameters) -> Iterator[ProgramWarning]:
    """What is worth a look before they are trained."""
    yield from _left_in_evaluation_mode(parameters)
    yield from _hooks_not_called(parameters)


def _left_in_evaluation_mode(parameters: Parameters) -> Iterator[ProgramWarning]:
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


def _hooks_not_called(parameters: Parameters) -> Iterator[ProgramWarning]:
    """Hooks on gradients of the user's networks: a fit trains copies of their parameters, so that the networks stay as they are."""
    hooked = sorted(
        {
            f"{type(module).__name__}.{name}"
            for module in parameters.modules
            for name, value in module.named_parameters(recurse=False)
            if has_gradient_hooks(value)
        }
    )
    if hooked:
        yield ProgramWarning(
            f"{listed(hooked)}: has a gradient hook (register_hook), which is not called: a fit trains copies of the networks' "
            "parameters. Train with vipack.SVI, whose steps call it, or remove the hook."
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
