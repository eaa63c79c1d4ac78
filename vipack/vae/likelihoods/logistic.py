"""The likelihood of grey levels: whole numbers, by a mixture of logistic densities rounded to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.vae.likelihoods.likelihood import Likelihood, shape_of

__all__ = ["DiscretizedLogistic", "DiscretizedLogisticMixture"]


@checked_class
@final
class DiscretizedLogisticMixture(Likelihood):
    """Elements that are whole levels from 0 to `levels` - 1, such as bytes, each by a mixture of its own.

    The channels of a colour image are independent given z.

    Args:
        components: K, of the mixture.
        levels: 256 for bytes.

    Source: Salimans et al. (2017), PixelCNN++, arXiv:1701.05517, section 2.1.
    """

    def __init__(self, shape: int | Sequence[int], *, components: int = 5, levels: int = 256) -> None:
        sizes = shape_of("DiscretizedLogisticMixture", shape)
        if components < 1 or levels < 2:
            raise UsageError(
                "DiscretizedLogisticMixture: components must be at least 1 and levels at least 2, found "
                f"components={components}, levels={levels}."
            )
        super().__init__(sizes, (3 * components, *sizes))
        self.components = components
        self.levels = levels

    def forward(self, parameters: Tensor, x: Tensor | None = None) -> Any:
        """See :class:`Likelihood`."""
        numbers = parameters.movedim(-1 - len(self.shape), -1)
        logits, loc, raw = numbers.split(self.components, -1)
        # In units of half the range; a scale much below the distance of two levels makes no difference.
        scale = softplus(raw) + 0.25 / (self.levels - 1)
        return DiscretizedLogistic(logits, loc, scale, self.levels).to_event(len(self.shape))

    def features(self, x: Tensor) -> Tensor:
        """The levels, from -1 to 1."""
        return x * (2 / (self.levels - 1)) - 1

    def problem(self, x: Tensor) -> str:
        """See :class:`Likelihood`."""
        wrong = ~((x >= 0) & (x <= self.levels - 1) & (x == x.round()))
        if not bool(wrong.any()):
            return ""
        cure = "round them, or make levels larger"
        if float(x.min()) >= 0 and float(x.max()) <= 1:
            cure = f"these look like grey levels in [0, 1], so write (x * {self.levels - 1}).round()"
        return (
            f"DiscretizedLogisticMixture takes whole levels from 0 to {self.levels - 1}, found "
            f"{[round(value, 4) for value in x[wrong].flatten()[:3].tolist()]}; {cure}."
        )

    def initialize(self, x: Tensor) -> Tensor:
        """Components at the quantiles of all levels together."""
        features = self.features(x).flatten()
        features = features[:: max(1, len(features) // 1_000_000)]  # all that torch's quantiles take
        shares = (torch.arange(self.components, dtype=x.dtype, device=x.device) + 0.5) / self.components
        scale = (0.6 * features.std() / self.components**0.5).clamp(min=0.02)
        numbers = torch.stack(
            [torch.zeros_like(shares), features.quantile(shares), scale.expm1().log().expand_as(shares)]
        )
        return numbers.reshape(-1, *[1] * len(self.shape)).expand(self.parameter_shape).clone()


class DiscretizedLogistic(TorchDistribution):  # type: ignore[misc]
    """Whole levels 0 to L - 1: a mixture of K logistic densities on [-1, 1], each level taking what lies nearest to it.

    The first and the last level take the tails too, so that the probabilities sum to one.

    Args:
        logits, loc, scale: ``(..., K)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }

    logits: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        self.levels = levels
        super().__init__(self.logits.shape[:-1], torch.Size(), validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Whole numbers from 0 to L - 1."""
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> DiscretizedLogistic:
        """See ``torch.distributions.Distribution``."""
        shape = (*batch_shape, self.logits.shape[-1])
        numbers = (self.logits.expand(shape), self.loc.expand(shape), self.scale.expand(shape))
        return DiscretizedLogistic(*numbers, self.levels, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of levels ``(...)``, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        last = self.levels - 1
        value = value[..., None]
        half = 1 / (last * self.scale)  # half a level, in units of the scale
        middle = (value * (2 / last) - 1 - self.loc) / self.scale
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): no difference of nearly equal numbers.
        below = torch.where(value > 0, logsigmoid(half - middle), 0.0)
        above = torch.where(value < last, logsigmoid(middle + half), 0.0)
        within = torch.where((value > 0) & (value < last), torch.log(-torch.expm1(-2 * half)), 0.0)
        return (self.logits.log_softmax(-1) + below + above + within).logsumexp(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Levels ``(*sample_shape, ...)``, as floating-point numbers."""
        shape = (*sample_shape, *self.logits.shape)
        with torch.no_grad():
            uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(1e-6, 1 - 1e-6)
            gumbel = -torch.log(-torch.rand_like(uniform).clamp(1e-6, 1 - 1e-6).log())
            chosen = (self.logits + gumbel).argmax(-1, keepdim=True)
            points = (self.loc + self.scale * torch.logit(uniform)).gather(-1, chosen)[..., 0]
            return ((points + 1) * ((self.levels - 1) / 2)).round().clamp(0, self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """Of the levels, as if the densities were not rounded ``(...)``."""
        return ((self.logits.softmax(-1) * self.loc).sum(-1).clamp(-1, 1) + 1) * ((self.levels - 1) / 2)
