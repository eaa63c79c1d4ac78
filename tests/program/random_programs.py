"""Random programs out of Pyro's effect handlers, each with a twin that plain Pyro evaluates rightly.

The twin leaves out what only training needs (subsampling), and its guide wears the masks of the model's latents.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer.reparam import HaarReparam, LocScaleReparam, SplitReparam
from pyro.poutine.messenger import Messenger

WRAPPERS = ("scale", "mask", "condition", "block", "do", "reparam", "replay", "split", "haar")
EFFECTS = torch.tensor([-1.0, 0.5, 2.0])  # of the labels


@dataclass(frozen=True)
class Spec:
    """What a program is made of.

    Attributes:
        rows, cols: of the data; without columns (0) an observation is one number.
        columns: "plate", "event" or "chain" (a discrete Markov chain along them, where there are labels).
        sequential: rows one by one, as in ``for i in pyro.plate(...)``.
        groups: of a plate with a latent for each; 0 for none.
        local: a latent for each row: "", "plain" or "masked".
        simplex: of which each is three shares.
        labels: discrete latents that are summed out: "", "global", "group", "row" or "global and row".
        label: the distribution of a row's label: "Categorical", "Bernoulli" or "OneHotCategorical".
        expand: their values are enumerated for each row, as by ``config_enumerate(expand=True)``.
        label_mask: rows whose label, and observation, is masked: "", "poutine" or "fn".
        observed: "sample", "factor", "obs_mask", "poutine.mask" or "fn.mask".
        scale: of everything in the rows' plate.
        wrappers: handlers around the model, innermost first.
        guide: what the guide has beside its latents: "auxiliary", "factor", "deterministic", "observed".
        noise: sd of the observations.
    """

    rows: int = 3
    cols: int = 0
    columns: str = "plate"
    sequential: bool = False
    groups: int = 0
    local: str = ""
    simplex: bool = False
    labels: str = ""
    label: str = "Categorical"
    expand: bool = False
    label_mask: str = ""
    observed: str = "sample"
    scale: float = 1.0
    subsample: bool = False
    wrappers: tuple[str, ...] = ()
    guide: frozenset[str] = field(default_factory=frozenset)
    dtype: torch.dtype = torch.float64
    noise: float = 0.7
    seed: int = 0

    @property
    def chain(self) -> bool:
        return self.columns == "chain" and self.cols > 0 and "row" in self.labels

    @property
    def enumerates(self) -> bool:
        return bool(self.labels)

    @property
    def masks_rows(self) -> bool:
        return self.observed in ("poutine.mask", "fn.mask") or bool(self.label_mask)


@st.composite
def specs(draw: Any) -> Spec:
    sequential = draw(st.booleans())
    rows = draw(st.integers(1, 4))
    cols = 0 if sequential else draw(st.integers(0, 3))
    labels = draw(st.sampled_from(["", "", "", "global", "group", "row", "row", "global and row"]))
    columns = draw(st.sampled_from(["plate", "event", "chain"]))
    chain = columns == "chain" and cols > 0 and "row" in labels
    label_mask = draw(st.sampled_from(["", "poutine", "fn"])) if "row" in labels else ""
    observed = draw(st.sampled_from(["sample", "factor", "obs_mask", "poutine.mask", "fn.mask"]))
    if sequential or chain or (observed == "obs_mask" and label_mask):
        observed = "sample" if observed in ("obs_mask", "factor") else observed
    local = draw(st.sampled_from(["", "plain", "masked"]))
    return Spec(
        rows=rows,
        cols=cols,
        columns=columns if columns != "chain" or chain else "plate",
        sequential=sequential,
        groups=draw(st.integers(2, 3)) if labels == "group" else draw(st.sampled_from([0, 2, 3])),
        local=local if local != "masked" or observed in ("poutine.mask", "fn.mask") else "plain",
        simplex=draw(st.booleans()) and bool(local),
        labels=labels,
        label=draw(st.sampled_from(["Categorical", "Bernoulli", "OneHotCategorical"])) if not chain else "Categorical",
        expand=draw(st.booleans()) and not chain,
        label_mask=label_mask,
        observed=observed,
        scale=draw(st.sampled_from([1.0, 1.0, 0.5, 3.0])) if labels in ("", "row") else 1.0,
        subsample=draw(st.booleans()) if labels in ("", "row") and not sequential else False,
        wrappers=tuple(draw(st.lists(st.sampled_from(WRAPPERS), unique=True, max_size=4))),
        guide=draw(st.frozensets(st.sampled_from(["auxiliary", "factor", "deterministic", "observed"]))),
        dtype=draw(st.sampled_from([torch.float64, torch.float64, torch.float32])),
        seed=draw(st.integers(0, 1_000)),
    )


class Program:
    """A model and its guide from a spec; ``twin=True`` makes the twin."""

    def __init__(self, spec: Spec, *, twin: bool = False) -> None:
        self.spec, self.twin = spec, twin
        generator = torch.Generator().manual_seed(spec.seed)
        shape = (spec.rows, spec.cols) if spec.cols else (spec.rows,)
        self.y = torch.randn(shape, generator=generator, dtype=torch.float64).to(spec.dtype)
        self.group = torch.arange(spec.rows) % max(1, spec.groups)
        self.seen = torch.rand(spec.rows, generator=generator) < 0.6  # rows that a mask keeps
        self.model = self._wrapped()

    def data(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The row numbers, as covariates, and the observations."""
        return torch.arange(self.spec.rows).to(self.spec.dtype), self.y

    # --- the model

    def _wrapped(self) -> Any:
        model: Any = self._model
        for name in self.spec.wrappers:
            if name == "scale":
                model = poutine.scale(model, scale=0.7)
            elif name == "mask":
                model = poutine.mask(model, mask=torch.tensor(True))
            elif name == "condition":
                model = poutine.condition(model, data={"c": torch.tensor(0.4, dtype=self.spec.dtype)})
            elif name == "block":
                model = poutine.block(model, hide=["hidden"])
            elif name == "do":
                model = poutine.do(model, data={"d": torch.tensor(-0.3, dtype=self.spec.dtype)})
            elif name == "reparam":
                model = poutine.reparam(model, config={"a": LocScaleReparam(0.5), "b": LocScaleReparam(0.0)})
            elif name == "split":
                model = poutine.reparam(model, config={"v": SplitReparam([1, 2], -1)})
            elif name == "haar":
                model = poutine.reparam(model, config={"h": HaarReparam(dim=-1)})
            elif name == "replay":
                model = poutine.replay(model, trace=self._replayed())
        return model

    def _replayed(self) -> Any:
        def fixed() -> None:
            pyro.sample("r", dist.Normal(torch.zeros((), dtype=self.spec.dtype), 1.0))

        return poutine.trace(fixed).get_trace()

    def _model(self, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        spec = self.spec
        a = pyro.sample("a", dist.Normal(0.3, 1.2))
        s = pyro.sample("s", dist.LogNormal(0.0, 0.3))
        loc = a + 0.1 * s
        for name in ("condition", "do", "replay"):
            if name in spec.wrappers:
                loc = loc + 0.2 * pyro.sample({"condition": "c", "do": "d", "replay": "r"}[name], dist.Normal(0.0, 1.0))
        for name, site in (("split", "v"), ("haar", "h")):
            if name in spec.wrappers:
                size = 3 if name == "split" else 4
                loc = loc + pyro.sample(site, dist.Normal(torch.zeros(size), 0.5).to_event(1))[0]
        if "block" in spec.wrappers:
            pyro.sample("hidden", dist.Normal(a, 1.0), obs=torch.tensor(0.1))
        pyro.deterministic("shifted", loc + 1)
        effect = None
        if "global" in spec.labels:
            label = pyro.sample("g", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])), infer={"enumerate": "parallel"})
            effect = pyro.deterministic("effect", EFFECTS.to(spec.dtype)[label])
        if spec.groups:
            with self._plate("group", spec.groups):
                b = pyro.sample("b", dist.Normal(a, s))
                if spec.labels == "group":
                    # One number for all groups, so that rows need not be looked up in a dimension of another plate.
                    vote = pyro.sample("k", dist.Bernoulli(torch.tensor(0.3)), infer={"enumerate": "parallel"})
                    pyro.factor("votes", 0.5 * vote * b)
            loc = loc + b.mean(-1)
        if spec.sequential:
            for i in pyro.plate("row", len(x)):
                self._row(f"_{i}", loc, effect, x[i], None if y is None else y[i], self._seen(x)[i])
        else:
            with self._rows(x) as rows:
                self._row("", loc, effect, x[rows], None if y is None else y[rows], self._seen(x)[rows])

    def _row(self, end: str, loc: Any, effect: Any, x: Any, y: Any, seen: Any) -> None:
        """One row, or all of them in a plate."""
        spec = self.spec
        loc = loc + 0.1 * x
        if effect is not None:
            loc = loc + effect
        with poutine.scale(scale=spec.scale):
            if spec.local:
                fn = dist.Dirichlet(torch.tensor([2.0, 1.0, 3.0])) if spec.simplex else dist.Normal(0.2, 0.8)
                by_fn = spec.local == "masked" and spec.observed == "fn.mask"
                fn = fn.mask(seen) if by_fn else fn
                with self._mask(seen) if spec.local == "masked" and not by_fn else contextlib.nullcontext():
                    z = pyro.sample(f"z{end}", fn)
                    loc = loc + (z[..., 0] if spec.simplex else z)
            if spec.chain:
                self._chain(loc, y, seen)
                return
            if "row" in spec.labels:
                loc = loc + self._label_effect(f"k{end}", seen)
            self._observe(f"y{end}", loc, y, seen)

    def _label_effect(self, name: str, seen: Any) -> Any:
        spec = self.spec
        probs = torch.tensor([0.2, 0.3, 0.5])
        if spec.label == "Bernoulli":
            return 1.5 * self._label(name, dist.Bernoulli(probs[0]), seen)
        if spec.label == "OneHotCategorical":
            return self._label(name, dist.OneHotCategorical(probs), seen) @ EFFECTS.to(spec.dtype)
        return EFFECTS.to(spec.dtype)[self._label(name, dist.Categorical(probs), seen)]

    def _label(self, name: str, fn: Any, seen: Any) -> Any:
        if self.spec.label_mask == "fn":
            fn = fn.mask(seen) if not self.twin else fn
        with self._mask(seen) if self.spec.label_mask == "poutine" else contextlib.nullcontext():
            return pyro.sample(name, fn, infer={"enumerate": "parallel", "expand": self.spec.expand})

    def _chain(self, loc: Any, y: Any, seen: Any) -> None:
        """A hidden Markov chain along the columns."""
        spec = self.spec
        move = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]], dtype=spec.dtype)
        label: Any = 0
        for t in pyro.markov(range(spec.cols)):
            label = self._label(f"k_{t}", dist.Categorical(move[label]), seen)
            self._observe(f"y_{t}", loc + EFFECTS.to(spec.dtype)[label], None if y is None else y[..., t], seen)

    def _observe(self, name: str, loc: Any, y: Any, seen: Any) -> None:
        spec = self.spec
        wide = spec.cols and not spec.chain
        scale = torch.tensor(spec.noise, dtype=spec.dtype)
        fn = dist.Normal(
            loc[..., None].expand(*loc.shape, spec.cols) if wide and spec.columns == "event" else loc, scale
        )
        with contextlib.ExitStack() as stack:
            if wide and spec.columns == "event":
                fn = fn.to_event(1)
            elif wide:
                # The columns to the left of the rows, whose observations are transposed.
                stack.enter_context(pyro.plate("column", spec.cols, dim=-2))
                y = None if y is None else y.mT
            masked = spec.observed in ("poutine.mask", "fn.mask") or spec.label_mask
            if spec.observed == "obs_mask" and y is not None:
                pyro.sample(name, fn, obs=y, obs_mask=seen)
                return
            if spec.observed == "factor" and y is not None:
                pyro.factor(name, fn.log_prob(y))
                return
            if masked and spec.observed == "fn.mask":
                fn = fn.mask(seen)
            elif masked:
                stack.enter_context(self._mask(seen))
            pyro.sample(name, fn, obs=y)

    # --- the guide

    def guide(self, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        spec = self.spec
        shift = torch.tensor(0.1)
        if "auxiliary" in spec.guide:
            shift = shift + 0.2 * pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        reparam = "_decentered" if "reparam" in spec.wrappers else ""
        a = pyro.sample(f"a{reparam}", dist.Normal(shift, 0.5))
        pyro.sample("s", dist.LogNormal(0.1, 0.4))
        for name, site in (("do", "d"), ("replay", "r")):
            if name in spec.wrappers:
                pyro.sample(site, dist.Normal(0.2, 0.9))
        if "split" in spec.wrappers:
            for i, size in enumerate((1, 2)):
                pyro.sample(f"v_split_{i}", dist.Normal(torch.zeros(size), 0.6).to_event(1))
        if "haar" in spec.wrappers:
            pyro.sample("h_haar", dist.Normal(torch.full((4,), 0.1), 0.6).to_event(1))
        if "factor" in spec.guide:
            pyro.factor("guide_factor", 0.3 * a, has_rsample=True)
        if "deterministic" in spec.guide:
            pyro.deterministic("guide_value", 2 * a)
        if "observed" in spec.guide:
            pyro.sample("guide_observed", dist.Normal(a, 1.0), obs=torch.tensor(0.2))
        if spec.groups:
            with self._plate("group", spec.groups):
                pyro.sample(f"b{reparam}", dist.Normal(0.4, 0.6))
        hidden = spec.observed == "obs_mask"
        if spec.sequential and spec.local:
            for i in pyro.plate("row", len(x)):
                with self._twin_mask(self._seen(x)[i]):
                    pyro.sample(f"z_{i}", self._local(torch.tensor(0.1 * i)))
        elif spec.local or hidden:
            with self._rows(x) as rows:
                seen = self._seen(x)[rows]
                if spec.local:
                    with self._twin_mask(seen):
                        pyro.sample("z", self._local(0.1 * x[rows]))
                if hidden:
                    self._hidden(~seen)

    def _hidden(self, missing: Any) -> None:
        """The unobserved part of the data."""
        spec = self.spec
        fn = dist.Normal(torch.tensor(0.5), 1.1)
        with contextlib.ExitStack() as stack:
            if spec.cols and spec.columns == "event":
                fn = fn.expand([spec.cols]).to_event(1)
            elif spec.cols:
                stack.enter_context(pyro.plate("column", spec.cols, dim=-2))
            if self.twin:
                stack.enter_context(poutine.mask(mask=missing))
            pyro.sample("y_unobserved", fn)

    def _local(self, shift: torch.Tensor) -> Any:
        if not self.spec.simplex:
            return dist.Normal(shift, 0.7)
        return dist.Dirichlet(torch.tensor([1.5, 2.0, 2.5]) + shift[..., None])

    def _twin_mask(self, seen: Any) -> Any:
        return self._mask(seen) if self.twin and self.spec.local == "masked" else contextlib.nullcontext()

    # --- parts

    def _plate(self, name: str, size: int) -> Any:
        return pyro.plate(name, size, dim=-1)

    def _rows(self, x: torch.Tensor) -> Any:
        subsample = max(1, len(x) - 1) if self.spec.subsample and not self.twin else None
        return pyro.plate("row", len(x), subsample_size=subsample, dim=-1)

    def _seen(self, x: torch.Tensor) -> torch.Tensor:
        return self.seen.repeat(len(x) // len(self.seen) + 1)[: len(x)]

    def _mask(self, seen: Any) -> Any:
        return poutine.mask(mask=torch.as_tensor(seen))


class Drawn(Messenger):
    """Gives the guide's statements values, as if it had drawn them."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg["value"], msg["done"] = self.values[msg["name"]], True
