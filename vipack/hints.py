"""What a name that does not exist was meant to be: options as other libraries call them, and misspellings."""

from __future__ import annotations

import collections.abc
import difflib
import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from vipack.errors import SignatureError, UsageError, VipackError

__all__ = ["check_call", "checked", "checked_class", "meant", "name_hint"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_DRAWS = (
    "num_samples", "n_samples", "nsamples", "samples", "draws", "n_draws", "ndraws", "sample_size", "size", "num_posterior_samples",
)  # fmt: skip
_LOSSES = (
    "num_particles", "n_particles", "particles", "obj_n_mc", "elbo", "objective", "criterion", "loss_fn", "estimator",
    "vectorize_particles",
)  # fmt: skip

# what is to be written -> how Pyro, NumPyro, PyMC, scvi-tools, scikit-learn and others call it
_OPTIONS: dict[str, tuple[str, ...]] = {
    "optim=pyro.optim.Adam({'lr': 0.01})": (
        "lr", "learning_rate", "step_size", "learning_rate_init", "eta", "optimizer", "optimiser", "obj_optimizer",
        "optim_args", "optim_kwargs", "optimizer_kwargs", "weight_decay", "clip_norm", "betas", "scheduler", "lr_scheduler",
    ),
    "steps=": (
        "n", "num_steps", "n_steps", "nsteps", "num_iterations", "n_iterations", "num_iters", "n_iter", "niter", "iter",
        "iters", "iterations", "max_iter", "max_iters", "max_steps", "maxiter", "svi_steps", "n_updates", "step",
    ),
    "epochs=": ("num_epochs", "n_epochs", "nepochs", "max_epochs", "epoch", "nb_epochs"),
    "batch_size=": (
        "batchsize", "minibatch_size", "mini_batch_size", "minibatch", "mini_batch", "subsample_size", "bs", "batch", "n_batch",
    ),
    "batch_plate=": ("plate", "subsample_plate", "batch_dim", "plate_name", "data_plate"),
    "seed=": ("random_state", "random_seed", "rng_seed", "rng_key", "rng", "key", "generator"),
    "num_draws=": (*_DRAWS, "n", "num_particles", "n_particles"),
    "loss=pyro.infer.Trace_ELBO(num_particles=8)": _LOSSES,
    "stop=vipack.Converged()": (
        "tol", "rtol", "atol", "tolerance", "patience", "early_stopping", "convergence", "converged", "stopping", "stop_rule",
        "min_delta", "n_iter_no_change",
    ),
    "stop=vipack.TimeLimit(60)": ("timeout", "max_time", "time_limit", "max_seconds"),
    "callbacks=function": ("callback", "hooks"),
    "progress=True": ("progress_bar", "progressbar", "verbose", "disable_progbar", "progbar", "show_progress", "enable_progress_bar"),
    "engine='auto'": ("jit", "compile", "backend", "tier", "jit_compile"),
    "device='cuda'": ("use_gpu", "gpu", "cuda", "accelerator"),
    "dtype=torch.float64": ("precision", "float64", "double"),
    "restarts=": ("n_restarts", "num_restarts", "n_init", "num_init", "restart", "num_starts"),
    "average=True": ("averaging", "polyak", "swa", "average_iterates"),
    "data=(x, y) or data={'x': x}": (
        "args", "model_args", "kwargs", "model_kwargs", "observed", "obs", "dataset", "train_data", "train_loader", "dataloader",
        "loader", "adata", "x", "y", "X", "new_data", "newdata", "x_new", "X_new", "observations", "inputs",
    ),
    "data=DataLoader(...)": ("shuffle", "num_workers", "drop_last"),
    "fixed=": ("constants", "static", "static_args", "hyperparameters", "constant"),
    "checkpoint=": ("save_path", "checkpoint_path", "resume_from", "ckpt", "save_to"),
    "guide=AutoNormal": ("method", "vi_type", "family", "autoguide", "approximation", "approx", "inference", "q", "variational"),
    "guide=functools.partial(AutoNormal, init_loc_fn=...)": ("init", "init_loc_fn", "start", "init_values", "initvals", "init_params", "init_strategy"),
    "num_particles=": ("n_particles", "particles", "num_samples", "n_samples", "num_draws", "n_mc", "obj_n_mc", "k"),
    "beta=": ("kl_weight", "annealing_factor", "kl_scale"),
    "tolerance=": ("tol", "rtol", "atol", "min_delta", "eps"),
    "min_steps=": ("patience", "burn_in", "warmup", "min_iter", "n_iter_no_change"),
    "seconds=": ("timeout", "max_time", "time", "limit", "max_seconds", "time_limit"),
    "num_steps=": ("n", "steps", "every", "period", "freq", "frequency", "interval", "n_steps", "every_n_steps"),
    "every_steps=": ("steps", "num_steps", "every", "every_n_steps", "save_every", "period"),
    "path=": ("file", "filename", "fname", "filepath", "save_path", "checkpoint_path"),
    "num_layers=": ("n_layers", "layers", "depth", "num_transforms", "n_transforms", "transforms", "num_flows", "n_flows"),
    "hidden=(32, 32)": ("hidden_dim", "hidden_dims", "hidden_size", "hidden_units", "hidden_features", "width", "units", "n_hidden"),
    "components=[AutoNormal, AutoNormal]": ("num_components", "n_components", "parts", "k"),
    "split='train'": ("train", "subset"),
    "folder=": ("root", "data_dir", "cache_dir", "data_home", "download"),
    "vocabulary=": ("vocab", "words", "feature_names", "id2word"),
    "num_topics=": ("n_topics", "n_components", "k", "K", "num_components"),
    "topics=": ("phi", "beta", "components", "components_", "topic_words", "topic_word"),
    "num_words=": ("topn", "top_n", "topk", "n_top_words", "num_top_words", "n_words", "n"),
    "num_splits=": ("splits", "n_splits", "repeats", "folds", "n_folds"),
    "corpus=": ("documents", "docs", "counts", "X", "data", "dtm", "texts"),
    "names=": ("var_names", "variables", "params", "parameters", "sites"),
    "ax=": ("axes", "axis"),
    "axes=": ("ax", "axis"),
    "resample=": ("weighted", "importance", "corrected", "raw", "psis"),
}  # fmt: skip


def check_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """
    Raises:
        SignatureError: `function` cannot be called like this; the argument is named, with what was meant.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
        return
    except TypeError as error:
        problem = error
    name, known = function.__qualname__.removesuffix(".__init__"), [p for p in signature.parameters if p != "self"]
    unknown = [key for key in kwargs if key not in known]
    if unknown:
        hint = meant(unknown[0], known, kwargs[unknown[0]]) or f"{_listed(known)}."
        raise SignatureError(f"{name} takes no argument {unknown[0]!r}; {hint}") from None
    if "data" in known and "data" not in kwargs:
        raise SignatureError(
            f"{name}: {problem}; give the data by keyword, as in data=(x, y) or data={{'x': x}}; () for a model that takes none."
        ) from None
    raise SignatureError(f"{name}: {problem}; {_listed(known)}.") from None


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, whose calls are looked at by :func:`check_call`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        check_call(function, args, kwargs)
        return function(*args, **kwargs)

    return run


def checked_class(kind: type[T]) -> type[T]:
    """`kind`, whose construction is looked at by :func:`check_call`, and explained where an argument is of a wrong type."""
    initialize = kind.__init__

    @functools.wraps(initialize)
    def run(self: T, *args: Any, **kwargs: Any) -> None:
        check_call(kind, args, kwargs)
        try:
            initialize(self, *args, **kwargs)
        except VipackError:
            raise
        except Exception as error:
            problem = _wrong_type(initialize, self, args, kwargs)
            if not problem:
                raise
            raise UsageError(f"{kind.__name__}: {problem}.") from error

    kind.__init__ = run  # type: ignore[assignment, method-assign]
    return kind


def _wrong_type(initialize: Any, *call: Any) -> str:
    """The first argument that is not of the type that its annotation says, as a sentence; empty where all are."""
    own, args, kwargs = call
    hints = typing.get_type_hints(initialize)
    for name, value in inspect.signature(initialize).bind(own, *args, **kwargs).arguments.items():
        if name not in hints:
            continue
        for each in value if isinstance(value, tuple) and name in _variadic(initialize) else (value,):
            if not _fits(each, hints[name]):
                shown = each.__name__ if isinstance(each, type) else f"{each!r} of type {type(each).__name__}"
                return f"{name} must be {_expected(hints[name])}, found {shown if len(shown) < 80 else type(each).__name__}"
    return ""


def _variadic(function: Any) -> set[str]:
    return {n for n, p in inspect.signature(function).parameters.items() if p.kind is inspect.Parameter.VAR_POSITIONAL}


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of an annotated type; True where that says nothing which can be looked at."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is typing.Literal:
        return any(value is each or (isinstance(value, str) and value == each) for each in inner)
    if origin is type:
        return isinstance(value, type) and issubclass(value, inner[0])
    if origin is collections.abc.Sequence:
        return (
            isinstance(value, Sequence)
            and not isinstance(value, str | bytes)
            and all(_fits(each, inner[0]) for each in value)
        )
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    if hint is None:
        return value is None
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def _expected(hint: Any) -> str:
    """An annotated type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_expected(each) for each in inner)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin is type:
        return f"a class of {inner[0].__name__}"
    if origin is collections.abc.Sequence:
        return f"a sequence, each {_expected(inner[0])}"
    words = {
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        str: "a string",
        type(None): "None",
        None: "None",
    }
    return words.get(hint) or f"of type {getattr(origin or hint, '__name__', hint)}"


