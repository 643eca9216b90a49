"""Hosts that have imported vLLM ahead, kept in the background for whoever starts next."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

from serve.engine.guarding import Guard
from serve.errors import InhouseError

# A spare of vLLM holds 0.7 GB; with less than this free it is better spent on a KV cache.
_ENOUGH_FREE_BYTES = 8 * 2**30
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0

_log = logging.getLogger(__name__)


class Spares:
    """`make` starts a host; `count` None: one when `free_bytes()` says that there is room."""

    def __init__(
        self,
        make: Callable[[], Awaitable[Guard]],
        count: int | None,
        free_bytes: Callable[[], int],
    ) -> None:
        self._make = make
        self._count = count
        self._free_bytes = free_bytes
        self._kept: list[Guard] = []
        self._starting = 0
        self._deaths = 0
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def keep(self) -> None:
        """Keep as many as wanted, until cancelled: one after another, and never during a start."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._starting == 0 and len(self._kept) < self._wanted():
                try:
                    guard = await self._make()
                except InhouseError as error:
                    await self._pause(f"cannot be started: {error}")
                    continue
                self._kept.append(guard)
                watcher = asyncio.create_task(self._watch(guard))
                self._tasks.add(watcher)
                watcher.add_done_callback(self._tasks.discard)
                if not await guard.imported():
                    break

    @contextlib.contextmanager
    def during_start(self) -> Iterator[None]:
        """An engine is starting: it shall have the machine to itself."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            self._wake.set()

    def take(self) -> Guard | None:
        """The one that is most ready; it is not ours any more."""
        if not self._kept:
            return None
        guard = max(self._kept, key=lambda kept: kept.is_imported)
        self._kept.remove(guard)
        return guard

    def close(self) -> None:
        """Disown them all; their ends are no news any more."""
        self._kept.clear()
        for task in self._tasks:
            task.cancel()

    @property
    def ready(self) -> int:
        """How many wait for orders."""
        return sum(guard.is_imported for guard in self._kept)

    def _wanted(self) -> int:
        if self._count is not None:
            return self._count
        return 1 if self._free_bytes() >= _ENOUGH_FREE_BYTES else 0

    async def _watch(self, guard: Guard) -> None:
        """Replace one that dies before it is taken, each time after a longer pause."""
        if await guard.imported():
            self._deaths = 0
        exit_code = await guard.gone()
        if guard in self._kept:
            self._kept.remove(guard)
            await self._pause(f"died with exit code {exit_code}")
            self._wake.set()

    async def _pause(self, what: str) -> None:
        pause_s = min(_FIRST_PAUSE_S * 2**self._deaths, _LONGEST_PAUSE_S)
        self._deaths += 1
        _log.warning("a spare %s; the next one in %.0f s", what, pause_s)
        await asyncio.sleep(pause_s)
