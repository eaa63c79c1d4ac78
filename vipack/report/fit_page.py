"""The page of a fit."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pandas as pd

from vipack.diagnostics.grounds import last_grounds
from vipack.diagnostics.report import Diagnosis, Verdict
from vipack.plots.html_page import page_path, save_page
from vipack.report.content import Banner, Section, Table
from vipack.report.fitted import Fitted
from vipack.report.model_sections import code_section, model_section
from vipack.report.observation_section import observation_section
from vipack.report.posterior_sections import posterior_section, predictive_section, weight_section
from vipack.report.rendering import render
from vipack.report.source_code import name_of
from vipack.report.training_section import training_section
from vipack.version import __version__

__all__ = ["banner_of", "verdict_section", "versions", "write_fit_page"]

_LIBRARIES = ("torch", "pyro-ppl", "numpy", "pandas", "arviz")


def write_fit_page(
    fit: Fitted,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    num_draws: int = 1_000,
    image_shape: Sequence[int] | None = None,
    seed: int = 0,
    progress: bool | None = None,
    sections: Sequence[Section] = (),
) -> Path:
    """Write the page of `fit`; see :meth:`vipack.Fit.report`.

    Args:
        sections: more of them, after the verdict.

    Raises:
        UsageError: the folder does not exist.
    """
    page_path(path)  # before work that would be lost
    if last_grounds(fit.posterior) is None:
        fit.diagnose(seed=seed, progress=progress)
    grounds = last_grounds(fit.posterior)
    assert grounds is not None
    diagnosis = grounds.diagnosis
    observations = observation_section(fit, image_shape, seed=seed)
    content = [
        verdict_section(diagnosis),
        *sections,
        *([observations] if observations is not None else []),
        *posterior_section(fit, num_draws=num_draws, seed=seed),
        *predictive_section(fit, seed=seed),
        model_section(fit),
        training_section(fit),
        *weight_section(fit, grounds),
        code_section(fit),
        _origin(fit, seed),
    ]
    heading = title or f"{name_of(fit.posterior.program.model)} fitted by {name_of(fit.posterior.program.guide)}"
    page = render(
        heading,
        "report.html",
        lead=_lead(fit),
        banner=banner_of(diagnosis),
        figures=_figures(fit, diagnosis),
        sections=content,
        footer=f"Written by vipack {__version__}. The page holds everything itself and fetches nothing.",
    )
    return save_page(path, page)


def banner_of(diagnosis: Diagnosis) -> Banner:
    """The verdict in two sentences."""
    if diagnosis.verdict is Verdict.DISTRUST:
        first = "Nothing of this fit is certified: neither the guide's draws nor resampled ones."
    else:
        first = f"Certified{diagnosis.within and ' ' + diagnosis.within}: {diagnosis.certifies}."
    return Banner(diagnosis.verdict.value, (first, _sentence(diagnosis.reasons[0])))


def verdict_section(diagnosis: Diagnosis) -> Section:
    """What was looked at and what it showed, what was not, and what to try."""
    return Section(
        "Verdict",
        sections=[
            each
            for each in (
                Section("Further reasons", notes=[_sentence(reason) for reason in diagnosis.reasons[1:]]),
                Section("What was checked", notes=_witnesses(diagnosis)),
                Section("What was not checked or is not certified", notes=_doubts(diagnosis)),
                Section("What to try", notes=[_sentence(each) for each in diagnosis.advice]),
            )
            if each.notes
        ],
        side_by_side=True,
    )


def _witnesses(diagnosis: Diagnosis) -> list[str]:
    """A sentence on each witness that was heard."""
    low, high = diagnosis.khat_range
    spread = (
        f", between {low:.2f} and {high:.2f} over {len(diagnosis.khats)} sets of draws"
        if len(diagnosis.khats) > 1
        else ""
    )
    said = [
        f"Importance weights: k-hat {diagnosis.khat:.2f}{spread}; they are worth {diagnosis.ess_share:.0%} of the draws.",
        f"The log evidence that they estimate is {diagnosis.gap:.2f} nats above the ELBO.",
    ]
    if diagnosis.shift is not None:
        said.append(f"The weights move {diagnosis.shift}.")
    if diagnosis.drift is not None:
        said.append(f"{diagnosis.drift.num_chains:,} short chains from the fit's draws move {diagnosis.drift.draws}.")
    if diagnosis.modes is not None:
        outcome = "found another mode that matters" if diagnosis.modes.missed else "found no other mode that matters"
        said.append(f"{diagnosis.modes.num_starts} climbs from elsewhere {outcome}.")
    return said


def _doubts(diagnosis: Diagnosis) -> list[str]:
    """A sentence on each quantity that is not certified though means and sds may be, and on what was not looked at."""
    quantities = {"tails": "5% and 95% quantiles", "evidence": "the log evidence"}
    said = [f"{quantities[name]}: {reason}" for name, reason in diagnosis.doubts.items()]
    return [_sentence(each) for each in [*said, *diagnosis.skipped]]


def versions() -> dict[str, str]:
    """Of vipack, Python and the libraries that numbers depend on."""
    return {
        "vipack": __version__,
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
    }


def _origin(fit: Fitted, seed: int) -> Section:
    facts = {**fit.setup, "seed of the report's draws": str(seed), **versions(), "machine": platform.platform()}
    facts["seed of training"] = facts.pop("seed")
    table = pd.DataFrame({"value": list(facts.values())}, index=pd.Index(list(facts), name="what"))
    return Section(
        "Versions and seeds",
        ["What it takes to get the same numbers again, beside the code above and the data."],
        tables=[Table(table, "Versions, seeds and settings", show_caption=False)],
    )


def _lead(fit: Fitted) -> str:
    table = fit.posterior.table
    latents, observed = table.of_kind("latent"), table.of_kind("observed")
    rows = "" if fit.num_observations is None else f" {fit.num_observations:,} observations;"
    named = ", ".join(site.name for site in observed[:5]) + (", ..." if len(observed) > 5 else "")
    sites = "1 latent site" if len(latents) == 1 else f"{len(latents)} latent sites"
    return f"A model of {named or 'nothing observed'} with {sites};{rows} {fit.steps:,} steps in {fit.seconds:.1f} s."


def _figures(fit: Fitted, diagnosis: Diagnosis) -> dict[str, str]:
    return {
        "ELBO (nats)": str(diagnosis.elbo),
        "log evidence (nats)": str(diagnosis.evidence),
        "k-hat": f"{diagnosis.khat:.2f}",
        "effective draws": f"{diagnosis.ess:,.0f} of {diagnosis.num_draws:,}",
        "training ended": fit.stopped.reason.value,
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}"
