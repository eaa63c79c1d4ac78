"""A warning while it trains: the latents of observations say nothing of them."""

from __future__ import annotations

from vipack.diagnostics.collapse import LatentActivity, latent_activity
from vipack.display import listed
from vipack.engine.optimizers.fit_optimizer import FitOptimizer
from vipack.errors import TrustWarning, VipackError, warn
from vipack.posterior import Posterior
from vipack.program import Arguments, Program
from vipack.training.callbacks import Every, Progress
from vipack.training.data import Rows
from vipack.training.prepare import Prepared

__all__ = ["View", "collapse_check"]

_ROWS = 200  # observations looked at
_LEAST_PERIOD = 100  # steps
_SHARE = 20  # looks in a run; latents that are idle at two in a row are said to have collapsed


class _CollapseCheck:
    """Looks until a dimension is active, or until it has warned."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._done = False
        self._times = 0

    def __call__(self, progress: Progress) -> None:
        if self._done:
            return
        activity = _activity(self._prepared.program, self._prepared.rows)
        self._done = activity is None or not activity.collapsed
        self._times += 1
        if activity is None or self._done or self._times < 2:
            return
        self._done = True
        warn(
            TrustWarning(
                f"at step {progress.step} the latents have collapsed: none of the dimensions {listed(activity.dimensions)} depends on "
                "the data, so that the model learns to do without them. Try "
                "BetaELBO(free_bits=0.1) or a weight on the divergence that rises from 0, a lower learning rate, or a weaker "
                "decoder."
            )
        )


class View:
    """See :class:`vipack.training.callbacks.RunView`."""

    def __init__(self, program: Program, rows: Rows, optimizer: FitOptimizer) -> None:
        self._program, self._rows, self._optimizer = program, rows, optimizer

    def rates(self) -> tuple[float, ...]:
        """See :class:`vipack.training.callbacks.RunView`."""
        handles = self._optimizer.handles(self._program.parameters.tensors()) or []
        return tuple(sorted({float(handle.group["lr"]) for handle in handles if "lr" in handle.group}, reverse=True))

    def activity(self) -> LatentActivity | None:
        """See :class:`vipack.training.callbacks.RunView`."""
        return _activity(self._program, self._rows) if self._rows.num_rows else None


def _activity(program: Program, rows: Rows) -> LatentActivity | None:
    call = rows.rows(rows.spread(min(_ROWS, rows.num_rows or 0)))
    try:
        return latent_activity(Posterior(program, Arguments(call.args, call.kwargs)))
    except VipackError:  # guides with parameters for rows, say, have nothing to collapse
        return None


def collapse_check(prepared: Prepared, num_steps: int) -> Every | None:
    """What looks for it in a run of `num_steps`; None for programs without networks, or without latents of observations."""
    table = prepared.check.table
    if table is None or not prepared.rows.num_rows or not prepared.program.parameters.has_networks():
        return None
    latents, observed = table.of_kind("latent"), table.of_kind("observed", "factor")
    if not latents or not observed or not set.intersection(*(set(site.plates) for site in (*latents, *observed))):
        return None
    return Every(max(_LEAST_PERIOD, num_steps // _SHARE), _CollapseCheck(prepared))
