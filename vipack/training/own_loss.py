"""A loss for one fit alone."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

from vipack.compat.autoguides import with_nesting_guessed_by
from vipack.program import seeded

__all__ = ["own_loss"]


def own_loss(loss: Any, seed: int) -> Any:
    """A copy for one fit, since a loss may cache what it learns of a model.

    Some losses run the program in their first step to count its plates. What that draws must not shift the run's stream,
    since a run that is resumed has a first step of its own.
    """
    own = copy.deepcopy(loss)

    def undisturbing(guess: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            logger = logging.getLogger("pyro.infer.elbo")
            level = logger.level
            logger.setLevel(logging.WARNING)  # it logs its guess as information, which Pyro prints
            try:
                with seeded(seed):
                    guess(*args)
            finally:
                logger.setLevel(level)

        return run

    with_nesting_guessed_by(own, undisturbing)
    return own
