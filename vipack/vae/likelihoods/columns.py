"""The likelihood of tables: real, binary, categorical and count columns side by side, with entries that are missing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.nn.functional import softplus

from vipack.compat.pytorch import validate_sample, validation_refused
from vipack.errors import DataError, UsageError
from vipack.hints import checked_class
from vipack.vae.likelihoods.likelihood import Likelihood
from vipack.vae.likelihoods.pixels import deviations

__all__ = ["Binary", "Categories", "Column", "ColumnsDistribution", "Continuous", "Counts", "MixedColumns"]


class Column(ABC):
    """What a column of a table holds, and how it is modelled. Columns that are equal are computed together.

    Each has three numbers of its `own`: a center and a spread, which are the data's, and a raw scale or log concentration,
    which is learned.

    Attributes:
        num_parameters: numbers of the decoder's for it, P.
        num_features: numbers of it that the encoder reads, F.
    """

    num_parameters: int = 1
    num_features: int = 1

    @abstractmethod
    def distribution(self, parameters: Tensor, own: Tensor) -> Any:
        """Of values ``(..., k)`` of k columns, from `parameters` ``(..., k, P)`` and their `own` numbers ``(k, 3)``."""

    @abstractmethod
    def features(self, x: Tensor, own: Tensor) -> Tensor:
        """Values ``(..., k)``, none missing, as ``(..., k, F)``."""

    @abstractmethod
    def inside(self, x: Tensor) -> Tensor:
        """Which values the column may have."""

    @abstractmethod
    def initialize(self, x: Tensor, own: Tensor) -> Tensor:
        """Set one column's `own` numbers ``(3,)`` by its values that are not missing, and give `parameters` ``(P,)``."""


@checked_class
@final
@dataclass(frozen=True)
class Continuous(Column):
    """Real numbers, normal about the decoder's output, with a learned scale."""

    def __str__(self) -> str:
        return "finite numbers"

    def distribution(self, parameters: Tensor, own: Tensor) -> Any:
        """See :class:`Column`."""
        center, spread, raw = own.unbind(-1)
        return dist.Normal(center + spread * parameters[..., 0], spread * (softplus(raw) + 1e-3))

    def features(self, x: Tensor, own: Tensor) -> Tensor:
        """See :class:`Column`."""
        return ((x - own[:, 0]) / own[:, 1]).clamp(-10, 10)[..., None]

    def inside(self, x: Tensor) -> Tensor:
        """See :class:`Column`."""
        return x.isfinite()

    def initialize(self, x: Tensor, own: Tensor) -> Tensor:
        """See :class:`Column`."""
        own[0], own[1] = x.mean(), deviations(x)
        return x.new_zeros(1)


@checked_class
@final
@dataclass(frozen=True)
class Binary(Column):
    """0 or 1."""

    def __str__(self) -> str:
        return "0 or 1"

    def distribution(self, parameters: Tensor, own: Tensor) -> Any:
        """See :class:`Column`."""
        return dist.Bernoulli(logits=parameters[..., 0])

    def features(self, x: Tensor, own: Tensor) -> Tensor:
        """See :class:`Column`."""
        return (2 * x - 1)[..., None]

    def inside(self, x: Tensor) -> Tensor:
        """See :class:`Column`."""
        return (x == 0) | (x == 1)

    def initialize(self, x: Tensor, own: Tensor) -> Tensor:
        """See :class:`Column`."""
        return torch.logit((x.sum() + 0.5) / (len(x) + 1))[None]


@checked_class
@final
@dataclass(frozen=True)
class Categories(Column):
    """Whole numbers from 0 to `num_classes` - 1."""

    num_classes: int

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise UsageError(f"Categories: num_classes must be at least 2, found {self.num_classes}.")
        object.__setattr__(self, "num_parameters", self.num_classes)
        object.__setattr__(self, "num_features", self.num_classes)

    def __str__(self) -> str:
        return f"whole numbers from 0 to {self.num_classes - 1}"

    def distribution(self, parameters: Tensor, own: Tensor) -> Any:
        """See :class:`Column`."""
        return dist.Categorical(logits=parameters)

    def features(self, x: Tensor, own: Tensor) -> Tensor:
        """See :class:`Column`."""
        return (x[..., None] == torch.arange(self.num_classes, device=x.device, dtype=x.dtype)).to(x.dtype)

    def inside(self, x: Tensor) -> Tensor:
        """See :class:`Column`."""
        return (x >= 0) & (x < self.num_classes) & (x == x.round())

    def initialize(self, x: Tensor, own: Tensor) -> Tensor:
        """See :class:`Column`."""
        counts = self.features(x, own).sum(0) + 1
        return (counts / counts.sum()).log()


