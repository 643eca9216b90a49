"""One batch from its first line to the files of its answers."""

import asyncio
import contextlib
import time
from collections.abc import Generator

import msgspec

from serve.errors import InhouseError, NoSuchObject
from serve.gateway import batch_book as book
from serve.gateway import batch_lines as lines
from serve.gateway import files
from serve.gateway.batch_asking import Asking
from serve.gateway.spool import Log, Spool

_PARALLEL = 8  # requests of one batch
_TELL_S = 1.0  # between two notes of how far a batch is
_GONE = book.Fault("file_not_found", "The input file is not here any more.")
_LATE = ("batch_expired", "This request was not run before the batch expired.")


class Run:
    """`room`: for requests of all batches. What is cancelled from outside, another Run continues:
    an answer is in the log before the batch counts it, and is not asked for again."""

    def __init__(self, spool: Spool, order: book.Order, asking: Asking, room: asyncio.Semaphore):
        self._spool = spool
        self._order = order
        self._asking = asking
        self._room = room
        self._mine = asyncio.Semaphore(_PARALLEL)
        self._progress = book.read_progress(spool, order.id)
        self._told_at = 0.0

    async def run(self) -> None:
        """DiskFull, NotWritable."""
        if self._progress.status == "cancelling" and not self._progress.total:
            self._progress.enter("cancelled")  # before anybody has looked into it
            return self._tell()
        if self._progress.status == "validating":
            await asyncio.to_thread(self._check)
            self._progress.enter("failed" if self._progress.errors else "in_progress")
            self._tell()
            if self._progress.errors:
                return
        log = await asyncio.to_thread(self._spool.log, f"{self._order.id}.log")
        try:
            done = await asyncio.to_thread(self._count, log)
            try:
                await self._ask_all(log, done)
            except* InhouseError as group:
                raise _first(group) from None
            await asyncio.to_thread(self._finish, log)
        finally:
            log.close()
        self._spool.remove(f"{self._order.id}.log")

    def _check(self) -> None:
        try:
            with contextlib.closing(self._read_input()) as pieces:
                total, errors = lines.check(lines.split(pieces), self._order.endpoint)
        except NoSuchObject:
            total, errors = 0, [_GONE]
        self._progress.total, self._progress.errors = total, errors

    def _count(self, log: Log) -> set[int]:
        """The lines that have an answer; the last note of them may be older than the log."""
        self._progress.completed = self._progress.failed = 0
        done = set()
        for frame in log.frames():
            line = msgspec.json.decode(frame, type=book.Line)
            self._progress.count(line)
            done.add(line.number)
        return done

    async def _ask_all(self, log: Log, done: set[int]) -> None:
        """Every line that has no answer; until the time is over, or somebody cancels the batch."""
        left_s = self._order.expires_at - time.time()
        with contextlib.suppress(TimeoutError), contextlib.closing(self._read_input()) as pieces:
            async with asyncio.timeout(left_s), asyncio.TaskGroup() as group:
                try:
                    for number, ask in lines.read(lines.split(pieces)):
                        if number in done:
                            continue
                        await self._mine.acquire()
                        if self._is_cancelled():
                            break
                        group.create_task(self._ask(log, number, ask))
                except NoSuchObject:  # what runs may end
                    self._progress.errors = [_GONE]

    async def _ask(self, log: Log, number: int, ask: lines.Ask) -> None:
        try:
            async with self._room:
                line = await self._asking.ask(self._order, number, ask)
            log.append(msgspec.json.encode(line))
            self._progress.count(line)
            if time.monotonic() - self._told_at > _TELL_S:
                self._tell()
        finally:
            self._mine.release()

    def _is_cancelled(self) -> bool:
        if self._spool.is_marked(f"{self._order.id}.cancel"):
            if self._progress.status != "cancelling":
                self._progress.enter("cancelling")
                self._tell()
            return True
        return False

    def _finish(self, log: Log) -> None:
        """Make the files; afterwards the batch is over."""
        progress, counted = self._progress, self._progress.completed + self._progress.failed
        ended: book.Status = "completed"
        if progress.errors:
            ended = "failed"
        elif self._is_cancelled():
            ended = "cancelled"
        elif counted < progress.total:
            ended = "expired"
            self._note_missing(log)
        if ended == "completed":
            progress.enter("finalizing")
            self._tell()
        progress.output_file_id = self._make(log, "output", is_ok=True)
        progress.error_file_id = self._make(log, "error", is_ok=False)
        progress.enter(ended)
        self._tell()

    def _note_missing(self, log: Log) -> None:
        done = self._count(log)
        gone = contextlib.suppress(NoSuchObject)  # then nobody can be told which they were
        with gone, contextlib.closing(self._read_input()) as pieces:
            for number, ask in lines.read(lines.split(pieces)):
                if number not in done:
                    line = lines.not_asked(number, ask, f"late-{number}", *_LATE)
                    log.append(msgspec.json.encode(line))
                    self._progress.count(line)

    def _make(self, log: Log, kind: str, is_ok: bool) -> str | None:
        size = sum(len(row) for row in book.rows(log.frames(), is_ok))
        if not size:
            return None
        rows = book.rows(log.frames(), is_ok)
        name = f"{self._order.id}_{kind}.jsonl"
        return files.keep(self._spool, self._order.tenant, name, size, rows).id

    def _read_input(self) -> Generator[bytes]:
        return files.content(self._spool, self._order.input_file_id)

    def _tell(self) -> None:
        book.write_progress(self._spool, self._order.id, self._progress)
        self._told_at = time.monotonic()


def _first(group: BaseExceptionGroup[InhouseError]) -> InhouseError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, InhouseError)
    return error
