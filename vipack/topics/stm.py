"""Structural topic models as an estimator, with effects of covariates on the shares of topics."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from torch import Tensor

from vipack.errors import DataError, UsageError
from vipack.program import Arguments
from vipack.sparse.count_rows import CountRows
from vipack.topics.estimator_files import read_estimator
from vipack.topics.fitted_topics import FittedTopics, seed_of, warn_of_empty
from vipack.topics.logistic_normals import mean_shares, share_correlations
from vipack.topics.outcomes import OutcomeScale, read_outcome, warn_of_short
from vipack.topics.prevalence import Prevalence, read_covariates, read_groups
from vipack.topics.structural_ascent import StructuralAscent, bound_of
from vipack.topics.structural_bound import unconstrained
from vipack.topics.structural_effects import StructuralResponse, expected_shares
from vipack.topics.structural_files import read_data, read_prevalence, write_structural
from vipack.topics.structural_inference import infer_logits
from vipack.topics.structural_topic_model import StructuralTopicModel
from vipack.topics.word_counts import read_counts
from vipack.training import Fit, TimeLimit, fit
from vipack.training.checkpoint import unharmed
from vipack.training.stopping import SmallGain

__all__ = ["STM"]

_PERIOD = 2  # steps of ten iterations each


class STM(FittedTopics):
    """Topics whose prevalence depends on covariates of documents, by variational Bayes, with intervals by linear response.

    ``fit_`` is the :class:`vipack.Fit` behind it, of the Pyro program ``model_.model`` and ``model_.guide``; see
    :class:`StructuralTopicModel` for what is assumed.

    Args:
        num_topics: K.
        prevalence: a formula of the covariates such as ``"party + s(year)"``, where ``s`` is a spline; None takes all of their
            columns as they are.
        groups: the covariate, such as an author or a source, whose levels have intercepts of their own, drawn from a common
            distribution.
        supervised: whether `y` of :meth:`fit` is an outcome of the documents that depends on their shares, in the same model;
            see :meth:`outcome_effects` and :meth:`predict`. Otherwise `y` is not looked at.
        eta, coefficient_sd, num_starts: see :class:`StructuralTopicModel`.
        tolerance: training ends when 20 iterations raise the bound by less than this share of it.
        steps: of ten iterations each, in place of `tolerance`.
        time_limit: seconds of training after which to stop in any case.
        random_state: seed of everything random.
        progress: True or False; a bar in a terminal or a notebook by default.

    Attributes:
        components_, topics_, documents_, shares_: see :class:`FittedTopics`.
        prevalence_: the columns of the linear model.
    """

    fit_: Fit
    model_: StructuralTopicModel
    prevalence_: Prevalence | None
    _outcome: OutcomeScale | None
    _guide_params: dict[str, Tensor]

    def __init__(
        self,
        num_topics: int = 20,
        *,
        prevalence: str | None = None,
        groups: str | None = None,
        supervised: bool = False,
        eta: float = 0.1,
        coefficient_sd: float = 2.0,
        num_starts: int = 10,
        tolerance: float = 1e-9,
        steps: int | None = None,
        time_limit: float | None = None,
        random_state: Any = 0,
        progress: bool | None = None,
    ) -> None:
        self.num_topics = num_topics
        self.prevalence = prevalence
        self.groups = groups
        self.supervised = supervised
        self.eta = eta
        self.coefficient_sd = coefficient_sd
        self.num_starts = num_starts
        self.tolerance = tolerance
        self.steps = steps
        self.time_limit = time_limit
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None, *, covariates: Any = None, vocabulary: Sequence[str] | None = None) -> Self:
        """Fit topics to counts ``(D, V)``, and what covariates do to their shares.

        Args:
            y: ``(D,)``, the outcome where ``supervised=True``.
            covariates: a DataFrame, a mapping of columns or an array, a row a document. By default the metadata of a
                :class:`vipack.datasets.Corpus`, if a formula or groups ask for any.

        Raises:
            DataError: counts or covariates that cannot be used; the message says which and where.
            UsageError: an option that cannot be.
        """
        counts = read_counts(X)
        self._name_columns(counts, vocabulary)
        warn_of_empty(counts)
        num_documents = counts.matrix.shape[0]
        asked = self.prevalence is not None or self.groups is not None
        if covariates is None and asked:
            covariates = getattr(X, "metadata", None)
            if covariates is None:
                raise UsageError("covariates: the formula or groups need some; pass a DataFrame with a row a document.")
        table = (
            pd.DataFrame(index=range(num_documents))
            if covariates is None
            else read_covariates(covariates, num_documents)
        )
        self.levels_, indices = read_groups(self.groups, table)
        others = table.drop(columns=[self.groups]) if self.groups is not None and self.prevalence is None else table
        self.prevalence_ = Prevalence(others, self.prevalence) if len(others.columns) else None
        design = (
            torch.ones(num_documents, 1, dtype=torch.float64)
            if self.prevalence_ is None
            else self.prevalence_.rows(table)
        )
        self._make_model(counts.matrix, design.shape[1])
        rules: tuple[Any, ...] = (SmallGain(self.tolerance, _PERIOD),) if self.steps is None else ()
        if self.time_limit is not None:
            rules = (*rules, TimeLimit(self.time_limit))
        data: dict[str, Any] = {"counts": counts.matrix.astype(np.float64), "covariates": design}
        if indices is not None:
            data["groups"] = torch.from_numpy(indices)
        self._outcome = None
        if self.supervised:
            self._outcome, data["outcome"] = read_outcome(y, num_documents)
        self.fit_ = fit(
            self.model_.model,
            self.model_.guide,
            data=data if self.supervised else tuple(data.values()),
            engine=self._engine,
            steps=self.steps,
            stop=rules,
            seed=seed_of(self.random_state),
            dtype=torch.float64,
            progress=self.progress,
        )
        self._guide_params = params = self.fit_.params
        self.components_ = params["topics"].numpy()
        weights = params["topics"].digamma().exp()
        self.topics_ = (weights / weights.sum(1, keepdim=True)).numpy()
        self.shares_ = mean_shares(params["logits_loc"], params["logits_scale"])
        self._word_totals, self._lengths = (
            np.asarray(counts.matrix.sum(axis, dtype=np.float64)).ravel() for axis in (0, 1)
        )
        self.n_features_in_ = counts.matrix.shape[1]
        self.topic_names_ = [f"topic {k}" for k in range(self.num_topics)]
        self.n_iter_, self.bound_ = len(self.fit_.losses), -float(self.fit_.losses[-1])
        self._indices = None if indices is None else torch.from_numpy(indices)
        self._data = data
        self._response: StructuralResponse | None = None
        self._warn_of_unused()
        return self

    def fit_transform(self, X: Any, y: Any = None, **options: Any) -> np.ndarray[Any, Any]:
        """``fit(X)``, and the shares of its documents."""
        return self.fit(X, y, **options).shares_

    def transform(self, X: Any, covariates: Any = None) -> np.ndarray[Any, Any]:
        """Mean shares ``(D, K)`` of new documents, the topics and all else as they are.

        Args:
            covariates: of the new documents, where the model has any; by default the metadata of a Corpus. A group that the fit
                did not see has offsets of 0.

        Raises:
            DataError: counts or covariates that cannot be used.
            UsageError: covariates are missing.
        """
        self._check_fitted()
        counts = self._read(X)
        num_documents = counts.matrix.shape[0]
        if covariates is None and (self.prevalence_ is not None or self.groups is not None):
            covariates = getattr(X, "metadata", None)
            if covariates is None:
                raise UsageError(
                    "covariates: shares of new documents depend on theirs; pass transform(X, covariates=table)."
                )
        table = None if covariates is None else read_covariates(covariates, num_documents)
        design = torch.ones(num_documents, 1, dtype=torch.float64)
        if self.prevalence_ is not None and table is not None:
            design = self.prevalence_.rows(table)
        groups = None
        if self.groups is not None and table is not None:
            if self.groups not in table.columns:
                raise DataError(f"groups: {self.groups!r} is no column of the covariates.")
            groups = torch.from_numpy(pd.Index(self.levels_).get_indexer(table[self.groups]).astype(np.int64))
        rows = CountRows.of(counts.matrix, torch.float64)
        return mean_shares(*infer_logits(rows, design, groups, self._guide_params))

    def predict(self, X: Any, covariates: Any = None) -> np.ndarray[Any, Any]:
        """Expected outcomes ``(D,)`` of new documents; see :meth:`transform`."""
        self._check_supervised("predict")
        assert self._outcome is not None
        effects = self._guide_params["outcome_effects_loc"].numpy()
        outcomes: np.ndarray[Any, Any] = self.transform(X, covariates) @ effects
        return self._outcome.mean + self._outcome.sd * outcomes

    def outcome_effects(self, *, against: int | None = None, level: float = 0.9) -> pd.DataFrame:
        """The expected outcome of a document of one topic alone, a row a topic, with intervals by linear response.

        Args:
            against: a topic from whose expected outcome to take differences; None for none.

        Warns:
            TrustWarning: documents are so short that effects are too large and intervals too narrow.
        """
        self._check_supervised("outcome_effects")
        assert self._outcome is not None
        warn_of_short(self._lengths)
        scale = self._outcome
        if against is None:
            turned, shift, term = torch.eye(self.num_topics, dtype=torch.float64), scale.mean, "outcome"
        else:
            if isinstance(against, bool) or not isinstance(against, int) or not 0 <= against < self.num_topics:
                raise UsageError(f"against: expected a topic from 0 to {self.num_topics - 1}, found {against!r}.")
            turned, shift = torch.eye(self.num_topics, dtype=torch.float64), 0.0
            turned[:, against] -= 1
            term = f"outcome against {self.topic_names_[against]}"
        response = self._responses()(lambda own: scale.sd * (turned @ own["outcome_effects_loc"]))
        sds = response.covariance.diagonal().clamp_min(0).sqrt()
        return self._intervals((response.mean + shift)[None], sds[None], level, [term])

    def topic_correlations(self) -> pd.DataFrame:
        """``(K, K)``: how shares of topics go together over the documents of the fit, as correlations of their posterior draws.

        Means over 64 draws of all documents' logits from the guide. Shares sum to 1, so that correlations are negative on average.
        Without covariates this is what correlated topic models are asked for: which topics are found in the same documents.
        """
        self._check_fitted()
        table = share_correlations(self._guide_params["logits_loc"], self._guide_params["logits_scale"])
        return pd.DataFrame(table, index=self.topic_names_, columns=self.topic_names_)

    def effects(self, *, level: float = 0.9) -> pd.DataFrame:
        """How expected shares of topics differ along each covariate, a row a topic and comparison.

        Every level is compared with the first, and the upper quartile of numbers with the lower; all else is as in the
        documents, over which the difference is averaged. Columns: topic, term, mean, sd, lower, upper.
        """
        self._check_fitted()
        if self.prevalence_ is None:
            raise UsageError("effects: the model was fitted without covariates.")
        tables = [
            self.contrast(before, after, level=level, term=term) for term, before, after in self.prevalence_.contrasts()
        ]
        return pd.concat(tables, ignore_index=True)

    def contrast(
        self, before: Mapping[str, Any], after: Mapping[str, Any], *, level: float = 0.9, term: str | None = None
    ) -> pd.DataFrame:
        """How much expected shares change if covariates of all documents are as in `after` rather than as in `before`.

        Args:
            before, after: values of some covariates, as ``{"party": "left"}``; the others stay each document's own.
        """
        named = f"{_listed(before)} to {_listed(after)}" if term is None else term
        designs = [self._rows_with(values) for values in (before, after)]
        count = len(designs[0])
        weights = torch.cat([torch.full((1, count), -1 / count), torch.full((1, count), 1 / count)], 1).double()
        mean, sd, _ = self._respond(torch.cat(designs), weights, repeats=2)
        return self._intervals(mean, sd, level, [named])

    def expected_shares(self, at: Any, *, level: float = 0.9) -> pd.DataFrame:
        """Expected shares of documents with some covariates, such as over time; a row a topic and row of `at`.

        Args:
            at: a DataFrame or mapping of columns with all covariates of the model.
        """
        self._check_fitted()
        if self.prevalence_ is None:
            raise UsageError("expected_shares: the model was fitted without covariates; see topic_proportions().")
        table = at if isinstance(at, pd.DataFrame) else pd.DataFrame(dict(at))
        design = self.prevalence_.rows(table.reset_index(drop=True))
        mean, sd, _ = self._respond(design, torch.eye(len(design), dtype=torch.float64), repeats=0)
        names = [", ".join(f"{name}={row[name]}" for name in self.prevalence_.variables) for _, row in table.iterrows()]
        return self._intervals(mean, sd, level, names)

    def effect_draws(
        self, before: Mapping[str, Any], after: Mapping[str, Any], num_draws: int = 1_000, *, seed: int = 0
    ) -> np.ndarray[Any, Any]:
        """Draws ``(num_draws, K)`` of a :meth:`contrast`, normal with the covariance of linear response; they sum to 0."""
        designs = [self._rows_with(values) for values in (before, after)]
        count = len(designs[0])
        weights = torch.cat([torch.full((1, count), -1 / count), torch.full((1, count), 1 / count)], 1).double()
        mean, _, covariance = self._respond(torch.cat(designs), weights, repeats=2)
        generator = np.random.default_rng(seed)
        draws: np.ndarray[Any, Any] = generator.multivariate_normal(
            mean[0].numpy(), covariance.numpy(), num_draws, method="eigh"
        )
        return draws

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write topics, data, covariates and options to one file; :meth:`load` reads it, and runs nothing that is in it."""
        self._check_fitted()
        write_structural(
            path,
            self,
            params=self._guide_params,
            data=self._data,
            prevalence=self.prevalence_,
            levels=self.levels_,
            scale=self._outcome,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> STM:
        """What :meth:`save` wrote, without ``fit_``; effects, outcomes and new documents are as before.

        Raises:
            CheckpointError: missing, damaged, or of another kind.
        """
        model, more = read_estimator(path, cls)
        with unharmed(path):
            model._guide_params, model._data, model.levels_ = more["params"], read_data(more), list(more["levels"])
            model._outcome = None if more["scale"] is None else OutcomeScale(*more["scale"])
            model.prevalence_ = read_prevalence(more, model.prevalence)
            model._indices, model._response = model._data.get("groups"), None
            model.n_features_in_ = model.components_.shape[1]
            model._make_model(model._data["counts"], model._data["covariates"].shape[1])
        return model

    def _make_model(self, counts: Any, num_covariates: int) -> None:
        self.model_ = StructuralTopicModel(
            counts,
            self.num_topics,
            num_covariates,
            num_groups=len(self.levels_),
            eta=self.eta,
            coefficient_sd=self.coefficient_sd,
            supervised=self.supervised,
            num_starts=self.num_starts,
        )
        self._engine = StructuralAscent(self.model_)

    def _respond(self, design: Tensor, weights: Tensor, *, repeats: int) -> tuple[Tensor, Tensor, Tensor]:
        """Means and sds ``(M, K)``, and the covariance, of weighted means over rows; `repeats` times the fit's documents, or others."""
        groups = None if self._indices is None or not repeats else self._indices.repeat(repeats)
        response = self._responses()(
            lambda parameters: expected_shares(parameters, design, groups, weights).reshape(-1)
        )
        sds = response.covariance.diagonal().clamp_min(0).sqrt()
        shape = (len(weights), self.num_topics)
        return response.mean.reshape(shape), sds.reshape(shape), response.covariance

    def _responses(self) -> StructuralResponse:
        if self._response is None:
            bound = bound_of(self._engine, Arguments(kwargs=self._data))
            self._response = StructuralResponse(bound, unconstrained(self._guide_params))
        return self._response

    def _check_supervised(self, name: str) -> None:
        self._check_fitted()
        if not self.supervised:
            raise UsageError(
                f"{name}: the model was fitted without outcomes; pass STM(..., supervised=True).fit(X, y)."
            )

    def _intervals(self, mean: Tensor, sd: Tensor, level: float, terms: Sequence[str]) -> pd.DataFrame:
        if not 0 < level < 1:
            raise UsageError(f"level: expected a number between 0 and 1, found {level!r}.")
        z = norm.ppf(0.5 + level / 2)
        records = [
            (self.topic_names_[k], term, m, s, m - z * s, m + z * s)
            for term, means, sds in zip(terms, mean.tolist(), sd.tolist(), strict=True)
            for k, (m, s) in enumerate(zip(means, sds, strict=True))
        ]
        return pd.DataFrame(records, columns=["topic", "term", "mean", "sd", "lower", "upper"])

    def _rows_with(self, values: Mapping[str, Any]) -> Tensor:
        self._check_fitted()
        if self.prevalence_ is None:
            raise UsageError("contrast: the model was fitted without covariates.")
        table = self.prevalence_.table.copy()
        for name, value in values.items():
            if name not in table.columns:
                raise UsageError(f"contrast: there is no covariate {name!r}; the model has {', '.join(table.columns)}.")
            table[name] = pd.Series([value] * len(table))
        return self.prevalence_.rows(table)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
