"""What a model predicts at given latents: for the data that it was fitted to, or for new data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from pyro.poutine.util import site_is_factor
from torch import Tensor

from vipack.errors import ModelError, ShapeError
from vipack.program.densities.substitution import Given
from vipack.program.evaluation.evaluation import Evaluation
from vipack.program.evaluation.simulation import Unobserved
from vipack.program.running.flat import flat_priors_sampled
from vipack.program.running.randomness import seeded
from vipack.program.running.runs import Arguments, trace_model, trace_prior
from vipack.program.sites.sites import is_latent, sample_nodes

__all__ = ["Prediction", "local_latents"]

Latents = dict[str, Tensor]


class Prediction:
    """Runs of a model that draw what the data fixed anew. Methods are to be called inside ``Program.bound``.

    A latent that is local to the rows of the data keeps its value where the data are those of the fit. For new data the
    guide gives it, or, where it is summed out, the model draws it from its prior given the rest.

    Args:
        evaluation: of the program on the data that it was fitted to.
        arguments: the call to predict for.

    Attributes:
        is_new: whether the data are new.
        local: latents of the guide that belong to rows of new data.
        drawn: enumerated latents whose draws from the posterior are to be given.
    """

    def __init__(self, evaluation: Evaluation, arguments: Arguments) -> None:
        self._evaluation, self._arguments = evaluation, arguments
        self.is_new = arguments is not evaluation.arguments
        local = local_latents(evaluation) if self.is_new else frozenset[str]()
        self.local = [name for name in evaluation.latents if name in local]
        self.drawn = [name for name in evaluation.enumerated if name not in local]
        self._unwanted = {*evaluation.latents, *evaluation.enumerated}
        self._conditioned = evaluation.conditioned

    def predict(self, values: Mapping[str, Tensor]) -> Latents:
        """Every site that the call has and that is no latent of the fit, at one draw of the latents."""
        with Given(values), Unobserved(self._conditioned):  # outermost, so that given sites keep their values
            trace = trace_model(self._evaluation.program.model, self._arguments)
        return {
            name: node["value"]
            for name, node in sample_nodes(trace).items()
            if name not in self._unwanted and not site_is_factor(node)
        }

    def check_shapes(self, values: Mapping[str, Tensor]) -> None:
        """
        Args:
            values: draws ``(S, *shape)`` of latents.

        Raises:
            ShapeError: a latent has other shapes in new data than it has draws for.
        """
        for name, shape, expected in self._misfits(values) if self.is_new else ():
            raise ShapeError(
                f"latent site {name!r} has values of shape {shape}, for the rows of the fit's data, which does not fit the new "
                f"data, where its shape is {expected}; predict with data of the same rows, or fit an amortised guide."
            )

    def _misfits(self, values: Mapping[str, Tensor]) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        model = Unobserved(self._conditioned)(self._evaluation.program.model)
        with contextlib.suppress(ModelError), flat_priors_sampled(), seeded(0), torch.no_grad():
            nodes = sample_nodes(trace_prior(model, self._arguments))
            for name, value in values.items():
                if name in nodes and is_latent(nodes[name]):
                    expected = tuple(nodes[name]["value"].shape)
                    if tuple(value.shape[1:]) != expected:
                        yield name, tuple(value.shape[1:]), expected


def local_latents(evaluation: Evaluation) -> frozenset[str]:
    """The latents that belong to rows of the data: all plates of some observed site are among their own."""
    nodes = sample_nodes(evaluation.model_trace)
    observed = [site.name for site in evaluation.table.of_kind("observed", "factor")]
    plates = {name: {frame.name for frame in node["cond_indep_stack"]} for name, node in nodes.items()}
    return frozenset(
        name
        for name in (*evaluation.latents, *evaluation.enumerated)
        if any(plates[other] and plates[other] <= plates[name] for other in observed)
    )
