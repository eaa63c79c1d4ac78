"""The negative ELBO of a fit at fixed draws, as a function of its variational parameters, with its first two derivatives."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from vipack.entry import on_its_own
from vipack.errors import GuideError
from vipack.posterior.linear_response.base_draws import FromNoise, Noise, base_noise, drawn_sites
from vipack.posterior.observations import Observations
from vipack.posterior.posterior import Posterior
from vipack.posterior.vectorize import Vectorizer, vmap_or_loop
from vipack.program import Arguments, Program, seeded
from vipack.program.densities.densities import total
from vipack.program.densities.vmappable import vmappable_densities
from vipack.program.evaluation.evaluation import Evaluation

__all__ = [
    "NUMBERS_AT_ONCE",
    "Block",
    "FixedDraws",
    "Parameters",
    "block_of",
    "draws_are_sites",
    "even_sizes",
    "negative_elbo",
    "negative_log_q",
    "weighted_gradients",
]

NUMBERS_AT_ONCE = 4_000_000  # of one pass with a graph for its gradient, in which each is kept some ten times
_LEAST_ROWS = 16  # of a block of the data


def negative_elbo(evaluation: Evaluation, noise: Noise) -> Tensor:
    """log q(z) - log p(x, z) ``()`` in nats at the draw that `noise` makes."""
    with FromNoise(noise):
        latents, log_q, _ = evaluation.draw()
    log_p: Tensor = evaluation.evaluate(latents)[1]
    return log_q - log_p


def negative_log_q(evaluation: Evaluation, noise: Noise) -> Tensor:
    """-log q(z) ``()`` in nats at that draw, which stays as parameters move: its mean Hessian is the Fisher information."""
    guide = evaluation.program.guide
    with FromNoise(noise):
        trace = evaluation.guide(guide)
    drawn = {name: node["value"].detach() for name, node in drawn_sites(trace)}
    return -total(evaluation.guide(poutine.condition(guide, data=drawn)), None)[0]


def draws_are_sites(evaluation: Evaluation) -> bool:
    """Whether what the guide's sites draw makes the latents, whatever its parameters, so that log q can be had at a draw."""
    guide = evaluation.program.guide
    if isinstance(poutine.unwrap(guide), Messenger):
        return False
    with seeded(0):
        trace = evaluation.guide(guide)
    drawn = {name: node["value"].detach() for name, node in drawn_sites(trace)}
    with seeded(1):
        again = evaluation.guide(poutine.condition(guide, data=drawn))
    pairs = [(trace.nodes[name]["value"], again.nodes[name]["value"]) for name in evaluation.latents]
    return all(torch.equal(one, two) and not two.requires_grad for one, two in pairs)


@dataclass(frozen=True)
class Block:
    """Some draws on some rows of the data.

    Attributes:
        weight: of its mean over draws in the negative ELBO.
    """

    evaluation: Evaluation
    noise: Noise
    number: int
    weight: float
    seed: int