@checked_class
@final
@dataclass(frozen=True)
class Counts(Column):
    """Whole numbers from 0 up: negative binomial with a learned concentration."""

    def __str__(self) -> str:
        return "whole counts from 0 up"

    def distribution(self, parameters: Tensor, own: Tensor) -> Any:
        """See :class:`Column`."""
        log_concentration = own[..., 2].clamp(-7, 9)
        return dist.NegativeBinomial(
            log_concentration.exp(), logits=parameters[..., 0].clamp(-20, 20) - log_concentration
        )

    def features(self, x: Tensor, own: Tensor) -> Tensor:
        """See :class:`Column`."""
        return x.clamp(min=0).log1p()[..., None]

    def inside(self, x: Tensor) -> Tensor:
        """See :class:`Column`."""
        return (x >= 0) & (x == x.round()) & (x < torch.inf)

    def initialize(self, x: Tensor, own: Tensor) -> Tensor:
        """See :class:`Column`."""
        mean = (x.sum() + 0.5) / (len(x) + 0.5)
        excess = (((x - mean) ** 2).mean() - mean).clamp(min=1e-6)
        own[2] = (mean**2 / excess).clamp(0.1, 100).log()
        return mean.log()[None]


@checked_class
@final
class MixedColumns(Likelihood):
    """Tables ``(N, D)`` of numbers whose columns are of different kinds; NaN stands for an entry that is missing.

    What is missing adds nothing to log p(x | z); the encoder reads zeros there, and which entries are missing. This is right
    where entries are missing at random, given the others.

    Args:
        columns: name -> :class:`Continuous`, :class:`Binary`, :class:`Categories` or :class:`Counts`, in the data's order.

    Source: Nazabal et al. (2020), HI-VAE, arXiv:1807.03653; without its second mixture.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        if isinstance(columns, Mapping):
            wrong = [f"{name!r}: {column!r}" for name, column in columns.items() if not isinstance(column, Column)]
        else:
            wrong = [f"a {type(columns).__name__}"]
        if wrong or not columns:
            raise UsageError(
                "MixedColumns: expected a dict from names to Continuous(), Binary(), Categories(k) or Counts(), found "
                f"{', '.join(wrong) or 'no columns'}."
            )
        kinds = tuple(columns.values())
        size = len(kinds)
        super().__init__((size,), (sum(k.num_parameters for k in kinds),), (sum(k.num_features for k in kinds) + size,))
        self.names = tuple(columns)
        self.columns = kinds
        self.groups = Counter(kinds)  # equal columns, and how many they are
        groups = list(self.groups)
        order = torch.tensor(sorted(range(size), key=lambda index: groups.index(kinds[index])))
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())
        self.own = _ColumnNumbers(size)

    order: Tensor
    back: Tensor

    def forward(self, parameters: Tensor, x: Tensor | None = None) -> Any:
        """See :class:`Likelihood`; the parameters stand in the order of the groups."""
        numbers = parameters.split([count * column.num_parameters for column, count in self.groups.items()], -1)
        own = self.own().split(list(self.groups.values()))
        return ColumnsDistribution(
            [
                column.distribution(each.unflatten(-1, (count, column.num_parameters)), its_own)
                for (column, count), each, its_own in zip(self.groups.items(), numbers, own, strict=True)
            ],
            self,
        )

    def features(self, x: Tensor) -> Tensor:
        """Numbers of about unit size, and an indicator for each entry that is there."""
        there = (~x.isnan()).to(x.dtype)
        own = self.own().detach().split(list(self.groups.values()))
        read = [
            (column.features(values, its_own) * known[..., None]).flatten(1)
            for column, values, known, its_own in zip(
                self.groups, self.grouped(x.nan_to_num(0.0)), self.grouped(there), own, strict=True
            )
        ]
        return torch.cat([*read, there], -1)

    def grouped(self, x: Tensor) -> tuple[Tensor, ...]:
        """Entries ``(..., D)`` as one tensor for each group of equal columns."""
        groups: tuple[Tensor, ...] = x.index_select(-1, self.order).split(list(self.groups.values()), -1)
        return groups

    def problem(self, x: Tensor) -> str:
        """See :class:`Likelihood`."""
        for index, (name, column) in enumerate(zip(self.names, self.columns, strict=True)):
            values = x[:, index]
            wrong = ~(column.inside(values) | values.isnan())
            if bool(wrong.any()):
                return f"column {name!r} (number {index}) takes {column} or NaN, found {values[wrong][:3].tolist()}."
        return ""

    def inside(self, x: Tensor) -> Tensor:
        """Which entries ``(..., D)`` are missing or values that their columns may have."""
        return torch.stack([c.inside(v) | v.isnan() for c, v in zip(self.columns, x.unbind(-1), strict=True)], -1)

    def initialize(self, x: Tensor) -> Tensor:
        """Each column's center, scale or concentration, and numbers that fit its mean."""
        empty = [name for name, column in zip(self.names, x.unbind(-1), strict=True) if bool(column.isnan().all())]
        if empty:
            raise DataError(f"site 'x': column {empty[0]!r} has no value that is not missing; leave it out.")
        parameters = []
        own = self.own().detach().clone()
        ordered = x.index_select(-1, self.order).unbind(-1)
        for column, values, numbers in zip(self.groups.elements(), ordered, own, strict=True):
            parameters.append(column.initialize(values[~values.isnan()], numbers))
        with torch.no_grad():
            self.own.center_and_spread.copy_(own[:, :2])
            self.own.raw.copy_(own[:, 2])
        return torch.cat(parameters)


