"""A fit: what training leaves in the user's hands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vipack.diagnostics import Diagnosis, diagnose, elbo, importance
from vipack.errors import UsageError
from vipack.export import to_arviz
from vipack.posterior import Posterior
from vipack.program import Arguments, Check, Program
from vipack.training.checkpoint import write_file
from vipack.training.data import ArrayRows, read_data
from vipack.training.ladder.report import Stages
from vipack.training.trainer import Trainer
from vipack.types import EngineReport, Estimate, Stopped

__all__ = ["Fit", "FittedGuide"]


class FittedGuide:
    """A guide with the parameters of one fit, callable in plain Pyro like the guide it was made from.

    It runs wherever a guide does (``Predictive``, ``poutine.trace``), reads nothing from Pyro's global store and leaves
    nothing there. Attributes and methods of an automatic guide, such as ``median()`` and ``quantiles()``, work too.
    """

    def __init__(self, program: Program) -> None:
        self._program = program

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draw from the guide."""
        return self._bound(self._program.guide)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        with self._running():
            value = getattr(self._program.guide, name)
        return self._bound(value) if callable(value) and not isinstance(value, type) else value

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
        return self._program.bound(Arguments(), values=self._program.parameters.detached(), training=False)


class Fit:
    """A trained guide for one model and data set.

    Attributes:
        check: the site table and whatever the preflight found.
        posterior: draws with log p(x, z) and log q(z), for diagnostics and plots of your own.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._posterior: Posterior | None = None

    # --- what training did

    @property
    def guide(self) -> FittedGuide:
        """The guide with this fit's parameters, usable in plain Pyro."""
        return FittedGuide(self._trainer.program)

    @property
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
    def posterior(self) -> Posterior:
        """The fitted guide on all of the fit's data."""
        if self._posterior is None:
            self._posterior = Posterior(self._trainer.program, self._trainer.rows.full())
        return self._posterior

    # --- what it found

    def sample(self, num_draws: int = 1_000, *, seed: int = 0, resample: bool = False) -> dict[str, Tensor]:
        """Posterior draws of latent and deterministic sites: ``site -> (num_draws, *site shape)``.

        Discrete latents that are summed out are drawn from their posterior given the others and the data.

        Args:
            resample: draw them with the Pareto-smoothed importance weights, which is what a CORRECTED verdict
                certifies; from four times as many draws of the guide, and row by row where every latent belongs to a
                row, as in a VAE.
        """
        _positive("num_draws", num_draws)
        if not resample:
            draws = self.posterior.draws(num_draws, seed=seed)
            return draws.sites
        draws = self.posterior.draws(4 * num_draws, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        if draws.row_log_weights is None:
            chosen = _by_weight(draws.log_weights[:, None], num_draws, generator)[:, 0]
            return {name: value[chosen] for name, value in draws.sites.items()}
        # The rows are independent under model and guide, and their joint weights would all fall on one draw.
        chosen = _by_weight(draws.row_log_weights, num_draws, generator)
        latents = self.posterior.rows_of(draws.latents, chosen)
        return {**latents, **self.posterior.deterministic(latents)}

    def predict(
        self, num_draws: int = 1_000, *, data: Any = None, fixed: Mapping[str, Any] | None = None, seed: int = 0
    ) -> dict[str, Tensor]:
        """Posterior predictive draws of the observed and deterministic sites: ``site -> (num_draws, *site shape)``.

        Sites that only this call has come with them. Discrete latents that are summed out have the values that the
        posterior gives them; for new data those that belong to rows are drawn from their prior given the rest.

        Args:
            data: new data in the form of the fit's, without what is to be predicted: the model's argument for it must
                default to None. None predicts the fit's own data anew.
            fixed: new fixed arguments; the fit's own by default.

        Raises:
            SignatureError: the model cannot be called with `data`.
            ShapeError: a latent has one value a row of the fit's data, and `data` has other rows.
        """
        _positive("num_draws", num_draws)
        if data is None:
            return self.posterior.predictive(num_draws, seed=seed)
        rows = self._trainer.rows
        new = read_data(data, rows.fixed if fixed is None else fixed, rows.dtype, rows.device)
        return self.posterior.predictive(num_draws, new.full(), seed=seed)

    def elbo(self, num_draws: int = 1_000, *, seed: int = 0) -> Estimate:
        """The ELBO on all data with its standard error, in nats."""
        _positive("num_draws", num_draws)
        return elbo(self.log_weights(num_draws, seed=seed))

    def log_weights(self, num_draws: int = 1_000, *, seed: int = 0) -> Tensor:
        """``log p(x, z) - log q(z)`` at draws from the guide, ``(num_draws,)`` in nats, float64."""
        _positive("num_draws", num_draws)
        return self.posterior.draws(num_draws, seed=seed, keep=False).log_weights

    def diagnose(self, num_draws: int = 4_000, *, seed: int = 0) -> Diagnosis:
        """The verdict: TRUST, CORRECTED or DISTRUST, with figures and reasons."""
        _positive("num_draws", num_draws)
        return diagnose(
            self.posterior,
            num_draws=num_draws,
            seed=seed,
            stopped=self.stopped,
            several_starts=self.several_starts,
        )

    def summary(self, num_draws: int = 4_000, *, seed: int = 0) -> pd.DataFrame:
        """Mean, sd and quantiles of every latent and deterministic element: one row each, as ``theta[0]``."""
        rows: dict[str, list[float]] = {}
        for name, draws in self.sample(num_draws, seed=seed).items():
            values = draws.double().reshape(len(draws), -1)
            labels = _element_names(name, tuple(draws.shape[1:]))
            probabilities = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64, device=values.device)
            # torch.quantile refuses more than 16 million numbers at once.
            columns = values.split(max(1, 2**23 // len(values)), dim=1)
            quantiles = torch.cat([part.quantile(probabilities, dim=0) for part in columns], dim=1)
            table = torch.cat([values.mean(0, keepdim=True), values.std(0, keepdim=True), quantiles]).T
            rows.update(zip(labels, table.tolist(), strict=True))
        return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "sd", "5%", "50%", "95%"])

    def to_arviz(self, num_draws: int = 1_000, *, seed: int = 0) -> Any:
        """All groups that ArviZ knows: InferenceData with ArviZ 0.x, a DataTree with 1.x."""
        _positive("num_draws", num_draws)
        return to_arviz(self.posterior, num_draws, seed=seed)

    # --- going on, and leaving

    def resume(self, steps: int | None = None) -> Fit:
        """Train this fit further, bit for bit as if it had never stopped.

        Args:
            steps: how many more; None finishes what was planned. Beyond that, the learning rate of the default
                optimizer, which has fallen, starts high again and falls over these steps.
        """
        if steps is None:
            self._trainer.train()
        else:
            _positive("steps", steps)
            self._trainer.train_further(steps)
        return self

    def save(self, path: str | os.PathLike[str], *, data: bool = True) -> None:
        """Write the fit to one file, whole or not at all; ``vipack.load`` reads it.

        Args:
            data: keep the data in the file, so that loading needs nothing else; a Dataset or DataLoader cannot be kept.
        """
        content = self._trainer.content()
        rows = self._trainer.rows
        stored = rows.state() if data and isinstance(rows, ArrayRows) else None
        if stored is not None:
            content["data"] = stored
        write_file(path, content)

    def to_pyro(self) -> None:
        """Copy the parameters into Pyro's global store and the modules they came from, as ``pyro.infer.SVI`` would."""
        self._trainer.program.parameters.write_back()

    def __repr__(self) -> str:
        last = f", loss {self.losses[-min(100, self.steps) :].mean():.2f}" if self.steps else ""
        return f"Fit({self.guide!r}, {self.steps} steps{last}, {self.seconds:.1f} s, {self.stopped})"


def _by_weight(log_weights: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
    """Indices ``(num_draws, N)`` of draws taken with the smoothed weights of each column of ``(S, N)``."""
    table = log_weights.cpu().numpy()
    weights = np.exp([importance(table[:, i]).log_weights for i in range(table.shape[1])])
    return torch.multinomial(torch.from_numpy(weights), num_draws, replacement=True, generator=generator).T


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}: expected a positive integer, found {value!r}.")


def _element_names(name: str, shape: tuple[int, ...]) -> list[str]:
    return [name + (f"[{', '.join(map(str, index))}]" if index else "") for index in np.ndindex(*shape)]
