"""Which sites of a model depend on which others, as Pyro's provenance tracking sees it."""

from __future__ import annotations

import contextlib
import io

from pyro.infer.inspect import get_model_relations

from vipack.posterior import Posterior
from vipack.program import seeded

__all__ = ["dependencies"]


def dependencies(posterior: Posterior) -> tuple[dict[str, tuple[str, ...]], str]:
    """Site -> the sites that its distribution or value reads directly; or, for a model that cannot be tracked, why.

    Source: ``pyro.infer.inspect.get_model_relations``.
    """
    call = posterior.arguments
    try:
        with seeded(0), posterior.running(), contextlib.redirect_stdout(io.StringIO()):
            relations = get_model_relations(
                posterior.program.model, call.args, dict(call.kwargs), include_deterministic=True
            )
    except Exception as error:  # the model's own, under tensors that it was not written for
        return {}, f"{type(error).__name__}: {error}".splitlines()[0]
    read: dict[str, list[str]] = relations["sample_sample"]
    names = {site.name for site in posterior.table}
    return {name: tuple(source for source in read[name] if source in names) for name in read if name in names}, ""
