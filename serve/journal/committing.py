"""The thread that brings a journal to the disk, for all who wait for it at once."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from serve.errors import InhouseError

_GROUP_S = 0.02  # what may be lost when the power goes
_RETRY_S = 1.0  # how often to look whether a full disk has room again


@dataclass(frozen=True, slots=True)
class _Waiter:
    target: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]

    def tell(self, problem: InhouseError | None) -> None:
        if self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(_settle, self.future, problem)


class Committer:
    """Every 20 ms while there is something new, and at once when somebody waits.

    `harden` brings everything to the disk and returns how far that is; then, while nobody waits,
    `prepare` makes room for more. Both run in the thread and may raise DiskFull or NotWritable.
    """

    def __init__(self, harden: Callable[[], int], prepare: Callable[[], None]) -> None:
        self._harden, self._prepare = harden, prepare
        self._news, self._haste = threading.Event(), threading.Event()
        self.has_news = self._is_over = False
        self._waiters: deque[_Waiter] = deque()
        self._done = 0
        self.problem: InhouseError | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self.has_news = True
        self._news.set()

    async def wait(self, target: int) -> None:
        """Until so much is on the disk. Raises what `harden` raised."""
        if self._done >= target:
            return
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiters.append(_Waiter(target, loop, future))
        self._hurry()
        await future

    def close(self) -> None:
        """Once more, then no more."""
        self._is_over = True
        self._hurry()
        self._thread.join()

    def _hurry(self) -> None:
        self._haste.set()
        self._news.set()

    def _run(self) -> None:
        while not self._is_over:
            self._news.wait()
            self._haste.wait(_RETRY_S if self.problem else _GROUP_S)
            # In this order, so that what is written meanwhile is hardened now or is news again.
            self._haste.clear()
            self._news.clear()
            self.has_news = False
            self._commit()
        self._commit()

    def _commit(self) -> None:
        try:
            self._done = self._harden()
        except InhouseError as error:
            self.problem = error
            self._tell(len(self._waiters), error)
            return
        self._tell(sum(waiter.target <= self._done for waiter in tuple(self._waiters)), None)
        try:
            self._prepare()
        except InhouseError as error:
            self.problem = error
        else:
            self.problem = None

    def _tell(self, count: int, problem: InhouseError | None) -> None:
        for _ in range(count):
            self._waiters.popleft().tell(problem)


def _settle(future: asyncio.Future[None], problem: InhouseError | None) -> None:
    if future.done():  # whoever waited has left
        return
    if problem is None:
        future.set_result(None)
    else:
        future.set_exception(problem)
