"""``vipack.SVI`` in place of ``pyro.infer.SVI``: same numbers, and Pyro's store and optimizer current after every call."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints

import vipack as vi
from vipack.engine import tiers
from vipack.engine.optimizers.memory_holders import have_other_holders
from vipack.errors import UsageError

X = torch.linspace(-1, 1, 20)
Y = 2 * X + 0.3
STEPS = 25


def model(x, y=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        return pyro.sample("y", dist.Normal(w[0] * x + w[1], 0.5), obs=y)


def guide(x, y=None):
    loc = pyro.param("loc", torch.tensor([0.5, -0.5]))
    scale = pyro.param("scale", torch.ones(2), constraint=constraints.positive)
    pyro.sample("w", dist.Normal(loc, scale).to_event(1))


def adam():
    return pyro.optim.Adam({"lr": 0.05})


def made(make, optim=None, loss=None, **options):
    pyro.clear_param_store()
    pyro.set_rng_seed(4)
    return make(model, guide, optim or adam(), loss or Trace_ELBO(), **options)


def values():
    return {name: value.detach().clone() for name, value in pyro.get_param_store().items()}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def plain():
    """Losses, parameters after every step, optimizer state and generator of ``pyro.infer.SVI``."""
    optim = adam()
    svi = made(SVI, optim)
    losses, seen = [], []
    for _ in range(STEPS):
        losses.append(svi.step(X, Y))
        seen.append(values())
    return losses, seen, optim.get_state(), torch.get_rng_state()


def test_every_step_leaves_the_store_as_pyro_does(plain):
    losses, seen, state, generator = plain
    optim = adam()
    svi = made(vi.SVI, optim, engine="traced")
    for loss, expected in zip(losses, seen, strict=True):
        assert svi.step(X, Y) == pytest.approx(loss, rel=1e-4)
        assert_close(values(), expected)
    assert svi.engine.steps["traced"] >= STEPS - 3
    assert torch.equal(torch.get_rng_state(), generator)
    found = optim.get_state()
    assert found.keys() == state.keys()
    for name, held in state.items():
        for key, value in held["state"][0].items():
            torch.testing.assert_close(torch.as_tensor(found[name]["state"][0][key]), torch.as_tensor(value), msg=key)


def test_run_takes_the_same_steps(plain):
    losses, seen, _, generator = plain
    svi = made(vi.SVI, engine="traced")
    found = svi.run(STEPS, X, Y)
    assert found.shape == (STEPS,)
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert_close(values(), seen[-1])
    assert torch.equal(torch.get_rng_state(), generator)


def test_steps_and_runs_mix(plain):
    losses, seen, _, _ = plain
    svi = made(vi.SVI, engine="traced")
    found = [svi.step(X, Y), *svi.run(10, X, Y), svi.step(X, Y), *svi.run(STEPS - 12, X, Y)]
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert_close(values(), seen[-1])


@pytest.mark.parametrize("number", [0, -1, 2.0, True])
def test_run_wants_a_positive_number_of_steps(number):
    with pytest.raises(UsageError, match="num_steps"):
        made(vi.SVI).run(number, X, Y)


def test_evaluate_loss_is_pyros_and_changes_nothing():
    plain = made(SVI)
    plain.step(X, Y)
    pyro.set_rng_seed(9)
    expected = plain.evaluate_loss(X, Y)
    svi = made(vi.SVI, engine="traced")
    svi.step(X, Y)
    svi.run(5, X, Y)
    store = values()
    svi.evaluate_loss(X, Y)
    assert_close(values(), store)
    svi = made(vi.SVI, engine="traced")
    svi.step(X, Y)
    pyro.set_rng_seed(9)
    assert svi.evaluate_loss(X, Y) == pytest.approx(expected)


def test_data_of_other_lengths_and_values_are_seen():
    def run(make, **options):
        svi = made(make, **options)
        calls = [X, X, X, X[:7], X[:7], X, 2 * X, X[:7]]
        return svi, [svi.step(x, x) for x in calls]

    _, losses = run(SVI)
    svi, found = run(vi.SVI, engine="traced")
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert svi.engine.tier == "traced"


def test_data_written_in_place_between_steps_are_seen():
    def run(make, **options):
        svi, y, losses = made(make, **options), Y.clone(), []
        for _ in range(8):
            losses.append(svi.step(X, y))
            y += 0.1
        return losses

    np.testing.assert_allclose(run(vi.SVI, engine="traced"), run(SVI), rtol=1e-4)


def test_a_value_set_in_the_store_between_steps_is_taken_up():
    def run(make, **options):
        svi = made(make, **options)
        losses = [svi.step(X, Y) for _ in range(4)]
        pyro.get_param_store()["loc"] = torch.tensor([3.0, 3.0])
        return losses + [svi.step(X, Y) for _ in range(4)]

    np.testing.assert_allclose(run(vi.SVI, engine="traced"), run(SVI), rtol=1e-4)


def test_a_learning_rate_set_between_steps_is_taken_up():
    def run(make, **options):
        optim = adam()
        svi = made(make, optim, **options)
        losses = [svi.step(X, Y) for _ in range(4)]
        for one in optim.optim_objs.values():
            one.param_groups[0]["lr"] = 0.5
        return losses + [svi.step(X, Y) for _ in range(4)]

    np.testing.assert_allclose(run(vi.SVI, engine="traced"), run(SVI), rtol=1e-4)


@pytest.mark.parametrize("engine", [pytest.param("traced", marks=pytest.mark.slow), "interpreted"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_state_put_into_the_optimizers_between_steps_is_taken_up(engine, lost):
    """Loading replaces options, rates and moments as a whole; `lost` moments begin anew."""

    def run(make, **options):
        optim = adam()
        svi = made(make, optim, **options)
        losses = [svi.step(X, Y) for _ in range(10)]
        saved = {parameter: copy.deepcopy(one.state_dict()) for parameter, one in optim.optim_objs.items()}
        losses += [svi.step(X, Y) for _ in range(20)]
        for parameter, one in optim.optim_objs.items():
            saved[parameter]["param_groups"][0]["lr"] = 0.3
            one.state.clear() if lost else one.load_state_dict(saved[parameter])
        losses += [svi.step(X, Y) for _ in range(20)]
        return losses, svi

    losses, _ = run(SVI)
    found, svi = run(vi.SVI, engine=engine)
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert svi.engine.steps[engine] > 35


@pytest.mark.parametrize("rule", ["Adam", "ClippedAdam"])
def test_whatever_is_changed_between_single_steps_of_a_loop_is_taken_up(rule):
    """A loop's numbers are made for many steps ahead: rates, counts and runs in between must not be missed."""

    def groups(optim):
        return [one.param_groups[0] for one in optim.optim_objs.values()]

    def count_from(optim, step):
        for one in optim.optim_objs.values():
            for held in one.state.values():
                held["step"] = held["step"].fill_(step) if isinstance(held["step"], torch.Tensor) else step

    def run(make, **options):
        optim = getattr(pyro.optim, rule)({"lr": 0.05})
        svi = made(make, optim, **options)
        losses = [svi.step(X, Y) for _ in range(90)]
        for group in groups(optim):
            group["lr"] *= 0.1
        losses += [svi.step(X, Y) for _ in range(5)]
        count_from(optim, 2)
        losses += [svi.step(X, Y) for _ in range(5)]
        losses += list(svi.run(7, X, Y)) if make is vi.SVI else [svi.step(X, Y) for _ in range(7)]
        losses += [svi.step(X, Y) for _ in range(5)]
        state = optim.get_state()
        losses += [svi.step(X, Y) for _ in range(5)]
        optim.set_state(state)
        losses += [svi.step(X, Y) for _ in range(80)]
        groups(optim)[0]["lr"] *= 20  # of one of two that had the same
        losses += [svi.step(X, Y) for _ in range(10)]
        for group in groups(optim):
            group["betas"] = (0.5, 0.8)
        losses += [svi.step(X, Y) for _ in range(10)]
        return losses, optim.get_state(), svi

    losses, state, _ = run(SVI)
    found, own, svi = run(vi.SVI, engine="interpreted")
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert svi.engine.steps["interpreted"] > 150
    for name, expected in state.items():
        torch.testing.assert_close(
            [v["step"] for v in own[name]["state"].values()], [v["step"] for v in expected["state"].values()]
        )


