"""Pools of engines that wait for nothing: a spare imports vLLM while another engine starts."""

import asyncio
import itertools
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from serve.engine import EnginePool, PoolConfig
from serve.engine.runtime import Runtime


class Loop:
    """An event loop in a thread, so that one pool with its spare serves many tests."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(200)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True, slots=True)
class Turn:
    """A pool, and where it keeps sockets and logs."""

    pool: EnginePool
    run: Path


class Turns:
    """Two pools with a spare each, to be used in turn: `next()` has the one with the older spare.

    An engine of a tiny model is ready in three seconds once its host has imported vLLM, which takes
    nine on one core. A pool imports nothing while an engine of its own starts; its neighbour does.
    """

    def __init__(self, runtime: Runtime, cache: Path, run: Path) -> None:
        self.loop = Loop()
        self._turns = [
            Turn(EnginePool(config_of(runtime, cache, place)), place)
            for place in (run / "0", run / "1")
        ]
        self._next: Iterator[Turn] = itertools.cycle(self._turns)

    def __enter__(self) -> Self:
        for turn in self._turns:
            self.loop.run(_enter(turn.pool))
        return self

    def __next__(self) -> Turn:
        return next(self._next)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for turn in self._turns:
            self.loop.run(turn.pool.__aexit__(None, None, None))
        self.loop.close()


def config_of(runtime: Runtime, cache: Path, run: Path, **changes: Any) -> PoolConfig:
    """As tests of tiny models want it: quick to give up, nothing compiled."""
    usual: dict[str, Any] = {
        "runtime": runtime, "run_dir": run, "log_dir": run / "logs", "cache_dir": cache,
        "spares": 1, "compile": "off", "start_timeout_s": 180, "grace_s": 4,
    }  # fmt: skip
    return PoolConfig(**usual | changes)


async def _enter(pool: EnginePool) -> None:
    await pool.__aenter__()
    pool.keep_spares()
