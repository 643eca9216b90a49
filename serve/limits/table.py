"""The counts that all gateway processes of a machine share."""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from serve.errors import QueueFull
from serve.limits.clock import Clock
from serve.limits.layout import (
    HELD,
    MOST_SLOTS,
    OF_RESERVED,
    OF_TAKEN,
    OF_USED,
    OF_WAITING,
    RESERVED,
    ROW,
    ROW_BYTES,
    ROWS,
    TAKEN,
    USED,
    WAITING,
    WINDOW,
    Layout,
    id_of,
    make_file,
    open_file,
)
from serve.limits.rates import DAY_S, Counts, month_of

Owner = Literal["key", "tenant", "model"]


class Table:
    """`file` None: this process alone; otherwise a file that several processes map, each with a
    `slot` of its own (the supervisor, which lets nobody in, needs none).

    The supervisor makes the file anew at each start (`make`), tells what the ledger knows of the
    running day and month (`seed`), and when a gateway has died, gives back what that had reserved
    (`clear_slot`) and charges what was delivered (`charge`). It does all of this before another
    gateway takes the slot. Only names with limits need a row, and models that bound the requests
    at once. When there is no room for another name, the row that was not used for the longest time
    and has nobody in flight is given away, with what it knew of its day and month.

    Every change is one critical section under a lock of the file, which the kernel releases when
    its holder dies. A process killed inside of one can leave a count too high, never too low, until
    `clear_slot` has summed it up again. For one thread per process.
    """

    def __init__(self, file: Path | None, slot: int = 0, clock: Clock | None = None) -> None:
        if file is None:
            self._fd: int | None = None
            self.layout = Layout(ROWS, 1)
            self.bytes = mmap.mmap(-1, self.layout.total_bytes)
        else:
            self._fd, self.bytes, self.layout = open_file(file)
        if not 0 <= slot < self.layout.slots:
            raise ValueError(f"slot {slot} of {self.layout.slots}")
        self.slot = slot
        self.clock = clock or Clock()
        self._time, self._monotonic_ns = self.clock.time, self.clock.monotonic_ns
        self.today = self.month = self._day_begins = self._day_ends = 0
        self.n_made = 0  # rows, by us

    @staticmethod
    def make(file: Path, slots: int, rows: int = ROWS) -> None:
        """A new, empty table for as many processes, in place of whatever was there. NotWritable."""
        if not (1 <= slots <= MOST_SLOTS and rows >= WINDOW):
            raise ValueError(f"{slots} slots, {rows} rows")
        make_file(file, Layout(rows, slots))

    @property
    def is_shared(self) -> bool:
        """Whether others may give back what our waiters wait for."""
        return self.layout.slots > 1

    def seed(self, owner: Owner, name: str, day: tuple[int, int], month: tuple[int, int]) -> None:
        """What was used in the running day and month (UTC), each as tokens and nanos. What those
        who are in have reserved stays."""
        with self.changing():
            offset = self.row(owner, name)
            counts = (self.today, *day, self.month, *month)
            USED.pack_into(self.bytes, offset + OF_USED, *counts)

    def charge(self, owner: Owner, name: str, tokens: int, nanos: int) -> None:
        """Somebody used this without a ticket, now."""
        with self.changing():
            counts = self.read(offset := self.row(owner, name))
            self.use(offset, counts, tokens, nanos)

    def clear_slot(self, slot: int) -> None:
        """Its process is dead: give back all that it had reserved. Milliseconds, for everybody."""
        with self.changing():
            for index in range(self.layout.rows):
                if self._id_at(self.layout.row(index)):
                    self._clear(slot, index)

    def _clear(self, slot: int, index: int) -> None:
        HELD.pack_into(self.bytes, self.layout.held(slot, index), *(0,) * 5)
        held = [
            HELD.unpack_from(self.bytes, self.layout.held(other, index))
            for other in range(self.layout.slots)
        ]
        in_flight, tokens, nanos, *waiting = (sum(column) for column in zip(*held, strict=True))
        offset = self.layout.row(index)
        RESERVED.pack_into(self.bytes, offset + OF_RESERVED, in_flight, tokens, nanos)
        WAITING.pack_into(self.bytes, offset + OF_WAITING, *waiting)

    def close(self) -> None:
        """Let go of the file. Nothing is given back by that."""
        self.bytes.close()
        if self._fd is not None:
            os.close(self._fd)

    # What follows is for this room.

    def lock(self) -> None:
        """Begin a critical section: microseconds, nothing that can wait in it."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """End it."""
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A critical section, where a microsecond more does not matter."""
        self.tick()
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    def tick(self) -> int:
        """The time, in ns of the monotonic clock; looks at the calendar too."""
        if not self._day_begins <= self._time() < self._day_ends:
            self.today = int(self._time() // DAY_S)
            self._day_begins, self._day_ends = self.today * DAY_S, (self.today + 1) * DAY_S
            self.month = month_of(self.today)
        return self._monotonic_ns()

    def row(self, owner: Owner, name: str) -> int:
        """Offset of the row of this name; a new one if it has none. QueueFull if that cannot be."""
        wanted = id_of(owner, name)
        oldest, oldest_ns = None, 2**63
        for step in range(WINDOW):
            offset = self.layout.row((wanted + step) % self.layout.rows)
            found = Counts._make(ROW.unpack_from(self.bytes, offset))
            if found.id == wanted:
                self._touch(offset, found)
                return offset
            if not found.id:
                oldest = offset
                break
            if not found.in_flight and found.used_at < oldest_ns:
                oldest, oldest_ns = offset, found.used_at
        if oldest is None:
            raise QueueFull(name, 1.0)
        fresh = Counts(wanted, *(0,) * 16)
        fresh = fresh._replace(used_at=self.clock.monotonic_ns(), day=self.today, month=self.month)
        ROW.pack_into(self.bytes, oldest, *fresh)
        self.n_made += 1
        return oldest

    def _touch(self, offset: int, counts: Counts) -> None:
        now_ns = self.clock.monotonic_ns()
        TAKEN.pack_into(self.bytes, offset + OF_TAKEN, *counts[1:6], now_ns)

    def index(self, offset: int) -> int:
        """The row's number."""
        return (offset - self.layout.row(0)) // ROW_BYTES

    def read(self, offset: int) -> Counts:
        """A row, with its day and month begun anew if they are over. A clock that is set back
        begins nothing: the later day goes on until it is over."""
        counts = Counts._make(ROW.unpack_from(self.bytes, offset))
        if counts.day < self.today:
            counts = counts._replace(day=self.today, day_tokens=0, day_nanos=0)
            if counts.month < self.month:
                counts = counts._replace(month=self.month, month_tokens=0, month_nanos=0)
            USED.pack_into(self.bytes, offset + OF_USED, *counts[9:15])
        return counts

    def use(self, offset: int, counts: Counts, tokens: int, nanos: int) -> None:
        """Charge it to the row's day and month."""
        USED.pack_into(
            self.bytes,
            offset + OF_USED,
            counts.day,
            counts.day_tokens + tokens,
            counts.day_nanos + nanos,
            counts.month,
            counts.month_tokens + tokens,
            counts.month_nanos + nanos,
        )

    def _id_at(self, offset: int) -> int:
        return int.from_bytes(self.bytes[offset : offset + 8], "little")
