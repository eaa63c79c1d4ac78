"""One at a time, whichever thread asks: waiting is heard by Ctrl-C, ends in a forked child, and is refused where it cannot end."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path

import pytest

import vipack
from vipack import lock
from vipack.errors import UsageError
from vipack.lock import alone, one_at_a_time

ROOT = Path(vipack.__file__).parents[1]


class Holding:
    """Another thread that holds the lock until the block ends."""

    def __enter__(self):
        self._held, self._enough = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)
        self._thread.start()
        assert self._held.wait(10)
        return self

    def _hold(self):
        with alone():
            self._held.set()
            self._enough.wait(60)

    def __exit__(self, *_):
        self._enough.set()
        self._thread.join()


def free():
    """Whether this thread would not have to wait."""
    found = lock._lock.acquire(blocking=False)
    if found:
        lock._lock.release()
    return found


def held_elsewhere():
    """Whether another thread would have to wait."""
    with ThreadPoolExecutor(1) as pool:
        return not pool.submit(free).result()


def test_threads_take_turns():
    inside, most = 0, 0

    @one_at_a_time
    def work(_):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threading.Event().wait(0.001)
        inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))
    assert most == 1
    assert free()


def test_a_thread_may_take_it_again_and_lets_go_at_the_end():
    with alone():
        with alone():
            assert held_elsewhere()
        assert held_elsewhere()
    assert not held_elsewhere()


def test_an_error_lets_go():
    @one_at_a_time
    def fails():
        raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert not held_elsewhere()


def test_the_function_is_still_itself():
    @one_at_a_time
    def work(a, *, b=2):
        """What it does."""
        return a, b

    assert (work.__name__, work.__doc__, work(1, b=3)) == ("work", "What it does.", (1, 3))


# --- processes


def test_a_forked_child_does_not_wait_for_its_parents_threads():
    with Holding():
        child = os.fork()
        if child == 0:
            with alone():
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_child_forked_by_the_holder_has_it_free_for_its_threads_and_returns():
    """As the worker of a DataLoader in a fit, whose threads may run programs too."""
    with alone():
        child = os.fork()
        if child == 0:
            with ThreadPoolExecutor(1) as pool:
                unheld = pool.submit(free).result(timeout=30)
    if child == 0:  # the block that the parent began has ended without an error
        os._exit(7 if unheld and free() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not held_elsewhere()


def test_ctrl_c_is_heard_while_waiting():
    program = """
    import threading
    from vipack.lock import alone

    held = threading.Event()

    def hold():
        with alone():
            held.set()
            threading.Event().wait(60)

    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    try:
        print("waiting", flush=True)
        with alone():
            pass
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "interrupted\n"


# --- waits that would never end

WAITS = {
    "result": lambda pool, task: pool.submit(task).result(),
    "exception": lambda pool, task: (_ for _ in ()).throw(pool.submit(task).exception()),
    "map": lambda pool, task: list(pool.map(lambda _: task(), range(1))),
    "wait": lambda pool, task: next(iter(wait([pool.submit(task)]).done)).result(),
    "as_completed": lambda pool, task: next(as_completed([pool.submit(task)])).result(),
}


@pytest.mark.parametrize("how", WAITS)
def test_a_callback_that_waits_for_a_thread_that_waits_for_it_is_an_error(how):
    def task():
        with alone():
            raise AssertionError("it was let in")

    def callback(_):
        with ThreadPoolExecutor(1) as pool:
            WAITS[how](pool, task)

    with pytest.raises(UsageError, match=r"would wait for ever.*callback's own thread, or in a process"):
        _called_by_vipack(callback)
    assert not held_elsewhere()


def test_a_callback_that_joins_a_thread_that_waits_for_it():
    found = []

    def task():
        try:
            with alone():
                found.append("it was let in")
        except UsageError as error:
            found.append(error)

    def callback(_):
        thread = threading.Thread(target=task, name="the other")
        thread.start()
        thread.join()

    _called_by_vipack(callback)
    assert "'the other' would wait for ever" in str(found[0])


def _called_by_vipack(callback):
    """Hold the lock, and call `callback` from code of vipack's, as a fit does."""
    from vipack.training.callbacks import Every

    with alone():
        Every(1, callback)(None)


def test_who_waits_for_a_thread_without_holding_anything_is_no_reason():
    """The usual case: the main thread waits for its workers, of which one at a time holds the lock."""
    with Holding() as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(one_at_a_time(lambda: 7))
        threading.Timer(1.5, other._enough.set).start()  # after some looks
        assert waiting.result(timeout=30) == 7
