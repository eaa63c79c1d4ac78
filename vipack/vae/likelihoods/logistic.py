"""The likelihood of grey levels: whole numbers, by a mixture of logistic densities rounded to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from vipack.compat.pytorch import validate_sample, validation_refused
from vipack.errors import UsageError
from vipack.hints import checked_class
from vipack.vae.likelihoods.likelihood import Likelihood, shape_of

__all__ = ["DiscretizedLogistic", "DiscretizedLogisticMixture"]


@checked_class
@final
class DiscretizedLogisticMixture(Likelihood):
    """Elements that are whole levels from 0 to `levels` - 1, such as bytes, each by a mixture of its own.

    Args:
        components: K, of the mixture.
        levels: 256 for bytes.
        linked: for colour images (3, H, W): the channels of a pixel share a component, and the mean of each depends on the
            levels of those before it. Else they are independent given z.

    Source: Salimans et al. (2017), PixelCNN++, arXiv:1701.05517, sections 2.1 and 2.2.
    """

    def __init__(
        self, shape: int | Sequence[int], *, components: int = 5, levels: int = 256, linked: bool = False
    ) -> None:
        sizes = shape_of("DiscretizedLogisticMixture", shape)
        if components < 1 or levels < 2:
            raise UsageError(
                "DiscretizedLogisticMixture: components must be at least 1 and levels at least 2, found "
                f"components={components}, levels={levels}."
            )
        if linked and (len(sizes) != 3 or sizes[0] != 3):
            raise UsageError(f"DiscretizedLogisticMixture: linked=True is for shape (3, H, W), found {sizes}.")
        super().__init__(sizes, ((4 if linked else 3) * components, *sizes))
        self.linked = linked
        self.components = components
        self.levels = levels

    def forward(self, parameters: Tensor, x: Tensor | None = None) -> Any:
        """See :class:`Likelihood`."""
        numbers = parameters.movedim(-1 - len(self.shape), -1)
        logits, loc, raw, *links = numbers.split(self.components, -1)
        # In units of half the range; a scale much below the distance of two levels makes no difference.
        scale = softplus(raw) + 0.25 / (self.levels - 1)
        if links:
            return LinkedLogistic(logits.sum(-4), loc, scale, links[0].tanh(), self.levels)
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
        if self.linked:
            numbers = torch.cat([numbers, torch.zeros_like(numbers[:1])])
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
        return DiscretizedLogistic(*numbers, self.levels, validate_args=False if validation_refused(self) else None)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of levels ``(...)``, in nats."""
        validate_sample(self, value)
        log_p = _log_levels(value[..., None], self.loc, self.scale, self.levels)
        return (self.logits.log_softmax(-1) + log_p).logsumexp(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Levels ``(*sample_shape, ...)``, as floating-point numbers."""
        shape = torch.Size([*sample_shape, *self.logits.shape])
        with torch.no_grad():
            chosen = _component(self.logits.expand(shape))
            loc, scale = (each.expand(shape).gather(-1, chosen)[..., 0] for each in (self.loc, self.scale))
            return _level(_logistic(loc, scale), self.levels)

    @property
    def mean(self) -> Tensor:
        """Of the levels, as if the densities were not rounded ``(...)``."""
        return ((self.logits.softmax(-1) * self.loc).sum(-1).clamp(-1, 1) + 1) * ((self.levels - 1) / 2)


class LinkedLogistic(TorchDistribution):  # type: ignore[misc]
    """Colour images ``(3, H, W)`` of whole levels 0 to L - 1: in each pixel a mixture of K, whose channels depend on each other.

    In units of half the range from its middle, the means are ``loc_1``, ``loc_2 + link_1 u_1`` and
    ``loc_3 + link_2 u_1 + link_3 u_2``, where u are the levels of the channels before.

    Args:
        logits: ``(..., H, W, K)``.
        loc, scale, link: ``(..., 3, H, W, K)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        link: Tensor,
        levels: int = 256,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.loc, self.scale, self.link, self.levels = logits, loc, scale, link, levels
        super().__init__(loc.shape[:-4], loc.shape[-4:-1], validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Whole numbers from 0 to L - 1."""
        return constraints.independent(constraints.integer_interval(0, self.levels - 1), 3)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> LinkedLogistic:
        """See ``torch.distributions.Distribution``."""
        logits = self.logits.expand(*batch_shape, *self.logits.shape[-3:])
        loc, scale, link = (each.expand(*batch_shape, *each.shape[-4:]) for each in (self.loc, self.scale, self.link))
        return LinkedLogistic(
            logits, loc, scale, link, self.levels, validate_args=False if validation_refused(self) else None
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of images ``(..., 3, H, W)``, in nats."""
        validate_sample(self, value)
        return self.log_prob_by_entry(value).sum((-1, -2, -3))

    def log_prob_by_entry(self, value: Tensor) -> Tensor:
        """log p of each pixel ``(..., 1, H, W)``, whose channels depend on each other."""
        value = value[..., None]
        first, second, _ = (value * (2 / (self.levels - 1)) - 1).unbind(-4)
        log_p = _log_levels(value, torch.stack(self._means(first, second), -4), self.scale, self.levels).sum(-4)
        return (self.logits.log_softmax(-1) + log_p).logsumexp(-1).unsqueeze(-3)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Images ``(*sample_shape, ..., 3, H, W)``, one channel after the other."""
        with torch.no_grad():
            logits = self.logits.expand(*sample_shape, *self.logits.shape)
            chosen = _component(logits)
            drawn: list[Tensor] = []
            for channel, scale in enumerate(self.scale.unbind(-4)):
                known = [2 * level[..., None] / (self.levels - 1) - 1 for level in drawn] + [
                    torch.zeros_like(chosen)
                ] * 2
                mean = self._means(*known[:2])[channel].expand(logits.shape).gather(-1, chosen)[..., 0]
                noise = _logistic(mean, scale.expand(logits.shape).gather(-1, chosen)[..., 0])
                drawn.append(_level(noise, self.levels))
            return torch.stack(drawn, -3)

    @property
    def mean(self) -> Tensor:
        """Of the levels, as if the densities were not rounded ``(..., 3, H, W)``."""
        first, *_ = self._means(torch.zeros_like(self.logits), torch.zeros_like(self.logits))
        _, second, _ = self._means(first, torch.zeros_like(self.logits))
        means = torch.stack(self._means(first, second), -4)
        return ((self.logits.softmax(-1)[..., None, :, :, :] * means).sum(-1).clamp(-1, 1) + 1) * (
            (self.levels - 1) / 2
        )

    def _means(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each channel's components, given the first two channels from -1 to 1."""
        (one, two, three), (link_1, link_2, link_3) = self.loc.unbind(-4), self.link.unbind(-4)
        return one.expand_as(two), two + link_1 * first, three + link_2 * first + link_3 * second


def _log_levels(value: Tensor, loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    """log p of levels by the logistic density of each component, in nats."""
    last = levels - 1
    half = 1 / (last * scale)  # half a level, in units of the scale
    middle = (value * (2 / last) - 1 - loc) / scale
    # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): no difference of nearly equal numbers.
    below = torch.where(value > 0, logsigmoid(half - middle), 0.0)
    above = torch.where(value < last, logsigmoid(middle + half), 0.0)
    within = torch.where((value > 0) & (value < last), torch.log(-torch.expm1(-2 * half)), 0.0)
    return below + above + within


def _component(logits: Tensor) -> Tensor:
    """A draw of the component ``(..., 1)``, by the largest of perturbed logits, which vmap takes."""
    uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
    return (logits - torch.log(-uniform.log())).argmax(-1, keepdim=True)


def _logistic(loc: Tensor, scale: Tensor) -> Tensor:
    """A draw of the logistic distribution."""
    return loc + scale * torch.logit(torch.rand_like(loc).clamp(1e-6, 1 - 1e-6))


def _level(points: Tensor, levels: int) -> Tensor:
    """The level nearest to points on [-1, 1]."""
    return ((points + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1)
