"""An exception of the user's program becomes an error that says which site, which line and what it was called with."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormalMessenger
from torch import nn

from vipack.errors import ModelError, ShapeError, SignatureError, VipackError
from vipack.program import seeded
from vipack.program.running.runs import (
    Arguments,
    arguments_left_out,
    check_signature,
    explained,
    named_arguments,
    trace_pair,
    trace_prior,
)

X = torch.zeros(3)


def model(x, y=None, *, scale=1.0):
    w = pyro.sample("w", dist.Normal(0.0, scale))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def guide(x, y=None, **options):
    pyro.sample("w", dist.Normal(5.0, 1e-6))


class Module(nn.Module):
    def forward(self, x, depth=2):
        return model(x)


def test_the_line_of_the_user_is_quoted():
    def broken(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            raise ZeroDivisionError("why")

    arguments = Arguments((X,), {"flag": None})
    message = (
        r"the model raised ZeroDivisionError after site 'w', at test_runs.py:\d+: `raise ZeroDivisionError\(\"why\"\)`: why; "
        r"it was called with tensor\(3,\), flag=None\. Call it by hand"
    )
    with pytest.raises(ModelError, match=message) as caught, explained("model", arguments):
        broken(X)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_of_ours_passes_as_it_is():
    with pytest.raises(ShapeError, match=r"^mine$"), explained("model", Arguments()):
        raise ShapeError("mine")


def test_an_error_without_a_message_says_where_it_was():
    def silent():
        raise NotImplementedError

    message = r"NotImplementedError before its first site.*: in silent of test_runs.py; .*no arguments"
    with pytest.raises(ModelError, match=message), explained("guide", Arguments()):
        silent()


def test_interrupts_are_not_errors():
    with pytest.raises(KeyboardInterrupt), explained("model", Arguments()):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "program", [model, Module(), poutine.scale(model, scale=2.0)], ids=["function", "module", "wrapped"]
)
def test_arguments_that_fit_pass(program):
    check_signature("model", program, Arguments((X,)))
    with pytest.raises(SignatureError, match=r"the model takes \(x.*\), but .* make the call \(no arguments\).*'x'"):
        check_signature("model", program, Arguments())


def test_arguments_bear_the_programs_own_names():
    assert list(named_arguments(model, Arguments((1, 2), {"scale": 3}))) == ["x", "y", "scale"]
    assert list(named_arguments(Module(), Arguments((1,)))) == ["x"]
    assert list(named_arguments(lambda *args: None, Arguments((1, 2)))) == ["data[0]", "data[1]"]
    assert arguments_left_out(model, Arguments((1,))) == {"y", "scale"}


def test_a_pair_of_traces_shares_the_guides_draw():
    guide_trace, model_trace = trace_pair(model, guide, Arguments((X,)))
    assert torch.equal(guide_trace.nodes["w"]["value"], model_trace.nodes["w"]["value"])
    messenger = AutoNormalMessenger(model)
    guide_trace, model_trace = trace_pair(model, messenger, Arguments((X,)))
    assert "x" in model_trace.nodes
    assert "w" in guide_trace.nodes
    pyro.clear_param_store()


def test_the_model_is_blamed_for_what_it_does_with_the_guides_draw():
    def picky(x):
        if pyro.sample("w", dist.Normal(0.0, 1.0)) > 4:
            raise LookupError("too far")

    with pytest.raises(ModelError, match="the model, replayed against the guide, raised LookupError after site 'w'"):
        trace_pair(picky, guide, Arguments((X,)))


def test_a_model_that_fails_on_prior_draws_is_read_at_the_medians():
    def picky(x):
        w = pyro.sample("w", dist.Normal(0.0, 1e6))
        if w.abs() > 1e6:
            raise LookupError("too far")

    with seeded(0):
        draws = [torch.randn(()) * 1e6 for _ in range(20)]
        assert max(abs(draw) for draw in draws) > 1e6  # a plain draw would fail
        values = [trace_prior(picky, Arguments((X,))).nodes["w"]["value"].abs() for _ in range(20)]
    assert max(values) <= 1e6


def test_every_message_of_pyros_that_is_recognised_is_still_pyros():
    """The texts are matched word for word, so a new Pyro may change them; each must end in an error of its own kind."""

    def twice(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("w", dist.Normal(0.0, 1.0))

    def mismatched(x):
        with pyro.plate("data", 2):
            pyro.sample("x", dist.Normal(torch.zeros(3), 1.0), obs=x)

    def observing(x):
        pyro.sample("w", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    for run in (
        lambda: trace_pair(model, twice, Arguments((X,))),
        lambda: trace_pair(mismatched, guide, Arguments((X,))),
        lambda: trace_pair(model, observing, Arguments((X,))),
    ):
        with pytest.raises(VipackError) as caught:
            run()
        assert not isinstance(caught.value, ModelError)