def test_a_store_that_is_saved_cleared_and_loaded_goes_on(tmp_path, plain):
    losses, _, _, _ = plain
    optim = adam()
    svi = made(vi.SVI, optim, engine="traced")
    found = list(svi.run(10, X, Y))
    pyro.get_param_store().save(tmp_path / "store")
    optim.save(str(tmp_path / "optim"))
    generator = torch.get_rng_state()
    svi.run(3, X, Y)
    pyro.clear_param_store()
    pyro.get_param_store().load(tmp_path / "store")
    again = adam()
    again.load(str(tmp_path / "optim"))
    torch.set_rng_state(generator)
    found += list(vi.SVI(model, guide, again, Trace_ELBO(), engine="traced").run(STEPS - 10, X, Y))
    np.testing.assert_allclose(found, losses, rtol=1e-4)


def test_a_cleared_store_starts_anew(plain):
    losses, _, _, _ = plain
    svi = made(vi.SVI, engine="traced")
    svi.run(5, X, Y)
    pyro.clear_param_store()
    pyro.set_rng_seed(4)
    # As in plain Pyro, the optimizer keeps its moments of parameters that are gone, and makes new ones for the new.
    np.testing.assert_allclose(svi.run(10, X, Y), losses[:10], rtol=1e-4)


def test_several_objects_share_the_store_as_in_pyro():
    def run(make, **options):
        first = made(make, **options)
        second = make(model, guide, adam(), TraceMeanField_ELBO(), **options)
        return [one.step(X, Y) for _ in range(6) for one in (first, second)]

    np.testing.assert_allclose(run(vi.SVI, engine="traced"), run(SVI), rtol=1e-4)


