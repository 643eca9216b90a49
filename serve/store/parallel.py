"""Work on several things at once, and the one signal by which all of it ends."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TypeVar

# How long whoever ends the work waits for its threads. One that is in a system call for longer
# (a server that is silent) is left alone: it sees the signal before it does anything else.
_PATIENCE_S = 0.5

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(Exception):
    """The work was ended by somebody else's error, or by Ctrl-C."""


class Stop:
    """A signal, given once. Threads ask for it, wait on it, or have themselves called by it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []

    def give(self) -> None:
        with self._lock:
            self._event.set()
            calls = tuple(self._calls)
        for call in calls:
            call()

    def check(self) -> None:
        """Stopped if the signal was given."""
        if self._event.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Let time pass; Stopped as soon as the signal is given."""
        if self._event.wait(seconds):
            raise Stopped

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Have `call` called when the signal is given meanwhile, by the thread that gives it."""
        with self._lock:
            self._calls.append(call)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._calls.remove(call)


def run_all(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int, stop: Stop
) -> list[Result]:
    """`work` on every item, at most `threads` at once, begun in order; results in order.

    The first error, or Ctrl-C, gives the signal and is raised promptly.
    """
    waiting = deque(enumerate(items))
    results: dict[int, Result] = {}
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def worker() -> None:
        with suppress(IndexError):  # nothing is waiting any more
            while True:
                place, item = waiting.popleft()
                with _Told(ended):
                    stop.check()
                    results[place] = work(item)

    # Daemons: at Ctrl-C nobody waits for a server that is silent.
    crew = [threading.Thread(target=worker, daemon=True) for _ in items[:threads]]
    for thread in crew:
        thread.start()
    try:
        for _ in items:
            if error := ended.get():
                raise error
    finally:
        stop.give()
        until = time.monotonic() + _PATIENCE_S
        for thread in crew:
            thread.join(max(0.0, until - time.monotonic()))
    return [results[place] for place in range(len(items))]


class _Told:
    """Work whose end, or error, is told to the thread that waits for it, and to nobody else."""

    def __init__(self, ended: "SimpleQueue[BaseException | None]") -> None:
        self._ended = ended

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> bool:
        self._ended.put(error)
        return True
