"""A run that is killed again and again: `python -m tests.training.killed FOLDER NUM_KILLS SEED` prints what came of it.

One process imports everything once and forks a worker for every life, since the imports take seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import vipack as vi
from tests.training.programs import RECIPES
from vipack.training.checkpoint import read_file

STEPS_A_LIFE = 25  # at most
STEPS_A_KILL = 40  # so that the run is longer than the lives that are cut off


def train(checkpoint: vi.Checkpoint | None, steps: int, started: Path | None = None) -> vi.Fit:
    def note(progress: object) -> None:
        if started is not None and not started.exists():
            started.write_text("\n".join(str(path) for path in started.parent.glob(".fit.*.tmp")))

    warnings.simplefilter("ignore", vi.errors.CheckpointWarning)
    recipe = RECIPES["VAE in batches"]
    return vi.fit(**recipe, steps=steps, seed=3, checkpoint=checkpoint, callbacks=vi.Every(1, note), engine="eager")


def life(folder: Path, steps: int, seconds: float | None, *, stepping: bool = False) -> tuple[bool, list[str]]:
    """One worker, killed after so many seconds; whether it was, and the temporary files it found when it had started.

    Args:
        stepping: count the seconds from its first step, which a busy machine may take long to reach.
    """
    started = folder / "started"
    started.unlink(missing_ok=True)
    worker = os.fork()
    if worker == 0:
        train(vi.Checkpoint(folder / "fit", every_steps=100 if seconds is None else 1), steps, started)
        os._exit(0)
    ended, status = 0, 0
    if seconds is not None:
        while stepping and not started.exists() and not ended:
            time.sleep(0.001)
            ended, status = os.waitpid(worker, os.WNOHANG)
        if not ended:
            time.sleep(seconds)
            os.kill(worker, signal.SIGKILL)
    if not ended:
        _, status = os.waitpid(worker, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    stale = started.read_text().split() if started.exists() else []
    return os.WIFSIGNALED(status), [path for path in stale if f".{worker}." not in path]


def seconds_for(path: Path, num_steps: int) -> float:
    """How long a fit of so many steps takes here, start-up included."""
    vi.fit(
        **RECIPES["VAE in batches"], steps=1, checkpoint=path, engine="eager"
    )  # what the first fit imports, all workers have
    before = time.perf_counter()
    vi.fit(**RECIPES["VAE in batches"], steps=num_steps, checkpoint=vi.Checkpoint(path, every_steps=1), engine="eager")
    return time.perf_counter() - before


def main(folder: Path, num_kills: int, seed: int) -> dict[str, object]:
    longest = seconds_for(folder / "warm", STEPS_A_LIFE)
    moments = random.Random(seed)
    steps = STEPS_A_KILL * num_kills
    kills, unreadable, stale, steps_at_death, temporaries_left = 0, 0, 0, [], 0
    for i in range(num_kills):
        killed, found = life(folder, steps, moments.uniform(0.0, longest), stepping=i % 3 > 0)
        kills += killed
        stale += len(found)
        temporaries_left += len(list(folder.glob(".fit.*.tmp")))
        if (folder / "fit").exists():
            try:
                steps_at_death.append(len(read_file(folder / "fit")["losses"]))
            except vi.errors.CheckpointError:
                unreadable += 1
    _, found = life(folder, steps, None)
    final, whole = read_file(folder / "fit"), train(None, steps)
    state = whole._trainer.program.parameters.state()
    return {
        "kills": kills,
        "unreadable": unreadable,
        "stale": stale + len(found),
        "temporaries_left_by_kills": temporaries_left,
        "temporaries_at_the_end": len(list(folder.glob(".fit.*.tmp"))),
        "steps_at_death": steps_at_death,
        "steps": len(final["losses"]),
        "losses_equal": final["losses"].tolist() == whole.losses.tolist(),
        "state_equal": all(
            final["state"][kind][name].equal(value) for kind, values in state.items() for name, value in values.items()
        ),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