def test_an_automatic_guide_is_trained_where_it_stands():
    def run(make, **options):
        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        automatic = AutoNormal(model)
        svi = make(model, automatic, adam(), Trace_ELBO(), **options)
        losses = [svi.step(X, Y) for _ in range(12)]
        draws = Predictive(model, guide=automatic, num_samples=3)(X)
        return losses, automatic.median()["w"].detach(), draws["y"]

    for found, expected in zip(run(vi.SVI, engine="traced"), run(SVI), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_loss_that_is_not_finite_is_returned_as_pyro_returns_it():
    bad = Y.clone()
    bad[3] = float("nan")

    def run(make, **options):
        with pyro.validation_enabled(False):
            svi = made(make, **options)
            return [svi.step(X, Y), svi.step(X, Y), svi.step(X, Y), svi.step(X, bad)]

    np.testing.assert_allclose(run(vi.SVI, engine="traced"), run(SVI), rtol=1e-4)


class Shifted(torch.nn.Module):
    """A weight that begins as a view of a buffer, and maybe another one that begins as the same memory as the first."""

    def __init__(self, twice):
        super().__init__()
        self.register_buffer("zero", torch.tensor(0.0))
        self.one = torch.nn.Parameter(self.zero.view(1))
        self.two = torch.nn.Parameter(self.one.data) if twice else None

    def forward(self):
        return (self.one + (0.0 if self.two is None else self.two) + self.zero).sum()


def of_a_buffer(y):
    net = Shifted(twice=False)
    return lambda y: pyro.module("net", net)(), lambda: net.zero


def of_another_parameter(y):
    net = Shifted(twice=True)
    return lambda y: pyro.module("net", net)(), lambda: net.two.detach()


def of_a_tensor_that_the_model_reads(y):
    start = torch.zeros(2)
    return lambda y: pyro.param("shift", start[:1]).sum() + start[0], lambda: start


def of_the_data(y):
    return lambda y: pyro.param("shift", y[:3]).sum(), lambda: y


VIEWS = [of_a_buffer, of_another_parameter, of_a_tensor_that_the_model_reads, of_the_data]


@pytest.mark.parametrize("maker", VIEWS, ids=lambda maker: maker.__name__)
def test_what_a_parameter_is_a_view_of_moves_with_it(maker):
    def run(make, **options):
        data = Y.clone()
        shift, seen = maker(data)

        def shifted(y):
            w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("rows", len(y)):
                pyro.sample("y", dist.Normal(w[0] * X + w[1] + shift(y), 0.5), obs=y)

        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        svi = make(shifted, lambda y: guide(X), adam(), Trace_ELBO(), **options)
        losses = [svi.step(data) for _ in range(STEPS)]
        return losses, seen().clone(), svi

    losses, moved, _ = run(SVI)
    found, found_moved, svi = run(vi.SVI, engine="traced")
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    torch.testing.assert_close(found_moved, moved)
    assert "shares its memory" in svi.engine.reason


def store_views():
    return [value.detach() for value in pyro.get_param_store()._params.values()]


def store_arrays():
    return [value.detach().numpy() for value in pyro.get_param_store()._params.values()]


@pytest.mark.parametrize("take", [store_views, store_arrays], ids=["views", "arrays"])
@pytest.mark.parametrize("before", [0, 1, 2, 10])
@pytest.mark.parametrize("engine", [pytest.param("traced", marks=pytest.mark.slow), "interpreted"])
def test_views_of_parameters_that_are_kept_follow_them(engine, before, take):
    """Taken before and after the engine moves them; a second program's engine finds them where the first one left them."""

    def run(make, **options):
        svi = made(make, **options)
        svi.evaluate_loss(X, Y)  # makes the parameters
        kept = []
        for other in (svi, make(model, guide, adam(), TraceMeanField_ELBO(), **options)):
            for _ in range(before):
                other.step(X, Y)
            kept += take()
            for _ in range(STEPS):
                other.step(X, Y)
        svi.step(X, Y)
        now = store_views()
        return [torch.as_tensor(value).clone() for value in kept], now + now, svi

    expected, _, _ = run(SVI)
    found, now, svi = run(vi.SVI, engine=engine)
    for one, right, current in zip(found, expected, now, strict=True):
        torch.testing.assert_close(one, right, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one, current, rtol=0, atol=0)
    assert svi.engine.steps[engine] > STEPS - 3


def test_a_kept_state_of_the_optimizer_follows_it():
    def run(make, **options):
        optim = adam()
        svi = made(make, optim, **options)
        svi.step(X, Y)
        kept = {f"{n}.{k}": v for n, one in optim.get_state().items() for k, v in one["state"][0].items()}
        for _ in range(STEPS):
            svi.step(X, Y)
        return {name: value.clone() for name, value in kept.items()}, svi

    expected, _ = run(SVI)
    found, svi = run(vi.SVI, engine="interpreted")
    assert_close(found, expected)
    assert svi.engine.tier == "interpreted"


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("steps", [6, 60])
def test_what_a_user_writes_to_a_tensor_of_the_program_stays(replace, steps, monkeypatch):
    """A trial puts back what its runs change, and nothing that was changed before it: at the recheck, and by another graph."""
    monkeypatch.setattr(tiers, "_FIRST_CHECK", 40)

    class Shifted:
        def __init__(self):
            self.shift = torch.tensor([0.1, 0.2])

        def __call__(self, x, y=None):
            w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("rows", len(x)):
                pyro.sample("y", dist.Normal(w[0] * x + w[1] + (0 if y is not None else self.shift[0]), 0.5), obs=Y)

    def run(make, **options):
        program = Shifted()
        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        svi = make(program, guide, adam(), Trace_ELBO(), **options)
        losses = [svi.step(X) for _ in range(3)] + [svi.step(X, Y) for _ in range(3)]
        if replace:
            program.shift = torch.tensor([0.7, 0.8])
        else:
            program.shift.fill_(0.7)
        losses += [svi.step(X, Y) for _ in range(steps)]
        svi.optim.get_state()
        losses += [svi.step(X) for _ in range(3)]
        return losses, program.shift.tolist()

    losses, left = run(SVI)
    found, own = run(vi.SVI, engine="traced")
    assert own == left
    np.testing.assert_allclose(found, losses, rtol=1e-3)


def test_a_parameter_that_was_transposed_stays_with_pyro():
    def run(make, **options):
        def wide(x, y=None):
            table = pyro.param("table", torch.arange(6.0).reshape(3, 2))
            pyro.sample("w", dist.Normal(table.sum(0), 1.0).to_event(1))

        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        svi = make(model, wide, adam(), Trace_ELBO(), **options)
        svi.step(X, Y)
        table = pyro.get_param_store()._params["table"]
        table.data = table.detach().t().contiguous().t()  # the store itself keeps parameters in order
        return [svi.step(X, Y) for _ in range(STEPS)], svi

    losses, _ = run(SVI)
    found, svi = run(vi.SVI, engine="traced")
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert "not in order of memory" in svi.engine.reason


def test_it_can_be_put_in_its_place_before_it_is_loaded():
    program = (
        "import pyro.infer, vipack\n"
        "pyro.infer.SVI = lambda *args, **options: vipack.SVI(*args, engine='traced', **options)\n"
        "svi = pyro.infer.SVI(print, print, pyro.optim.Adam({}), pyro.infer.Trace_ELBO())\n"
        "assert isinstance(svi, pyro.infer.svi.SVI)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # in which nothing has been loaded yet


def test_the_first_trace_of_a_guide_holds_nothing_that_anybody_reads():
    """Its distributions of the groups are views of the value that the guide's own parameter starts from."""

    def hierarchy(y):
        mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
        with pyro.plate("groups", len(y)):
            groups = pyro.sample("groups_mean", dist.Normal(mean, 1.0))
            pyro.sample("y", dist.Normal(groups, 1.0), obs=y)

    guide = AutoNormal(hierarchy)
    SVI(hierarchy, guide, adam(), Trace_ELBO()).step(Y)
    parameters = [value.unconstrained() for value in pyro.get_param_store().values()]
    assert have_other_holders(parameters, [guide]) == [False] * 4
    kept = guide.locs.mean.detach()
    assert have_other_holders(parameters, [guide])[0]
    assert kept is not None


@pytest.mark.parametrize("inverse_first", [False, True])
def test_transforms_that_know_their_inverse_are_looked_into_once(inverse_first):
    def model(y):
        transform = dist.transforms.ExpTransform()
        inverse = transform.inv  # each knows the other one from now on
        base, pair = (dist.LogNormal, [inverse, transform]) if inverse_first else (dist.Normal, [transform, inverse])
        mean = pyro.sample("mean", dist.TransformedDistribution(base(0.0, 1.0), pair))
        pyro.sample("y", dist.Normal(mean, 1.0).expand([len(y)]).to_event(1), obs=y)

    guide = AutoNormal(model)
    svi = vi.SVI(model, guide, adam(), Trace_ELBO(), engine="traced")
    for _ in range(20):
        svi.step(Y)
    assert svi.engine.tier == "traced", svi.engine.reason