class Parameters:
    """The guide's parameters as one vector of P unconstrained numbers; those of the model alone are left as they are."""

    def __init__(self, program: Program, evaluation: Evaluation) -> None:
        self._program = program
        self.values = {
            name: value.detach().requires_grad_() for name, value in program.parameters.unconstrained.items()
        }
        shared: dict[int, Tensor] = {}
        for name, value in program.parameters.unconstrained.items():  # two names may share one tensor
            self.values[name] = shared.setdefault(id(value), self.values[name])
        distinct = list({id(value): value for value in self.values.values()}.values())
        with self.running(evaluation.arguments), seeded(0):
            latents, log_q, _ = evaluation.draw()
        output = log_q + sum(value.double().sum() for value in latents.values())
        gradients = torch.autograd.grad(output, distinct, allow_unused=True) if output.requires_grad else []
        self.tensors = [value for value, slope in zip(distinct, gradients, strict=False) if slope is not None]
        self._names = {id(value): name for name, value in self.values.items()}
        self._check(program)

    def _check(self, program: Program) -> None:
        if not self.tensors:
            raise GuideError("linear_response: the guide has no parameters that its draws depend on.")
        weights = {id(value) for value in program.parameters.of_networks()}
        own = program.parameters.unconstrained
        networks = [self._names[id(v)] for v in self.tensors if id(own[self._names[id(v)]]) in weights]
        if networks:
            raise GuideError(
                f"linear_response: parameter {networks[0]!r} is a weight of a network in the guide. The weights of an amortised "
                "guide or a flow are shared by its latents and not identified, so that the negative ELBO has no single minimum "
                "in them; fit a guide with variational parameters for each latent, such as AutoNormal."
            )

    def __len__(self) -> int:
        return sum(value.numel() for value in self.tensors)

    def name_at(self, index: int) -> str:
        """The name of the parameter that has number `index` of the vector."""
        for value in self.tensors:
            if index < value.numel():
                return self._names[id(value)]
            index -= value.numel()
        raise IndexError(index)

    def split(self, vectors: Tensor) -> list[Tensor]:
        """``(G, P)`` as one tensor ``(G, *shape)`` for each parameter, in its own type."""
        pieces = vectors.split([value.numel() for value in self.tensors], dim=1)
        return [
            piece.reshape(-1, *value.shape).to(value.dtype) for piece, value in zip(pieces, self.tensors, strict=True)
        ]

    def join(self, gradients: Sequence[Tensor | None], number: int) -> Tensor:
        """The inverse of :meth:`split`, in float64; None stands for zeros."""
        pieces = [
            torch.zeros(number, value.numel(), dtype=torch.float64, device=value.device)
            if gradient is None
            else gradient.reshape(number, -1).double()
            for gradient, value in zip(gradients, self.tensors, strict=True)
        ]
        return torch.cat(pieces, dim=1)

    @contextlib.contextmanager
    def moved(self, by: Tensor) -> Iterator[None]:
        """Inside the block the parameters are moved by a vector ``(P,)``."""
        # Other tensors than before, since a graph that is kept would notice if its own moved.
        values, tensors = self.values, self.tensors
        steps = self.split(by[None])
        other = {
            id(value): (value.detach() + step[0]).requires_grad_() for value, step in zip(tensors, steps, strict=True)
        }
        self.tensors = list(other.values())
        self.values = {name: other.get(id(value), value) for name, value in values.items()}
        try:
            yield
        finally:
            self.values, self.tensors = values, tensors

    @contextlib.contextmanager
    def running(self, arguments: Arguments) -> Iterator[None]:
        """What the program runs in, evaluated, with gradients to these parameters."""
        bound = self._program.bound(arguments, values=self.values, training=False)
        with on_its_own(), bound, pyro.validation_enabled(False), vmappable_densities():
            yield


