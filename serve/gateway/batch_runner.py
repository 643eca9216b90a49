"""Runs batches, one gateway for all: whoever holds the spool's lock."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from serve import log
from serve.disk import locked_if_free
from serve.errors import ControlLost, InhouseError, NotRunning
from serve.gateway import batch_book as book
from serve.gateway import files
from serve.gateway.batch_asking import Asking
from serve.gateway.batch_run import Run
from serve.gateway.spool import LOCK, Spool

_logger = logging.getLogger(__name__)

_PARALLEL = 16  # requests of all batches
_BATCHES = 4  # at once; others wait for them
_LOOK_S = 0.5  # for new batches, and for whether the lock is free
_KEEP_HOUSE_S = 60.0


class Runner:
    """`find_spool()` gives the spool, and another one when the supervisor has another key;
    NotRunning or ControlLost while there is none."""

    def __init__(self, find_spool: Callable[[], Awaitable[Spool]], asking: Asking) -> None:
        self._find_spool = find_spool
        self._asking = asking
        self._room = asyncio.Semaphore(_PARALLEL)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._over: set[str] = set()

    async def run(self) -> None:
        """For ever; what is cancelled in the middle is continued by whoever comes next."""
        while True:
            try:
                spool = await self._find_spool()
                with locked_if_free(spool.folder / LOCK) as is_ours:
                    if is_ours:
                        await self._run_all(spool)
            except (NotRunning, ControlLost):
                pass  # those who follow the rosters say so
            except InhouseError as error:
                _logger.error("batches stand still: %s", error)
            await asyncio.sleep(_LOOK_S)

    async def _run_all(self, spool: Spool) -> None:
        """Until the key changes."""
        count = await asyncio.to_thread(spool.purge)
        _logger.info("running batches %s", log.fields(purged=count))
        self._over.clear()
        kept_at = 0.0
        try:
            while await self._find_spool() is spool:
                if time.monotonic() - kept_at >= _KEEP_HOUSE_S:
                    await asyncio.to_thread(keep_house, spool)
                    kept_at = time.monotonic()
                self._begin(spool, await asyncio.to_thread(self._waiting, spool))
                await asyncio.sleep(_LOOK_S)
                for id in [id for id, task in self._running.items() if task.done()]:
                    self._end(id)
        finally:
            await self._stop()

    def _waiting(self, spool: Spool) -> list[book.Order]:
        """What is not over, the oldest first."""
        found = []
        for id in set(spool.names("batch_")) - self._over - self._running.keys():
            order = book.read_order(spool, id)
            if order is None or book.read_progress(spool, id).status in book.OVER:
                self._over.add(id)
            else:
                found.append(order)
        return sorted(found, key=lambda order: (order.created_at, order.id))

    def _begin(self, spool: Spool, waiting: list[book.Order]) -> None:
        for order in waiting[: _BATCHES - len(self._running)]:
            run = Run(spool, order, self._asking, self._room)
            self._running[order.id] = asyncio.create_task(run.run())

    def _end(self, id: str) -> None:
        error = self._running.pop(id).exception()
        if isinstance(error, InhouseError):
            raise error
        if error is not None:  # a mistake of ours: the others go on, and no word of it is shown
            _logger.error("a batch cannot be run %s", log.fields(error=type(error).__name__))
            self._over.add(id)

    async def _stop(self) -> None:
        running, self._running = self._running, {}
        for task in running.values():
            task.cancel()
        for task in running.values():
            with contextlib.suppress(asyncio.CancelledError, InhouseError):
                await task


def keep_house(spool: Spool) -> None:
    """Delete what is older than it may be; a batch that is not over keeps its input."""
    now, needed = time.time(), set()
    for order in book.orders(spool):
        progress = book.read_progress(spool, order.id)
        if progress.status not in book.OVER:
            needed.add(order.input_file_id)
        elif progress.at.get(progress.status, 0) + files.KEPT_S <= now:
            book.forget(spool, order.id)
    for card in files.cards(spool):
        if card.expires_at <= now and card.id not in needed:
            spool.remove(card.id)
    spool.sweep()
