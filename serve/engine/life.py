"""One engine, one life: watched by one coroutine from ready to gone."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from serve.engine.guarding import Guard
from serve.engine.measured import measure, to_profile
from serve.engine.probe import Probe
from serve.engine.triage import find_cause, has_given_up
from serve.errors import EngineDied, StartFailed, StartTimedOut
from serve.log import fields
from serve.plan import Plan
from serve.profiles import Profile

_RECORD_FILE = "engine.json"
# Eight workers write eight tracebacks; the first one counts.
_LOG_TAIL_BYTES = 1024 * 1024
# How often a log is read for words of failure, and how long its engine may take to leave then.
_LOOK_S, _LAST_WORDS_S = 2.0, 15.0

_log = logging.getLogger(__name__)

Mode = Literal["compiled", "eager"]


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a ready engine; written beside its socket for a supervisor after us.

    `isolation`: "full" (no network, a PID namespace of its own), "network" (none) or "off".
    `started_at`: unix seconds.
    """

    replica: str
    plan: Plan
    mode: Mode
    isolation: str
    log_path: Path
    started_at: float
    ready_after_s: float


_RECORDS = TypeAdapter(Record)


class Engine:
    """A ready engine. Must be made in a running event loop."""

    def __init__(self, record: Record, guard: Guard) -> None:
        self.replica = record.replica
        self.plan = record.plan
        self.mode = record.mode
        self.isolation = record.isolation
        self.log_path = record.log_path
        self.started_at = record.started_at
        self.ready_after_s = record.ready_after_s
        self.socket = guard.socket
        self.pid = guard.pid
        self._guard = guard
        self._is_stopped = False
        self._life = asyncio.create_task(self._live())

    async def ended(self) -> EngineDied | None:
        """When nothing of it is left: None if it was stopped, else how it died."""
        return await asyncio.shield(self._life)

    async def profile(self) -> Profile | None:
        """What this launch took, as the engine itself measured it; None: its plan has no key."""
        if self.plan.key is None:
            return None
        measured = await measure(self.socket, self.log_path)
        return to_profile(measured, self.plan.key, self.plan, self.started_at, self.ready_after_s)

    async def stop(self, grace_s: float) -> None:
        """Let it end by itself for `grace_s`, then make it; returns when nothing of it is left."""
        self._is_stopped = True
        await self._guard.end(grace_s)
        await self.ended()

    async def _live(self) -> EngineDied | None:
        probe = Probe(self.socket)
        gone = asyncio.create_task(self._guard.gone())
        bad = asyncio.create_task(probe.until_bad())
        await asyncio.wait({gone, bad}, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done() and not self._is_stopped:
            _log.warning("engine is %s, ending it %s", bad.result(), fields(replica=self.replica))
            await self._guard.end()
        bad.cancel()
        exit_code = await gone
        await probe.close()
        if self._is_stopped:
            return None
        return EngineDied(self.plan.subject.spec.name, exit_code, str(self.log_path))


async def until_ready(guard: Guard, model: str, log_path: Path, timeout_s: float) -> None:
    """Return when `guard`'s engine serves `model`.

    Raises StartFailed (with the root cause from its log; also of one that has failed and hangs)
    and StartTimedOut; nothing of it is left then, nor when the caller is cancelled.
    """
    probe = Probe(guard.socket)
    gone = asyncio.create_task(guard.gone())
    ready = asyncio.create_task(probe.until_ready(model))
    stuck = asyncio.create_task(_given_up(log_path, min(_LAST_WORDS_S, timeout_s / 4)))
    try:
        done, _ = await asyncio.wait(
            {gone, ready, stuck}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if ready not in done and done:
            code = gone.result() if gone in done else None
            found = find_cause(tail(log_path), code)
            raise StartFailed(model, found.cause, str(log_path), code, found.remedy, found.facts)
        if not done:
            raise StartTimedOut(model, timeout_s, str(log_path))
    except BaseException:
        await guard.end()
        raise
    finally:
        for task in (ready, gone, stuck):
            task.cancel()
        await probe.close()


async def _given_up(log_path: Path, patience_s: float) -> None:
    """Return when the engine has said that it cannot start, and had time to leave: some stay, with
    all their memory, and answer nobody."""
    while not has_given_up(tail(log_path)):
        await asyncio.sleep(_LOOK_S)
    await asyncio.sleep(patience_s)


def write_record(record: Record, folder: Path) -> None:
    """Atomically, so that a reader finds a whole one or none."""
    fresh = folder / f"{_RECORD_FILE}.new"
    fresh.write_bytes(_RECORDS.dump_json(record))
    fresh.rename(folder / _RECORD_FILE)


def read_record(folder: Path) -> Record | None:
    """None when the engine was not ready yet, or was written by a version of us that differs."""
    try:
        return _RECORDS.validate_json((folder / _RECORD_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def tail(log_path: Path) -> str:
    """The last MiB of a log; empty when it cannot be read."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
