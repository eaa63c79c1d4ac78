"""Files that are no fit of this program: refused by name, and nothing that is in them ever runs."""

import pickle
import zipfile

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal

import vipack as vi
from tests.bad_input.refusal import assert_refused, count_steps
from vipack.errors import CheckpointError

X = torch.linspace(-1, 1, 20)


def model(x):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def renamed(x):
    loc = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def wider(x):
    loc = pyro.sample("loc", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc.sum(), 1.0), obs=x)


class Hostile:
    """Makes the file `marker` when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("fits") / "normal.fit"
    vi.fit(model, AutoNormal, data=X, steps=5).save(path)
    return path


def content_of(path):
    return torch.load(path, weights_only=True)


def missing(path, saved, marker):
    pass


def a_folder(path, saved, marker):
    path.mkdir()


def empty(path, saved, marker):
    path.touch()


def truncated(path, saved, marker):
    path.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])


def without_its_end(path, saved, marker):
    path.write_bytes(saved.read_bytes()[:-1])


def random_bytes(path, saved, marker):
    generator = torch.Generator().manual_seed(0)
    path.write_bytes(bytes(torch.randint(256, (5_000,), generator=generator).tolist()))


def one_bit_flipped(path, saved, marker):
    """In the numbers of a tensor, where no reader stumbles over it."""
    with zipfile.ZipFile(saved) as archive:
        entry = max(archive.infolist(), key=lambda e: e.file_size if "/data/" in e.filename else 0)
    raw = bytearray(saved.read_bytes())
    start = raw.find(entry.filename.encode(), entry.header_offset) + len(entry.filename)
    raw[start + entry.file_size // 2 + 64] ^= 1
    path.write_bytes(bytes(raw))


def a_text_file(path, saved, marker):
    path.write_text("x,y\n1,2\n")


def a_zip_of_something_else(path, saved, marker):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def tensors_of_something_else(path, saved, marker):
    torch.save({"weight": torch.ones(3)}, path)


def a_single_tensor(path, saved, marker):
    torch.save(torch.ones(3), path)


def hostile_pickle(path, saved, marker):
    path.write_bytes(pickle.dumps(Hostile(marker)))


def hostile_legacy_file(path, saved, marker):
    torch.save({"mark": "vipack fit", "x": Hostile(marker)}, path, _use_new_zipfile_serialization=False)


def hostile_archive(path, saved, marker):
    torch.save({**content_of(saved), "x": Hostile(marker)}, path)


def a_pickled_module(path, saved, marker):
    torch.save(torch.nn.Linear(2, 2), path)


def another_format(path, saved, marker):
    torch.save({**content_of(saved), "format": 99}, path)


def state_missing(path, saved, marker):
    content = content_of(saved)
    del content["state"]
    torch.save(content, path)


def fingerprint_missing(path, saved, marker):
    content = content_of(saved)
    del content["fingerprint"]
    torch.save(content, path)


def parts_of_another_kind(path, saved, marker):
    torch.save({**content_of(saved), "losses": "none", "batches": 3}, path)


def without_data(path, saved, marker):
    vi.fit(model, AutoNormal, data=X, steps=1).save(path, data=False)


FILES = [
    (missing, "no such file", "check the path"),
    (a_folder, "no such file", "check the path"),
    (empty, "truncated, damaged or not a file of vipack's", "fit.save()"),
    (truncated, "truncated, damaged", "fit.save()"),
    (without_its_end, "damaged", "fit.save()"),
    (random_bytes, "truncated, damaged or not a file of vipack's", "fit.save()"),
    (one_bit_flipped, "damaged", "fit.save()"),
    (a_text_file, "not a file of vipack's", "fit.save()"),
    (a_zip_of_something_else, "not a file of vipack's", "fit.save()"),
    (tensors_of_something_else, "not a fit saved by vipack", "fit.save()"),
    (a_single_tensor, "not a fit saved by vipack", "fit.save()"),
    (hostile_pickle, "not a file of vipack's", "fit.save()"),
    (hostile_legacy_file, "not a file of vipack's", "fit.save()"),
    (hostile_archive, "would run code", "fit.save()"),
    (a_pickled_module, "would run code", "fit.save()"),
    (another_format, "format 99", "Load it with that version"),
    (state_missing, "'state'", "fit.save()"),
    (fingerprint_missing, "'fingerprint'", "fit.save()"),
    (parts_of_another_kind, "damaged", "fit.save()"),
    (without_data, "without its data", "pass data="),
]


@pytest.mark.parametrize(("make", "found", "cure"), FILES, ids=[row[0].__name__ for row in FILES])
def test_a_bad_file_is_refused_and_never_run(make, found, cure, saved, tmp_path, capfd):
    path, marker = tmp_path / "bad.fit", tmp_path / "executed"
    make(path, saved, marker)
    assert_refused(CheckpointError, ("bad.fit", found, cure), lambda: vi.load(path, model, AutoNormal), capfd)
    assert not marker.exists()


@pytest.mark.parametrize("make", [truncated, random_bytes, hostile_pickle, hostile_archive, state_missing])
def test_a_bad_checkpoint_stops_a_fit_before_it_starts(make, saved, tmp_path, capfd, monkeypatch):
    path, marker = tmp_path / "bad.fit", tmp_path / "executed"
    make(path, saved, marker)
    before, steps = path.read_bytes(), count_steps(monkeypatch)
    again = {"data": X, "steps": 5, "checkpoint": path}
    assert_refused(CheckpointError, ("bad.fit", "fit.save()"), lambda: vi.fit(model, AutoNormal, **again), capfd)
    assert not marker.exists()
    assert steps == []
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ((renamed, AutoNormal), ("another model or guide", "'loc'")),
        ((model, AutoDiagonalNormal), ("another model or guide", "'AutoNormal.locs.loc'")),
        ((wider, AutoNormal), ("another model or guide", "'AutoNormal.locs.loc' is [] in the file and [3] here")),
    ],
    ids=["another model", "another guide", "another shape"],
)
def test_a_file_of_another_program_is_refused(other, words, saved, capfd):
    assert_refused(CheckpointError, (saved.name, *words, "fitted with"), lambda: vi.load(saved, *other), capfd)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 1}, ("seed 0", "1")),
        ({"data": X + 1}, ("data",)),
        ({"batch_size": 5}, ("batch_size None", "5")),
        ({"dtype": torch.float64}, ("dtype", "torch.float64")),
        ({"optim": torch.optim.SGD}, ("optimizer 'default'", "'SGD'")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_checkpoint_of_another_fit_is_refused(changed, words, saved, capfd, monkeypatch):
    steps = count_steps(monkeypatch)
    options = {"data": X, "steps": 9, "checkpoint": saved, **changed}
    cure = "use the same, or another file"
    assert_refused(CheckpointError, (saved.name, *words, cure), lambda: vi.fit(model, AutoNormal, **options), capfd)
    assert steps == []
