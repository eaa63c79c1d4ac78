"""How a fit is shown: at a prompt, in a notebook, and on a page that can be sent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vipack.diagnostics.sources import positive
from vipack.display import grid
from vipack.entry import entry
from vipack.training.fit_record import FitRecord
from vipack.training.fitted_guide import name_of

if TYPE_CHECKING:
    from vipack.diagnostics.comparison_table import Comparison

__all__ = ["FitDisplay"]


class FitDisplay(FitRecord):
    """The part of a fit that shows it."""

    @property
    def setup(self) -> dict[str, str]:
        """What training was given, in words: seed, objective, optimizer, batch size, type and device of the numbers."""
        trainer = self._trainer
        batch = trainer.prepared.batch_size
        optimizer = trainer.optim_name
        return {
            "seed": str(trainer.plan.seed),
            "objective": type(trainer.prepared.loss).__name__,
            "optimizer": "Adam of vipack's own, with a falling learning rate" if optimizer == "default" else optimizer,
            "observations a step": "all" if batch is None else f"{batch:,}",
            "numbers": f"{str(trainer.rows.dtype).removeprefix('torch.')} on {trainer.rows.device}",
        }

    @entry
    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        num_draws: int = 1_000,
        image_shape: Sequence[int] | None = None,
        seed: int = 0,
        progress: bool | None = None,
    ) -> Path:
        """Write one HTML page on this fit that stands alone: it fetches nothing, can be mailed and printed.

        It shows the model's graph and shapes, the verdict with its reasons and what was not checked, losses and stages, the
        posterior, a predictive check, importance weights, the source of model and guide, versions and seeds; and, where each
        observation has latents of its own, as in a VAE, what these carry, generated observations and reconstructions.

        The verdict is that of the last :meth:`diagnose` (or :func:`vipack.compare`) on the fit as it stands. Where there was
        none, or the fit was loaded from a file, which keeps the word alone, the report runs :meth:`diagnose` first.

        Args:
            title: of the page; the names of model and guide by default.
            num_draws: of the posterior, for its table and pictures.
            image_shape: ``(height, width)`` or ``(channels, height, width)`` of an observation that is an image; rows with the
                pixels of a square and values from 0 to 1 are taken for images by themselves.
            seed: of the draws.
            progress: as of :meth:`diagnose`.

        Returns:
            Where the page is.

        Raises:
            UsageError: the folder does not exist, or `image_shape` does not fit.
        """
        from vipack.report.fit_page import write_fit_page  # matplotlib takes a while to import

        positive("num_draws", num_draws)
        return write_fit_page(
            self,  # type: ignore[arg-type]
            path,
            title=title,
            num_draws=num_draws,
            image_shape=image_shape,
            seed=seed,
            progress=progress,
        )

    def write_comparison(self, comparison: Comparison, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write the page of a comparison that this fit is the best of; see :meth:`Comparison.report`."""
        from vipack.report.comparison_page import write_comparison_page

        return write_comparison_page(comparison, path, **options)

    def __repr__(self) -> str:
        facts = self._facts()
        loss = f"loss {facts['loss']}, " if self.steps else ""
        return f"Fit({self.guide!r}, {facts['training']}, {loss}{facts['time']}, {facts['verdict']}, {self.stopped})"

    def _repr_html_(self) -> str:
        return grid(self._facts().items())

    def _facts(self) -> dict[str, str]:
        loss = f"{self.losses[-min(100, self.steps) :].mean():.2f}" if self.steps else "none"
        return {
            "guide": name_of(self._trainer.program),
            "training": f"found by the ladder: {self.stages.path}" if self.stages.path else f"{self.steps} steps",
            "loss": loss,
            "time": f"{self.seconds:.1f} s",
            "verdict": "not judged" if self.verdict is None else self.verdict.value,
            "ended": str(self.stopped),
        }
