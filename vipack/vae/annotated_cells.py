"""Counts of genes in cells as single-cell work keeps them: from an AnnData object to a fit's data, and the answers back into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vipack.errors import DataError, UsageError
from vipack.hints import checked_class

if TYPE_CHECKING:
    from vipack.training.result import Fit

__all__ = ["Cells"]

_NEEDED = ("X", "layers", "obs", "obsm", "var_names")


@checked_class
class Cells:
    """The counts of an AnnData object, and the batch that each cell is of, as ``data=`` of a fit.

    Args:
        annotated: an ``anndata.AnnData`` in memory, with N cells and G genes; anything with its ``X``, ``layers``, ``obs``,
            ``obsm`` and ``var_names`` will do.
        layer: the layer of counts; ``X`` by default.
        batch_key: the column of ``obs`` that says of which batch a cell is, for ``condition=Labels(len(cells.batches))``.

    Attributes:
        annotated: as given; :meth:`embed` and :meth:`denoise` write to it.
        data: the counts ``(N, G)``, as they lie there; with `batch_key` a pair of them and the numbers of the batches ``(N,)``.
        genes: the names of the columns.
        batches: the names of the batches, sorted; empty without `batch_key`.

    Raises:
        UsageError: not an AnnData object, no such layer or column, or it is in backed mode (pass it to ``vipack.stream``).
        DataError: cells without a batch, or genes whose names occur twice.
    """

    def __init__(self, annotated: Any, *, layer: str | None = None, batch_key: str | None = None) -> None:
        lacking = [name for name in _NEEDED if not hasattr(annotated, name)]
        if lacking:
            raise UsageError(
                f"Cells: found a {type(annotated).__name__} without {', '.join(lacking)}; pass an anndata.AnnData, or train on the "
                "matrix of counts itself."
            )
        if getattr(annotated, "isbacked", False):
            raise UsageError(
                "Cells: the AnnData object is in backed mode; pass it to vipack.stream, or annotated.to_memory()."
            )
        self.annotated, self._layer, self._batch_key = annotated, layer, batch_key
        self.genes = tuple(map(str, annotated.var_names))
        twice = pd.Index(self.genes)[pd.Index(self.genes).duplicated()]
        if len(twice):
            raise DataError(f"Cells: the gene {twice[0]!r} occurs twice; call annotated.var_names_make_unique().")
        names = self._names_of_batches()
        self.batches = () if names is None else tuple(sorted(set(names)))
        self.data = self._data(names)

    def __repr__(self) -> str:
        of = f" of {len(self.batches)} batches" if self.batches else ""
        return f"Cells({len(self.annotated.obs):,} cells{of}, {len(self.genes):,} genes)"

    def like(self, annotated: Any) -> Cells:
        """The counts of other cells, with the genes in this order and the batches by these numbers.

        Raises:
            DataError: genes are missing, or a batch is new.
        """
        other = Cells(annotated, layer=self._layer, batch_key=self._batch_key)
        columns = pd.Index(other.genes).get_indexer(list(self.genes))
        lacking = [gene for gene, column in zip(self.genes, columns, strict=True) if column < 0]
        if lacking:
            raise DataError(f"Cells: {len(lacking)} genes of the fit are not there, {lacking[0]!r} among them.")
        new = sorted(set(other.batches) - set(self.batches))
        if new:
            raise DataError(f"Cells: the batch {new[0]!r} is new; the fit knows {', '.join(self.batches)}.")
        names, other.genes, other.batches = other._names_of_batches(), self.genes, self.batches
        other.data = other._data(
            names, None if (columns == np.arange(len(other.annotated.var_names))).all() else columns
        )
        return other

    def embed(self, fit: Fit, key: str = "X_vipack") -> None:
        """Write the means of q(z | x), ``(N, num_latents)``, to ``annotated.obsm[key]``, where scanpy looks for neighbours."""
        self.annotated.obsm[key] = self._answer(fit.encode(self.data).mean, "latent", "z")

    def denoise(self, fit: Fit, layer: str = "vipack", *, num_draws: int = 10, seed: int = 0) -> None:
        """Write the counts that the model expects of each cell, ``(N, G)``, to ``annotated.layers[layer]``."""
        expected = fit.reconstruct(self.data, num_draws=num_draws, seed=seed)
        self.annotated.layers[layer] = self._answer(expected, "observed", "x")

    def _answer(self, sites: dict[str, Tensor], kind: str, name: str) -> Any:
        if name not in sites:
            raise UsageError(f"Cells: the fit has no {kind} site {name!r}; it has {', '.join(sites)}.")
        return sites[name].numpy()

    def _names_of_batches(self) -> list[str] | None:
        if self._batch_key is None:
            return None
        obs = self.annotated.obs
        if self._batch_key not in obs:
            raise UsageError(
                f"Cells: batch_key={self._batch_key!r}: obs has the columns {', '.join(map(str, obs.columns)) or 'none'}."
            )
        column = obs[self._batch_key]
        if column.isna().any():
            raise DataError(f"Cells: {int(column.isna().sum())} cells have no {self._batch_key!r}; leave them out.")
        return [str(name) for name in column]

    def _data(self, names: list[str] | None, columns: Any = None) -> Any:
        layers = self.annotated.layers
        if self._layer is not None and self._layer not in layers:
            raise UsageError(
                f"Cells: layer={self._layer!r}: there are the layers {', '.join(map(str, layers)) or 'none'}."
            )
        matrix = self.annotated.X if self._layer is None else layers[self._layer]
        if matrix is None:
            raise UsageError("Cells: X is empty; pass layer=.")
        counts = matrix if columns is None else matrix[:, columns]
        if names is None:
            return counts
        return counts, torch.from_numpy(pd.Index(self.batches).get_indexer(names)).long()