def meant(unknown: str, known: Iterable[str], value: object = None) -> str:
    """What an unknown option was meant to be, as a sentence's end; empty if nothing comes near.

    Args:
        known: the options that there are.
        value: what was given for the unknown one.
    """
    known = list(known)
    if "num_draws" not in known and "steps" in known and unknown in _DRAWS:
        return "ask the fit for draws, as in fit.sample(1_000)."
    for written, others in _OPTIONS.items():
        if written.partition("=")[0] in known and (unknown in others or unknown.lower() in others):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and unknown in ("lr", "learning_rate", "step_size"):
                return f"write optim=pyro.optim.Adam({{'lr': {value!r}}})."
            if written.endswith("="):
                return f"write {written}{value!r}." if number else f"write {written}..., in its place."
            return f"write {written}."
    return name_hint(unknown, known)


def name_hint(unknown: str, known: Iterable[str]) -> str:
    """``did you mean 'name'?`` of the closest name; empty if none is close."""
    by_plain = {name.lower().replace("_", ""): name for name in known}
    close = difflib.get_close_matches(unknown.lower().replace("_", ""), by_plain, n=1, cutoff=0.6)
    return f"did you mean {by_plain[close[0]]!r}?" if close else ""


def _listed(known: Iterable[str]) -> str:
    return f"it takes {', '.join(known)}"