class _ColumnNumbers(nn.Module):
    """Each column's own three numbers, in the order of the groups."""

    center_and_spread: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("center_and_spread", torch.tensor([0.0, 1.0]).repeat(size, 1))
        self.raw = nn.Parameter(torch.full((size,), 0.5413))  # softplus of it is 1

    def forward(self) -> Tensor:
        """``(D, 3)``."""
        return torch.cat([self.center_and_spread, self.raw[:, None]], -1)


class ColumnsDistribution(TorchDistribution):  # type: ignore[misc]
    """Independent values of a row, each of a distribution of its own; those that are NaN have no density.

    Args:
        groups: a distribution ``(..., k)`` without event for each group of k equal columns.
        columns: says which columns are in a group, and which values they may have.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, groups: Sequence[Any], columns: MixedColumns, validate_args: bool | None = None) -> None:
        self.groups = list(groups)
        self.columns = columns
        super().__init__(groups[0].batch_shape[:-1], torch.Size(columns.shape), validate_args=validate_args)

    @property
    def support(self) -> Any:
        """What each column may hold, or NaN."""
        return _Entries(self.columns)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ColumnsDistribution:
        """See ``torch.distributions.Distribution``."""
        expanded = [group.expand(torch.Size([*batch_shape, group.batch_shape[-1]])) for group in self.groups]
        return ColumnsDistribution(expanded, self.columns, validate_args=False if validation_refused(self) else None)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of the entries that are there ``(...)``, in nats."""
        validate_sample(self, value)
        # Every column can be zero, and a density of NaN would have a gradient of NaN even where it does not count.
        filled = self.columns.grouped(value.nan_to_num(0.0))
        there = self.columns.grouped(~value.isnan())
        terms = [
            torch.where(known, group.log_prob(values), 0.0).sum(-1)
            for group, values, known in zip(self.groups, filled, there, strict=True)
        ]
        return torch.stack(terms).sum(0)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """``(*sample_shape, ..., D)``, nothing missing."""
        with torch.no_grad():
            return self._in_order([group.sample(torch.Size(sample_shape)) for group in self.groups])

    @property
    def mean(self) -> Tensor:
        """Of each column ``(..., D)``; of categories, the most probable one."""
        return self.of_expectations(self.expectations)

    @property
    def expectations(self) -> Tensor:
        """What may be averaged over latents: means of columns, and probabilities of categories, side by side ``(..., E)``."""
        each = [group.probs.flatten(-2) if isinstance(group, dist.Categorical) else group.mean for group in self.groups]
        return torch.cat(each, -1)

    @property
    def expected_squares(self) -> Tensor:
        """As :attr:`expectations`, of the squares; an indicator of a category is its own square."""
        each = [
            group.probs.flatten(-2) if isinstance(group, dist.Categorical) else group.variance + group.mean**2
            for group in self.groups
        ]
        return torch.cat(each, -1)

    def of_expectations(self, expectations: Tensor, others: Tensor | None = None) -> Tensor:
        """The columns ``(..., D)`` that (averaged) expectations ``(..., E)`` stand for: of categories, the most probable one.

        Args:
            others: numbers ``(..., E)`` to pick in their place, of categories that of the most probable one.
        """
        kinds = self.columns.groups.items()
        widths = [kind.num_classes if isinstance(kind, Categories) else 1 for kind, _ in kinds]
        sizes = [width * count for width, (_, count) in zip(widths, kinds, strict=True)]
        columns = []
        for width, each, other in zip(
            widths,
            expectations.split(sizes, -1),
            (expectations if others is None else others).split(sizes, -1),
            strict=True,
        ):
            if width == 1:
                columns.append(other)
                continue
            classes = each.unflatten(-1, (-1, width)).argmax(-1)
            picked = other.unflatten(-1, (-1, width)).gather(-1, classes[..., None])[..., 0]
            columns.append(classes if others is None else picked)
        return self._in_order(columns)

    def _in_order(self, groups: Sequence[Tensor]) -> Tensor:
        dtype = next((group.dtype for group in groups if group.is_floating_point()), torch.get_default_dtype())
        return torch.cat([group.to(dtype) for group in groups], -1).index_select(-1, self.columns.back)


class _Entries(constraints.Constraint):  # type: ignore[misc]
    event_dim = 1
    is_discrete = False

    def __init__(self, kinds: MixedColumns) -> None:
        self._kinds = kinds

    def check(self, value: Tensor) -> Tensor:
        return self._kinds.inside(value).all(-1)

    def __repr__(self) -> str:
        return "values of their columns, or NaN"
