"""Programs whose tensors are of sizes that the data say: masks as indices, counts, and sequences of several lengths."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

import vipack as vi
from tests.engine.capture.test_reads import assert_same, run

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([3, 6, 1, 4])


def latent():
    return pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))


def rows_by_a_mask(x):
    z, mask = latent(), x[:, 0] > 0
    pyro.sample("x", dist.Normal(z, 1.0).expand([int(mask.sum()), 3]).to_event(2), obs=x[mask])


def elements_by_a_mask(x):
    squares, mask = (x - latent()) ** 2, x > 0
    pyro.factor("kept", -squares[mask].sum() - squares.masked_select(~mask[:, :1]).sum())


def masks_beside_other_indices(x):
    apart, mask = x - latent(), x[:, 0] > 0
    none = apart[torch.zeros(len(x), dtype=torch.bool)].sum()
    columns = apart.unsqueeze(1)[:, :, torch.tensor([True, True, False])]
    pyro.factor("kept", none - apart[mask, 0].pow(2).sum() - columns.pow(2).sum())


def places_that_are_not_zero(x):
    z, places = latent(), (x[:, 0] > 0).nonzero()[:, 0]
    pyro.factor("kept", -(x[places] - z).pow(2).sum() - x[torch.where(x[:, 1] > 0)].sum() * z[0])


def rows_that_are_written(x):
    z, mask, mean = latent(), x > 0, torch.zeros_like(x)
    mean[mask] = (z + x)[mask] * 2
    mean.masked_scatter_(~mask, (z * x)[~mask])
    mean[x[:, 0] > 1] = z
    pyro.factor("kept", -(mean - x).pow(2).sum())


def counts_and_categories(x):
    z, positive = latent(), (x[:, 0] > 0).long()
    groups = torch.repeat_interleave(torch.arange(2), torch.bincount(positive, minlength=2))
    kinds, kind = torch.unique(positive, return_inverse=True)
    pyro.factor("kept", -(x[:, 0] - z[groups]).pow(2).sum() - (x[:, 1] - z[: len(kinds)][kind]).pow(2).sum())


def a_mask_that_is_drawn(x):
    z = latent()
    pyro.factor("kept", -((x - z) ** 2)[torch.rand(len(x)) > 0.5].sum() - ((x - z) ** 2)[x > z].sum() * 0.1)


PROGRAMS = [
    rows_by_a_mask, elements_by_a_mask, masks_beside_other_indices, places_that_are_not_zero, rows_that_are_written,
    counts_and_categories,
]  # fmt: skip


NATIVELY = [(program, "interpreted") for program in (elements_by_a_mask, rows_that_are_written, counts_and_categories)]


@pytest.mark.parametrize(
    ("program", "engine"),
    [*((program, "traced") for program in PROGRAMS), *NATIVELY],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_steps_are_pyros_and_taken_by_a_graph(program, engine):
    found = run(vi.SVI, program, [(X,)] * 30, engine=engine)
    assert_same(found, run(SVI, program, [(X,)] * 30))
    assert found[2].engine.steps[engine] >= 25, found[2].engine


@pytest.mark.parametrize("program", [*PROGRAMS, a_mask_that_is_drawn], ids=lambda program: program.__name__)
def test_other_sizes_get_graphs_of_their_own(program):
    generator = torch.Generator().manual_seed(1)
    batches = [(X,), *((torch.randn(12, 3, generator=generator),) for _ in range(2))]
    calls = [batch for batch in batches for _ in range(3)] * 8
    found = run(vi.SVI, program, calls, engine="traced")
    assert_same(found, run(SVI, program, calls))
    if program is not a_mask_that_is_drawn:
        assert found[2].engine.steps["traced"] >= 40, found[2].engine


def sequences(kind, *, bidirectional=False, layers=1, dropout=0.0, batch_first=True, starts=False, is_sorted=False):
    """A program that reads sequences of several lengths by a recurrent network."""
    torch.manual_seed(0)
    options = {"nonlinearity": "relu"} if kind == "relu" else {}
    layer = {"GRU": nn.GRU, "LSTM": nn.LSTM}.get(kind, nn.RNN)
    directions = 1 + bidirectional
    net = layer(3, 4, layers, batch_first=batch_first, bidirectional=bidirectional, dropout=dropout, **options)
    head = nn.Linear(4 * directions, 3)
    start = torch.randn(layers * directions, 4, 4) * 0.1

    def program(x):
        z = latent()
        pyro.module("net", net)
        pyro.module("head", head)
        padded = x.repeat(2, 1).reshape(4, 6, 3) + z
        padded = padded if batch_first else padded.transpose(0, 1)
        lengths = LENGTHS.sort(descending=True).values if is_sorted else LENGTHS
        packed = pack_padded_sequence(padded, lengths, batch_first=batch_first, enforce_sorted=is_sorted)
        first = (start * z.sum(), start) if kind == "LSTM" else start * z.sum()
        packed, last = net(packed, first) if starts else net(packed)
        out, found = pad_packed_sequence(packed, batch_first=batch_first, total_length=7, padding_value=0.3)
        out = out if batch_first else out.transpose(0, 1)
        within = torch.arange(7) < found[:, None]
        last = last[0] + last[1] if kind == "LSTM" else last
        pyro.factor("kept", -(head(out).pow(2) * within[..., None]).sum() - last.pow(2).sum())

    return program


def a_list_of_sequences():
    torch.manual_seed(0)
    net = nn.GRU(3, 4)

    def program(x):
        z = latent()
        pyro.module("net", net)
        packed, last = net(pack_sequence([x[:5] + z, x[5:8], x[8:9]]))
        pyro.factor("kept", -packed.data.pow(2).sum() - last.pow(2).sum() - int(packed.batch_sizes[0]))

    return program


def lengths_of_the_data():
    torch.manual_seed(0)
    net = nn.LSTM(3, 4, batch_first=True)

    def program(x):
        z, lengths = latent(), (x[:4, 0] > 0).long() + 1
        pyro.module("net", net)
        packed = pack_padded_sequence(x.reshape(4, 3, 3) + z, lengths, batch_first=True, enforce_sorted=False)
        pyro.factor("kept", -net(packed)[0].data.pow(2).sum())

    return program


RECURRENT = {
    "GRU, sorted": lambda: sequences("GRU", is_sorted=True),
    "GRU, both directions, dropout": lambda: sequences("GRU", bidirectional=True, layers=2, dropout=0.5),
    "LSTM, times first": lambda: sequences("LSTM", batch_first=False, starts=True),
    "LSTM, both directions": lambda: sequences("LSTM", bidirectional=True, layers=2, starts=True),
    "tanh": lambda: sequences("tanh", layers=2),
    "relu, both directions": lambda: sequences("relu", bidirectional=True, starts=True, is_sorted=True),
    "a list of sequences": a_list_of_sequences,
    "lengths of the data": lengths_of_the_data,
}


MORE_OF_A_KIND = ("GRU, sorted", "LSTM, both directions", "tanh")  # that others are of, too


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in MORE_OF_A_KIND else n for n in RECURRENT]
)
def test_packed_sequences_are_captured(name):
    found = run(vi.SVI, RECURRENT[name](), [(X,)] * 12, engine="traced")
    assert_same(found, run(SVI, RECURRENT[name](), [(X,)] * 12))
    assert found[2].engine.steps["traced"] == 10, found[2].engine


@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_over_whole_sequences_are_captured(layer):
    def made():
        torch.manual_seed(0)
        net = layer(3, 4, batch_first=True)

        def program(x):
            z = latent()
            pyro.module("net", net)
            pyro.factor("kept", -net(x.reshape(2, 6, 3) + z)[0].pow(2).sum())

        return program

    found = run(vi.SVI, made(), [(X,)] * 12, engine="interpreted")
    assert_same(found, run(SVI, made(), [(X,)] * 12))
    assert found[2].engine.steps["interpreted"] == 10, found[2].engine


def test_lengths_of_another_batch_get_a_graph_of_their_own():
    def calls():
        for number in range(40):
            yield (X if number < 15 else -X,)

    found = run(vi.SVI, lengths_of_the_data(), calls(), engine="traced")
    assert_same(found, run(SVI, lengths_of_the_data(), calls()))
    assert found[2].engine.steps["traced"] >= 30, found[2].engine
