"""The counts that all gateway processes of a machine share."""

import fcntl
import mmap
import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from serve.errors import QueueFull
from serve.limits.clock import Clock
from serve.limits.layout import (
    ALL_HELD,
    ENTRY,
    GENERATION,
    MOST_OF_PARTY,
    MOST_SLOTS,
    OF_HELD,
    ROW,
    ROW_BYTES,
    ROWS,
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
    and has nobody in flight is given away, with what it knew of its day and month. What a process
    has reserved is noted in entries, one for each combination of rows (`entry`).

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
        self._entries: dict[tuple[int, ...], int] = {}  # ours, by the rows' offsets
        self._idle: list[int] = []  # entries that may be used again
        # A critical section: microseconds, nothing that can wait in it. No methods, since every
        # request has four of these calls.
        self.lock: Callable[[], object] = _nothing
        self.unlock: Callable[[], object] = _nothing
        if self._fd is not None:
            self.lock = partial(fcntl.flock, self._fd, fcntl.LOCK_EX)
            self.unlock = partial(fcntl.flock, self._fd, fcntl.LOCK_UN)

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
            counts = self.read(offset := self.row(owner, name))
            self.renew()
            self.write(
                offset,
                counts._replace(
                    day=self.today,
                    month=self.month,
                    earlier_tokens=month[0] - day[0],
                    earlier_nanos=month[1] - day[1],
                    tokens=day[0] + counts.reserved_tokens,
                    nanos=day[1] + counts.reserved_nanos,
                    day_tokens=day[0],
                    day_nanos=day[1],
                ),
            )

    def charge(self, owner: Owner, name: str, tokens: int, nanos: int) -> None:
        """Somebody used this without a ticket, now."""
        with self.changing():
            counts = self.read(offset := self.row(owner, name))
            self.write(
                offset,
                counts._replace(
                    tokens=counts.tokens + tokens,
                    nanos=counts.nanos + nanos,
                    day_tokens=counts.day_tokens + tokens,
                    day_nanos=counts.day_nanos + nanos,
                ),
            )

    def clear_slot(self, slot: int) -> None:
        """Its process is dead: give back all that it had reserved. Milliseconds, for everybody."""
        with self.changing():
            for at in self._entries_of(slot):
                ALL_HELD.pack_into(self.bytes, at + OF_HELD, *(0,) * 5)
            sums: dict[int, list[int]] = {}
            for other in range(self.layout.slots):
                for at in self._entries_of(other):
                    *rows, in_flight, tokens, nanos, waiting, waiting_tokens = ENTRY.unpack_from(
                        self.bytes, at
                    )
                    held = in_flight, tokens, nanos, waiting, waiting_tokens
                    for row in filter(None, rows) if any(held) else ():
                        sums[row] = [*map(operator.add, sums.get(row, (0,) * 5), held)]
            for index in range(self.layout.rows):
                if self._number_at(self.layout.row(index)):
                    self._hold_only(self.layout.row(index), *sums.get(index + 1, (0,) * 5))

    def _entries_of(self, slot: int) -> Iterator[int]:
        n_entries = self._number_at(self.layout.slot(slot))
        return (self.layout.entry(slot, number) for number in range(n_entries))

    def _hold_only(self, at: int, in_flight: int, tokens: int, nanos: int, *waiting: int) -> None:
        counts = Counts._make(ROW.unpack_from(self.bytes, at))
        fresh = counts._replace(
            waiting=waiting[0],
            waiting_tokens=waiting[1],
            in_flight=in_flight,
            tokens=counts.day_tokens + tokens,
            nanos=counts.day_nanos + nanos,
        )
        if fresh != counts:
            self.write(at, fresh)

    def close(self) -> None:
        """Let go of the file. Nothing is given back by that."""
        self.bytes.close()
        if self._fd is not None:
            os.close(self._fd)

    # What follows is for this room.

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
            today = int(self._time() // DAY_S)
            if today > self.today:
                self.lock()
                self.renew()
                self.unlock()
            self.today = today
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
        now_ns, empty = self.clock.monotonic_ns(), Counts._make((0,) * len(Counts._fields))
        self.renew()
        fresh = empty._replace(id=wanted, used_at=now_ns, day=self.today, month=self.month)
        self.write(oldest, fresh)
        self.n_made += 1
        return oldest

    def _touch(self, offset: int, counts: Counts) -> None:
        self.write(offset, counts._replace(used_at=self.clock.monotonic_ns()))

    def renew(self) -> None:
        """What is known of where rows are, and when their budgets end, is not true any more."""
        self.bytes[GENERATION] = (self._number_at(GENERATION.start) + 1).to_bytes(8, "little")

    def read(self, offset: int) -> Counts:
        """A row, with its day and month begun anew if they are over. A clock that is set back
        begins nothing: the later day goes on until it is over."""
        counts = Counts._make(ROW.unpack_from(self.bytes, offset))
        if counts.day < self.today:
            is_same_month = counts.month >= self.month
            counts = counts._replace(
                day=self.today,
                month=max(counts.month, self.month),
                earlier_tokens=counts.month_tokens if is_same_month else 0,
                earlier_nanos=counts.month_nanos if is_same_month else 0,
                tokens=counts.reserved_tokens,
                nanos=counts.reserved_nanos,
                day_tokens=0,
                day_nanos=0,
            )
            self.renew()
            self.write(offset, counts)
        return counts

    def write(self, offset: int, counts: Counts) -> None:
        """A whole row, in one move: nobody sees half of it, and who is killed leaves none."""
        self.bytes[offset : offset + ROW_BYTES] = ROW.pack(*counts)

    def entry(self, rows: tuple[int, ...], name: str) -> int:
        """Offset of our entry for these rows. QueueFull of `name` if all are in use."""
        number = self._entries.get(rows)
        if number is None:
            number = self._entries[rows] = self._free_entry(name)
            indexes = [1 + (row - self.layout.row(0)) // ROW_BYTES for row in rows]
            indexes += [0] * (MOST_OF_PARTY - len(rows))
            at = self.layout.entry(self.slot, number)
            ENTRY.pack_into(self.bytes, at, *indexes, *(0,) * 5)
            count = self.layout.slot(self.slot)
            n_entries = max(number + 1, self._number_at(count))
            self.bytes[count : count + 8] = n_entries.to_bytes(8, "little")
        return self.layout.entry(self.slot, number)

    def _free_entry(self, name: str) -> int:
        if not self._idle and len(self._entries) < self.layout.rows:
            return len(self._entries)
        if not self._idle:
            self.renew()  # some of those who know of an entry have it no more
            for rows, number in [*self._entries.items()]:
                if not self._number_at(self.layout.entry(self.slot, number) + OF_HELD):
                    self._idle.append(self._entries.pop(rows))
        if not self._idle:
            raise QueueFull(name, 1.0)
        return self._idle.pop()

    def _number_at(self, offset: int) -> int:
        return int.from_bytes(self.bytes[offset : offset + 8], "little")


def _nothing() -> None:
    """To lock what nobody else has."""
