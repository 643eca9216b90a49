"""Comments in streams that have nothing to say yet, so that nobody on the way gives them up."""

import asyncio
from typing import Protocol

_TICKS = 5  # that the first comment may be late, in parts of its time


class Silent(Protocol):
    """A stream that waits."""

    def comment(self) -> None: ...


class Comments:
    """One per gateway process: one timer for all streams, none for each."""

    def __init__(self, first_s: float, next_s: float) -> None:
        self._first_s = first_s
        self._next_s = next_s
        self._due: dict[Silent, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, silent: Silent, now_s: float) -> None:
        """It waits from now on, until `forget`. `now_s`: the loop's clock."""
        self._due[silent] = now_s + self._first_s
        if self._timer is None:
            self._arm()

    def forget(self, silent: Silent) -> None:
        """It has something to say, or is over."""
        self._due.pop(silent, None)

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(1.0, self._first_s / _TICKS), self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s, self._timer = loop.time(), None
        for silent, due_s in list(self._due.items()):
            if due_s <= now_s:
                self._due[silent] = now_s + self._next_s
                silent.comment()
        if self._due:
            self._arm()
