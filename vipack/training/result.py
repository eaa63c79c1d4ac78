"""A fit: what training leaves in the user's hands."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vipack.diagnostics import Diagnosis, diagnose, elbo
from vipack.diagnostics.rounding import COMPUTED, DRAWN, constant
from vipack.entry import entry, training_entry
from vipack.errors import TrustWarning, UsageError
from vipack.export import to_arviz
from vipack.posterior import Posterior
from vipack.posterior.answers import answer, predictions
from vipack.program import Arguments, Check, Program
from vipack.training.checkpoint import write_file
from vipack.training.data import ArrayRows, read_data
from vipack.training.ladder.report import Stages
from vipack.training.trainer import Trainer
from vipack.types import EngineReport, Estimate, Stopped, Verdict

__all__ = ["Fit", "FittedGuide"]


class FittedGuide:
    """A guide with the parameters of one fit, callable in plain Pyro like the guide it was made from.

    It runs wherever a guide does (``Predictive``, ``poutine.trace``), reads nothing from Pyro's global store and leaves
    nothing there. Attributes and methods of an automatic guide, such as ``median()`` and ``quantiles()``, work too.
    """

    def __init__(
        self, program: Program, values: dict[str, Tensor] | None = None, buffers: dict[str, Tensor] | None = None
    ) -> None:
        self._program = program
        self._values, self._buffers = values, buffers  # None: the fit's, as they stand

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draw from the guide."""
        return self._bound(self._program.guide)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_program":  # what copy and pickle ask for is not the guide's to answer
            raise AttributeError(name)
        with self._running():
            value = getattr(self._program.guide, name)
        return self._bound(value) if callable(value) and not isinstance(value, type) else value

    def __copy__(self) -> FittedGuide:
        return FittedGuide(self._program, self._values, self._buffers)

    def __deepcopy__(self, memo: dict[int, Any]) -> FittedGuide:
        """The guide as it stands now, whatever the fit does later."""
        parameters = self._program.parameters
        values = parameters.detached() if self._values is None else self._values
        buffers = parameters.buffers() if self._buffers is None else self._buffers
        own = {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in values.items()}
        return FittedGuide(self._program, own, {name: buffer.clone() for name, buffer in buffers.items()})

    def __repr__(self) -> str:
        guide = self._program.guide
        return f"FittedGuide({getattr(guide, '__name__', type(guide).__name__)})"

    def _bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self._running():
                return function(*args, **kwargs)

        return run

    def _running(self) -> contextlib.AbstractContextManager[None]:
        # Whatever rows the caller passes are all there are: no minibatch of the fit's, and every plate whole.
        values = self._program.parameters.detached() if self._values is None else self._values
        return self._program.bound(Arguments(), values=values, buffers=self._buffers, training=False)


