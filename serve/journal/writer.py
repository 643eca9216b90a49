"""Where a gateway writes."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from serve.disk import disk_errors
from serve.errors import InhouseError
from serve.journal.committing import Committer
from serve.journal.files import Mapped, make_flights, make_segment, process_name
from serve.journal.flights import Flights
from serve.journal.frames import CLOSING, HEAD_BYTES, SEGMENT_HEAD, encode, frame, framed, tamed
from serve.journal.records import End, Record, Refusal, Start

_SEGMENT_BYTES = 8 * 2**20


class Journal:
    """One per gateway process; `folder` None: nothing is kept.

    A record that `start`, `end` or `refuse` took survives the end of the process at once, and that
    of the machine after the next commit: every 20 ms ("group"), or when `committed` returns
    ("each"). Making one raises DiskFull or NotWritable.
    """

    def __init__(
        self,
        folder: Path | None,
        slot: int,
        commit: Literal["group", "each"],
        segment_bytes: int = _SEGMENT_BYTES,
    ) -> None:
        self.commit = commit
        self._book = book = _Book(folder, slot, segment_bytes) if folder else None
        self._flights = flights = Flights(book.flights if book else None)
        # Below, no functions of ours that only call others: every request comes by here.
        # A request is about to be sent to an engine. Raises DiskFull or NotWritable when the books
        # could not be kept to its end: then it must be refused. For the ends of those that run
        # there is always room.
        self.start: Callable[[Start], None] = book.start if book else _forget
        # A request is over.
        self.end: Callable[[End], None] = book.append if book else _forget
        # A place in the flight table, for `Start.slot`; its count of chunks is 0.
        self.take_slot: Callable[[], int] = flights.take
        # (slot, chunks): so many events of the answer have been passed on so far; survives this
        # process.
        self.count: Callable[[int, int], None] = flights.count
        # The request in this slot is over.
        self.free_slot: Callable[[int], None] = flights.free

    @property
    def problem(self) -> InhouseError | None:
        """DiskFull or NotWritable while no request may start; goes away when the disk is well."""
        return self._book.committer.problem if self._book else None

    def refuse(self, record: Refusal) -> None:
        """A request was refused. Not written down when the disk is full: it has no room to spare
        from what running requests need, and who refuses anyway must not fail at that."""
        if self._book and not self._book.committer.problem:
            self._book.append(record)

    async def committed(self) -> None:
        """Everything that was written so far is on the disk; at once when commit is "group".

        Raises DiskFull or NotWritable when it is not.
        """
        if self._book and self.commit == "each":
            await self._book.committed()

    def close(self) -> None:
        """Write what there is; nothing can be written any more."""
        if self._book:
            self._book.close()
        self._flights.close()


def _forget(record: Record) -> None:
    pass


class _Book:
    """Segments one after another. The next one is made while the one before is half empty, so that
    nobody waits for it, and all running requests have room for their ends when none can be made.

    The event loop appends; the thread of the committer hardens, makes segments and closes them.
    """

    _end: int  # of what is written in the segment
    _last: int  # where it must end: behind is room to close the segment

    def __init__(self, folder: Path, slot: int, segment_bytes: int) -> None:
        self._folder, self._segment_bytes = folder, segment_bytes
        self._process = process_name(slot)
        self.flights = make_flights(folder, self._process)
        self._number = 0
        self._turn = threading.Lock()  # for whoever changes which segments there are
        self._following: Mapped | None = None
        self._full: list[Mapped] = []
        self._before = 0  # bytes of the segments before this one
        self._lost: InhouseError | None = None  # what the disk was given and did not keep
        self._segment = self._make()
        self._open(self._segment)
        self.committer = Committer(self._harden, self._prepare)

    def start(self, record: Start) -> None:
        if problem := self.committer.problem:  # once: the committer's thread may take it away
            self.committer.wake()  # to look whether the disk is well again
            raise problem
        self.append(record)

    def append(self, record: Record) -> None:
        try:
            content = framed(encode(record))
        except (OverflowError, ValueError):
            content = frame(tamed(record))
        begin = self._end
        end = begin + len(content)
        if end > self._last:
            self._turn_over()
            begin = self._end
            end = begin + len(content)
        self._memory[begin:end] = content
        self._end = end
        if not self.committer.has_news:
            self.committer.wake()

    async def committed(self) -> None:
        await self.committer.wait(self._before + self._end)

    def close(self) -> None:
        self.committer.close()
        self._memory[self._end : self._end + HEAD_BYTES] = CLOSING
        with disk_errors(self._folder):
            self._segment.harden()
            if self._following:
                self._following.path.unlink()
        for segment in (*self._full, self._segment, self._following):
            if segment:
                segment.close()

    def _make(self) -> Mapped:
        segment = make_segment(self._folder, self._process, self._number, self._segment_bytes)
        self._number += 1
        return segment

    def _open(self, segment: Mapped) -> None:
        self._segment, self._memory = segment, segment.memory
        self._end = len(SEGMENT_HEAD)
        self._last = self._segment_bytes - HEAD_BYTES

    def _turn_over(self) -> None:
        with self._turn:
            following = self._following or self._make()
            self._following = None
            self._memory[self._end : self._end + HEAD_BYTES] = CLOSING
            self._full.append(self._segment)
            self._before += self._segment_bytes
            self._open(following)

    def _harden(self) -> int:
        if self._lost:  # what was lost once is not there when the disk says yes the next time
            raise self._lost
        with self._turn:
            written, segment = self._before + self._end, self._segment
            full, self._full = self._full, []
        try:
            with disk_errors(self._folder):
                for each in (*full, segment):
                    each.harden()
        except InhouseError as error:
            self._lost = error
            raise
        for each in full:
            each.close()
        return written

    def _prepare(self) -> None:
        with self._turn:
            if self._end > self._segment_bytes // 2 and not self._following:
                self._following = self._make()
