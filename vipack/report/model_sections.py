"""What was fitted: the model's graph, its sites, and the code."""

from __future__ import annotations

import math

from markupsafe import Markup

from vipack.report.content import Section, Table
from vipack.report.dependencies import dependencies
from vipack.report.fitted import Fitted
from vipack.report.model_graph import MOST_SITES, model_graph
from vipack.report.source_code import code_of

__all__ = ["code_section", "model_section"]


def model_section(fit: Fitted) -> Section:
    """Graph and shape table, the size of the parameters, and what the preflight warned of."""
    table = fit.posterior.table
    texts = []
    drawing: Markup | None = None
    if len(table.sites) > MOST_SITES:
        texts.append(f"The model has {len(table.sites)} sites, too many to draw.")
    elif table.sites:
        edges, failure = dependencies(fit.posterior)
        drawing = model_graph(table, edges)
        texts.append(
            "White nodes are latent, filled ones observed, dashed ones computed; a dashed box is a plate. "
            + (
                f"What depends on what is not shown: the model cannot be tracked ({failure})."
                if failure
                else "An arrow leads from a site to what its distribution or value is computed from it."
            )
        )
    shapes = fit.check.parameters
    numbers = sum(math.prod(shape) for shape in shapes.values())
    texts.append(f"{numbers:,} numbers in {len(shapes):,} parameters were trained.")
    return Section(
        "Model",
        texts,
        [f"Warning of the check before training: {warning}" for warning in fit.check.warnings],
        drawing=drawing,
        tables=[Table(table.to_frame(), "Sites of the model, with their batch and event shapes")],
    )


def code_section(fit: Fitted) -> Section:
    """The source of model and guide."""
    program = fit.posterior.program
    return Section("Code", codes=[code_of("Model", program.model), code_of("Guide", program.guide)])
