"""One at a time, whichever thread asks; Ctrl-C is heard while waiting, and neither forks nor callbacks wait for ever."""

import asyncio
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import types
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from pathlib import Path

import pytest
import torch

import vipack
from vipack import lock
from vipack.lock import alone, one_at_a_time
from vipack.program import RandomState
from vipack.training.loop import Run, RunState

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


# --- callbacks

WAITS = {
    "result": lambda pool, task: pool.submit(task).result(),
    "map": lambda pool, task: next(pool.map(lambda _: task(), range(1))),
    "wait": lambda pool, task: next(iter(wait([pool.submit(task)]).done)).result(),
    "as_completed": lambda pool, task: next(as_completed([pool.submit(task)])).result(),
    "a thread pool of multiprocessing": lambda pool, task: threads().apply(task),
    "a queue": lambda pool, task: through_a_queue(task),
    "an event": lambda pool, task: after_an_event(task),
    "joining": lambda pool, task: joined(task),
    "asyncio": lambda pool, task: asyncio.run(asyncio.to_thread(task)),
}


def threads():
    from multiprocessing.pool import ThreadPool

    return ThreadPool(1)


def through_a_queue(task):
    found = queue.Queue()
    threading.Thread(target=lambda: found.put(task())).start()
    return found.get()


def after_an_event(task):
    found, done = [], threading.Event()
    threading.Thread(target=lambda: (found.append(task()), done.set())).start()
    done.wait()
    return found[0]


def joined(task):
    found = []
    thread = threading.Thread(target=lambda: found.append(task()))
    thread.start()
    thread.join()
    return found[0]


def calls(callback):
    """Hold the lock, and call `callback` as a fit does."""

    class Silent:
        """A run that does nothing but call back."""

        callbacks = (lambda progress: found.append(callback()),)
        parameters = None
        view = None
        engine = types.SimpleNamespace(refresh=lambda: None)

    found = []
    state = RunState(RandomState.from_seed(0), types.SimpleNamespace(epoch=0))
    with alone(), state.random.active():
        Run._call_back(Silent(), state, 0.0)
        assert held_elsewhere()
    return found[0]


@pytest.mark.parametrize("how", WAITS)
def test_a_callback_may_wait_for_a_thread_that_needs_the_lock(how):
    inside = []

    def task():
        with alone(), alone():
            inside.append(threading.current_thread())
            return 7

    with ThreadPoolExecutor(1) as pool:
        assert calls(lambda: WAITS[how](pool, task)) == 7
    assert inside[0] is not threading.current_thread()
    assert not held_elsewhere()


def test_who_was_waited_for_may_call_back_and_wait_in_turn():
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        innermost = one_at_a_time(lambda: 7)
        between = lambda: calls(lambda: second.submit(innermost).result())  # noqa: E731
        assert calls(lambda: first.submit(between).result()) == 7
    assert not held_elsewhere()


def test_a_fit_goes_on_when_no_other_runs():
    """Though its callback has ended before."""
    order = []

    @one_at_a_time
    def other():
        order.append("in")
        begun.set()
        threading.Event().wait(0.3)
        order.append("out")

    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def callback():
            pool.submit(other)
            begun.wait()

        calls(callback)
        order.append("on")
    assert order == ["in", "out", "on"]


def test_a_callbacks_draws_are_the_processs_own():
    torch.manual_seed(5)
    expected = torch.rand(2).tolist()
    torch.manual_seed(5)
    assert calls(lambda: torch.rand(1).tolist()) + torch.rand(1).tolist() == expected


def test_a_program_that_runs_lets_nobody_in():
    """Handlers are open and parameters lent meanwhile: another program would meet them."""
    got_in = threading.Event()

    def task():
        with alone():
            got_in.set()

    with alone():
        thread = threading.Thread(target=task)
        thread.start()
        assert not got_in.wait(0.3)
    thread.join()
    assert got_in.is_set()