class FixedDraws:
    """`num_particles` draws of the guide from noise that stays, in blocks that fit in memory.

    Args:
        observations: the rows of the data; None evaluates the program on all of them at once.
        loss: of one draw, in nats; the negative ELBO is its mean.
    """

    def __init__(
        self,
        posterior: Posterior,
        parameters: Parameters,
        num_particles: int,
        seed: int,
        observations: Observations | None,
        *,
        loss: Callable[[Evaluation, Noise], Tensor] = negative_elbo,
    ) -> None:
        self.parameters = parameters
        self._loss = loss
        self.vectorizer = Vectorizer()
        self.vectorizer.allowed = ("vmap", "loop")
        self._seed = seed
        self.blocks = self._cut(posterior, num_particles, observations)
        self._kept: tuple[Tensor, list[Tensor | None]] | None = None

    def gradient(self) -> tuple[float, Tensor]:
        """The negative ELBO in nats, and its gradient ``(P,)``."""
        loss, total = 0.0, torch.zeros(len(self.parameters), dtype=torch.float64)
        for block in self.blocks:
            value, gradients = self._gradients(block, create_graph=False)
            loss += float(value.detach())
            total = total + self.parameters.join(gradients, 1)[0].cpu()
        return loss, total

    def product(self, vectors: Tensor) -> Tensor:
        """The Hessian times each of `vectors` ``(G, P)``, by differentiating the gradient.

        Raises:
            RuntimeError: some operation of the program has no second derivative.
        """
        total = torch.zeros_like(vectors)
        for block in self.blocks:
            _, gradients = self._kept_gradients(block)
            at_once = max(1, int(NUMBERS_AT_ONCE // max(1, block.evaluation.numbers * block.number)))
            for start in range(0, len(vectors), at_once):
                some = vectors[start : start + at_once]
                total[start : start + at_once] += jacobian_products(self.parameters, gradients, some).to(total.device)
        return total

    def differences(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """As :meth:`product`, by central differences of gradients, a step of `lengths` ``(G,)`` to either side."""
        results = []
        for vector, length in zip(vectors, lengths.tolist(), strict=True):
            if length == 0:
                results.append(torch.zeros_like(vector))
                continue
            with self.parameters.moved(vector * length):
                _, ahead = self.gradient()
            with self.parameters.moved(-vector * length):
                _, behind = self.gradient()
            results.append(((ahead - behind) / (2 * length)).to(vector.device))
        return torch.stack(results)

    def _kept_gradients(self, block: Block) -> tuple[Tensor, list[Tensor | None]]:
        if len(self.blocks) > 1:
            return self._gradients(block, create_graph=True)
        if self._kept is None:
            self._kept = self._gradients(block, create_graph=True)
        return self._kept

    def _gradients(self, block: Block, *, create_graph: bool) -> tuple[Tensor, list[Tensor | None]]:
        def one(noise: Noise) -> Tensor:
            return self._loss(block.evaluation, noise)

        with self.parameters.running(block.evaluation.arguments), seeded(block.seed):
            losses = self.vectorizer.run(
                "model", vmap_or_loop(one, block.noise, block.number), block.evaluation.arguments
            )
            loss = block.weight * losses.mean()
            gradients = torch.autograd.grad(loss, self.parameters.tensors, create_graph=create_graph, allow_unused=True)
        return loss, list(gradients)

    def _cut(self, posterior: Posterior, number: int, observations: Observations | None) -> list[Block]:
        program, whole = posterior.program, posterior.evaluation
        calls = [(whole, 1.0)]
        if 2 * whole.numbers > NUMBERS_AT_ONCE and observations is not None and _can_be_cut(program, whole):
            rows = observations.num_rows
            size = min(rows, max(_LEAST_ROWS, rows * NUMBERS_AT_ONCE // (2 * whole.numbers)))
            calls = []
            for indices in torch.arange(rows, device="cpu").split(size):
                arguments = observations.rows(indices)
                with self.parameters.running(arguments), torch.no_grad(), seeded(0):
                    calls.append((Evaluation(program, arguments), len(indices) / rows))
        sizes = even_sizes(number, NUMBERS_AT_ONCE // max(1, calls[0][0].numbers))
        blocks: list[Block] = []
        for evaluation, share in calls:
            for size in sizes:
                seed = (1_000 * self._seed + len(blocks)) % 2**32
                blocks.append(block_of(evaluation, size, share * size / number, seed))
        return blocks


def block_of(evaluation: Evaluation, number: int, weight: float, seed: int) -> Block:
    """`number` draws from the noise of `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return Block(evaluation, base_noise(evaluation.guide_trace, number, generator), number, weight, seed)


def even_sizes(number: int, most: int) -> list[int]:
    """`number`, which is even, as a sum of even numbers of at most `most`, or 2 if that is less."""
    pairs_at_once = max(1, most // 2)
    full, rest = divmod(number // 2, pairs_at_once)
    return [2 * pairs_at_once] * full + [2 * rest] * bool(rest)


def jacobian_products(parameters: Parameters, outputs: Sequence[Tensor | None], vectors: Tensor) -> Tensor:
    """``(G, P)``: each of `vectors` ``(G, P)``, as weights of `outputs`, which are of the parameters' shapes, differentiated."""
    weights = parameters.split(vectors)
    used = [(o, w) for o, w in zip(outputs, weights, strict=True) if o is not None and o.requires_grad]
    if not used:
        return torch.zeros_like(vectors)
    return weighted_gradients(parameters, [o for o, _ in used], [w for _, w in used])


def weighted_gradients(parameters: Parameters, outputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Gradients ``(G, P)`` of `outputs` weighted by `weights` ``(G, *output shape)``, in float64."""

    def gradients(chosen: Sequence[Tensor], batched: bool) -> list[Tensor | None]:
        return list(
            torch.autograd.grad(
                outputs,
                parameters.tensors,
                grad_outputs=chosen,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=batched,
            )
        )

    number = len(weights[0])
    if number > 1:
        # Some derivatives cannot be taken for many vectors at once; a RuntimeError of one alone says what is wrong.
        with contextlib.suppress(RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return parameters.join(gradients(weights, True), number)
    return torch.cat([parameters.join(gradients([w[i] for w in weights], False), 1) for i in range(number)])


def _can_be_cut(program: Program, evaluation: Evaluation) -> bool:
    """Whether the bound is a sum over rows: no latent that is summed out is shared by several of them."""
    plate = program.batch_plate
    return plate is not None and all(plate.name in site.plates for site in evaluation.table.of_kind("enumerated"))