class Fit:
    """A trained guide for one model and data set.

    Attributes:
        check: the site table and whatever the preflight found.
        posterior: draws with log p(x, z) and log q(z), for diagnostics and plots of your own.
    """

    def __init__(self, trainer: Trainer, verdict: Verdict | None = None) -> None:
        self._trainer = trainer
        self._posterior: Posterior | None = None
        self._loaded = verdict  # of the fit as it was saved

    # --- what training did

    @property
    def guide(self) -> FittedGuide:
        """The guide with this fit's parameters, usable in plain Pyro."""
        return FittedGuide(self._trainer.program)

    @property
    @entry
    def params(self) -> dict[str, Tensor]:
        """Copies of the parameters by Pyro name, constrained."""
        return self._trainer.program.parameters.constrained()

    @property
    def losses(self) -> np.ndarray:
        """The loss of every step, ``(steps,)``: minus the ELBO estimate, in nats."""
        return np.asarray(self._trainer.state.losses, dtype=np.float64)

    @property
    def steps(self) -> int:
        """Gradient steps done."""
        return self._trainer.state.step

    @property
    def seconds(self) -> float:
        """Time spent in training, resumed runs included."""
        return self._trainer.state.seconds

    @property
    def stopped(self) -> Stopped:
        """Why training ended."""
        return self._trainer.stopped

    @property
    def restarts(self) -> tuple[float, ...]:
        """The ELBO (nats) that each start of ``restarts=`` came to; empty for a single start."""
        return self._trainer.restarts

    @property
    def several_starts(self) -> bool:
        """Whether this is the best of several starts: of ``restarts=``, or of the ladder's paths."""
        return len(self.restarts) > 1 or any(s.name == "paths" and s.elbo is not None for s in self.stages)

    @property
    def stages(self) -> Stages:
        """What each stage of the ladder gained and cost, where the fit had no guide; ``print(fit.stages)`` is a table."""
        return self._trainer.stages

    @property
    def engine(self) -> EngineReport:
        """Which tier ran, and why no faster one."""
        return self._trainer.engine.report

    @property
    def check(self) -> Check:
        """The preflight's findings; ``str(fit.check)`` is the shape table."""
        return self._trainer.prepared.check

    @property
    def data_fingerprint(self) -> str:
        """Equal for fits of the same data."""
        return self._trainer.rows.fingerprint()

    @property
    @entry
    def posterior(self) -> Posterior:
        """The fitted guide on all of the fit's data."""
        if self._posterior is None:
            self._posterior = Posterior(self._trainer.program, self._trainer.rows.full())
            if self._loaded is not None:
                self._posterior.judge(self._loaded)
        return self._posterior

    # --- what it found

    @property
    def verdict(self) -> Verdict | None:
        """What the last :meth:`diagnose` said of the fit as it stands, which its answers follow; None if it was not judged.

        A fit that is resumed is not judged any more; one that is saved and loaded is what it was, on the same data.
        """
        return None if self._posterior is None and self._loaded is None else self.posterior.verdict

    @entry
    def sample(self, num_draws: int = 1_000, *, seed: int = 0, resample: bool | None = None) -> dict[str, Tensor]:
        """Posterior draws of latent and deterministic sites: ``site -> (num_draws, *site shape)``.

        Discrete latents that are summed out are drawn from their posterior given the others and the data.

        Args:
            resample: draw them with the Pareto-smoothed importance weights, which is what a CORRECTED verdict
                certifies; from four times as many draws of the guide, and row by row where every latent belongs to a
                row, as in a VAE. None does so where the last :meth:`diagnose` said CORRECTED; False never does.
        """
        _positive("num_draws", num_draws)
        draws, _ = answer(self.posterior, num_draws, seed=seed, resample=resample, densities=False)
        return draws.sites

    @entry
    def predict(
        self,
        num_draws: int = 1_000,
        *,
        data: Any = None,
        fixed: Mapping[str, Any] | None = None,
        seed: int = 0,
        resample: bool | None = None,
    ) -> dict[str, Tensor]:
        """Posterior predictive draws of the observed and deterministic sites: ``site -> (num_draws, *site shape)``.

        Sites that only this call has come with them. Discrete latents that are summed out have the values that the
        posterior gives them; for new data those that belong to rows are drawn from their prior given the rest.

        Args:
            data: new data in the form of the fit's, without what is to be predicted: the model's argument for it must
                default to None. None predicts the fit's own data anew.
            fixed: new fixed arguments; the fit's own by default.
            resample: from which draws of the latents, as in :meth:`sample`. Those that an amortised guide draws for new
                rows are weighted by these rows' observed values.

        Raises:
            SignatureError: the model cannot be called with `data`.
            ShapeError: a latent has one value a row of the fit's data, and `data` has other rows.
            UsageError: ``resample=True``, and the latents of the new data cannot be weighted.

        Warns:
            TrustWarning: resampled draws are due after the verdict, and cannot be had for the new data.
        """
        _positive("num_draws", num_draws)
        arguments = None
        if data is not None:
            rows = self._trainer.rows
            arguments = read_data(data, rows.fixed if fixed is None else fixed, rows.dtype, rows.device).full()
        found, which, reason = predictions(self.posterior, num_draws, arguments, seed=seed, resample=resample)
        if reason and resample:
            raise UsageError(f"resample=True: {reason}; pass resample=False, or the observed values too.")
        if reason:
            warnings.warn(TrustWarning(f"predictions are from {which}: {reason}."), stacklevel=3)
        return found

    @entry
    def elbo(self, num_draws: int = 1_000, *, seed: int = 0) -> Estimate:
        """The ELBO on all data with its standard error, in nats."""
        _positive("num_draws", num_draws)
        return elbo(self.log_weights(num_draws, seed=seed))

    @entry
    def log_weights(self, num_draws: int = 1_000, *, seed: int = 0) -> Tensor:
        """``log p(x, z) - log q(z)`` at draws from the guide, ``(num_draws,)`` in nats, float64."""
        _positive("num_draws", num_draws)
        return self.posterior.draws(num_draws, seed=seed, keep=False).log_weights

    @entry
    def diagnose(self, num_draws: int = 4_000, *, seed: int = 0, progress: bool | None = None) -> Diagnosis:
        """The verdict: TRUST, CORRECTED or DISTRUST, with figures and reasons.

        Ctrl-C ends it once there is a set of draws; the verdict then says what was not checked.

        From then on :meth:`sample`, :meth:`predict`, :meth:`summary`, :meth:`to_arviz` and plots follow it: after
        CORRECTED they show resampled draws, until the fit goes on.

        Args:
            progress: True or False; a bar where there is a terminal or notebook by default.
        """
        _positive("num_draws", num_draws)
        return diagnose(
            self.posterior,
            num_draws=num_draws,
            seed=seed,
            stopped=self.stopped,
            several_starts=self.several_starts,
            progress=progress,
        )

    @entry
    def summary(self, num_draws: int = 4_000, *, seed: int = 0, resample: bool | None = None) -> pd.DataFrame:
        """Mean, sd and quantiles of every latent and deterministic element: one row each, as ``theta[0]``.

        The name of the columns says which draws these are, as in :meth:`sample`, and ``attrs["draws"]`` in a sentence.
        """
        _positive("num_draws", num_draws)
        rows: dict[str, list[float]] = {}
        computed = {site.name for site in self.posterior.table.of_kind("deterministic")}
        found, which = answer(self.posterior, num_draws, seed=seed, resample=resample, densities=False)
        for name, draws in found.sites.items():
            values = draws.double().reshape(len(draws), -1)
            labels = _element_names(name, tuple(draws.shape[1:]))
            probabilities = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64, device=values.device)
            # torch.quantile refuses more than 16 million numbers at once.
            columns = values.split(max(1, 2**23 // len(values)), dim=1)
            quantiles = torch.cat([part.quantile(probabilities, dim=0) for part in columns], dim=1)
            units = COMPUTED if name in computed else DRAWN
            mean, sd = _mean_and_sd(values, units * torch.finfo(draws.dtype).eps if draws.is_floating_point() else 0.0)
            figures = torch.cat([mean[None], sd[None], quantiles]).T
            rows.update(zip(labels, figures.tolist(), strict=True))
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "sd", "5%", "50%", "95%"])
        table.columns.name = which.label
        table.attrs["draws"] = str(which)
        return table

    @entry
    def to_arviz(self, num_draws: int = 1_000, *, seed: int = 0, resample: bool | None = None) -> Any:
        """All groups that ArviZ knows: InferenceData with ArviZ 0.x, a DataTree with 1.x.

        Args:
            resample: which draws, as in :meth:`sample`; the attribute ``draws`` says which they are.
        """
        _positive("num_draws", num_draws)
        return to_arviz(self.posterior, num_draws, seed=seed, resample=resample)

    # --- going on, and leaving

    @training_entry
    def resume(self, steps: int | None = None) -> Fit:
        """Train this fit further, bit for bit as if it had never stopped.

        Args:
            steps: how many more; None finishes what was planned. Beyond that, the learning rate of the default
                optimizer, which has fallen, starts high again and falls over these steps.
        """
        if steps is not None:
            _positive("steps", steps)
        if self._loaded is not None:
            _ = self.posterior  # takes note of what was judged, before it moves
        if steps is None:
            self._trainer.train()
        else:
            self._trainer.train_further(steps)
        return self

    @entry
    def save(self, path: str | os.PathLike[str], *, data: bool = True) -> None:
        """Write the fit to one file, whole or not at all; ``vipack.load`` reads it.

        Args:
            data: keep the data in the file, so that loading needs nothing else; a Dataset or DataLoader cannot be kept.
        """
        content = self._trainer.content()
        verdict = self.verdict
        content["verdict"] = None if verdict is None else verdict.value
        rows = self._trainer.rows
        stored = rows.state() if data and isinstance(rows, ArrayRows) else None
        if stored is not None:
            content["data"] = stored
        write_file(path, content)

    @entry
    def to_pyro(self) -> None:
        """Copy the parameters into Pyro's global store and the modules they came from, as ``pyro.infer.SVI`` would."""
        self._trainer.program.parameters.write_back()

    def __repr__(self) -> str:
        last = f", loss {self.losses[-min(100, self.steps) :].mean():.2f}" if self.steps else ""
        verdict = self.verdict
        judged = "not judged" if verdict is None else verdict.value
        return f"Fit({self.guide!r}, {self.steps} steps{last}, {self.seconds:.1f} s, {judged}, {self.stopped})"


def _mean_and_sd(values: Tensor, relative: float) -> tuple[Tensor, Tensor]:
    """Of the columns of ``(S, P)``; what does not vary beyond rounding is what its first draw is."""
    first = values[0]
    still = torch.from_numpy(constant(values.cpu().numpy(), relative)).to(values.device)
    reference = torch.where(first.isfinite(), first, 0.0)  # sums of large numbers would lose what is between them
    x = values - reference
    sd = torch.where(still, 0.0, x.std(0)) if len(values) > 1 else torch.full_like(first, torch.nan)
    return torch.where(still, first, reference + x.mean(0)), sd


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}: expected a positive integer, found {value!r}.")


def _element_names(name: str, shape: tuple[int, ...]) -> list[str]:
    return [name + (f"[{', '.join(map(str, index))}]" if index else "") for index in np.ndindex(*shape)]
