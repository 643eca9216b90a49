"""The file of a table: a header, the rows, and what every slot has reserved in which of them.

All are int64 of this machine, aligned. A row is found by open addressing from a hash of its name;
it may lie in any of `WINDOW` places from there on. A row that was used is never emptied, only given
to another name, so a search may stop at the first empty one.
"""

import mmap
import os
import struct
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from serve.errors import ControlLost, NotWritable
from serve.limits.rates import Counts

MOST_SLOTS = 64
WINDOW = 64
ROWS = 16384

ROW = struct.Struct(f"{len(Counts._fields)}q")
ROW_BYTES = ROW.size
OF_WAITING = 8 * Counts._fields.index("waiting")
OF_REQUEST_TAT = 8 * Counts._fields.index("request_tat")
OF_TOKEN_TAT = 8 * Counts._fields.index("token_tat")
LOOK = struct.Struct("q8x3q8x3q")  # waiting, request_tat, token_tat, token_back, in_flight … nanos
LEVELS = struct.Struct("4q")  # waiting, waiting_tokens, request_tat, token_tat
OWING = struct.Struct("2q8x5q")  # token_tat, token_back, in_flight … day_nanos
POURED = struct.Struct("2q")  # token_tat, token_back
QUEUED = struct.Struct("9q")  # waiting … nanos
TAKEN = struct.Struct("7q")  # request_tat … nanos
SETTLED = struct.Struct("8q")  # token_tat … day_nanos

# Of a slot, what it has reserved: three rows (their numbers, from 1; 0: none), and of each of them
# in flight, tokens, nanos, waiting, waiting tokens.
ENTRY = struct.Struct("8q")
OF_HELD = 3 * 8
ALL_HELD = struct.Struct("5q")
HELD = struct.Struct("3q")  # in flight, tokens, nanos
MOST_OF_PARTY = 3

_HEADER = struct.Struct("8sqqq")  # magic, version, rows, slots
_HEADER_BYTES = 4096
_MAGIC, _VERSION = b"inhouse\0", 2
# A number that grows whenever a row is made, given away, or begins another day or month: as long as
# it stands, what is known of where rows are and when their budgets end is true.
GENERATION = slice(64, 72)
_SLOT_BYTES = 64  # before its entries: how many of them were ever in use


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are."""

    rows: int
    slots: int

    @property
    def total_bytes(self) -> int:
        return self.slot(self.slots)

    def row(self, index: int) -> int:
        """Offset of a row."""
        return _HEADER_BYTES + index * ROW_BYTES

    def slot(self, slot: int) -> int:
        """Offset of how many entries a slot has, which go before those."""
        return self.row(self.rows) + slot * (_SLOT_BYTES + self.rows * ENTRY.size)

    def entry(self, slot: int, number: int) -> int:
        """Offset of an entry. A slot may have as many as there are rows."""
        return self.slot(slot) + _SLOT_BYTES + number * ENTRY.size


def id_of(owner: str, name: str) -> int:
    """63 bits that stand for a name, never 0. Two of a table's names never share them in practice:
    with 16384 rows the odds are 1 in 10¹¹."""
    digest = blake2b(f"{owner}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 or 1


def make_file(path: Path, layout: Layout) -> None:
    """A new table in place of whatever was there. Its pages take memory when they are used."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, layout.total_bytes)
            os.pwrite(fd, _HEADER.pack(_MAGIC, _VERSION, layout.rows, layout.slots), 0)
        finally:
            os.close(fd)
        part.replace(path)
    except OSError as error:
        raise NotWritable(str(path), error.strerror or str(error)) from error


def open_file(path: Path) -> tuple[int, mmap.mmap, Layout]:
    """A descriptor to lock by, the mapped bytes, and where things are in them. ControlLost if the
    file is not there or was made by another version."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise ControlLost(f"no table of limits: {error.strerror}") from error
    header = os.pread(fd, _HEADER.size, 0).ljust(_HEADER.size, b"\0")
    magic, version, rows, slots = _HEADER.unpack(header)
    layout = Layout(rows, slots)
    is_ours = (magic, version) == (_MAGIC, _VERSION)
    if not is_ours or os.fstat(fd).st_size != layout.total_bytes:
        os.close(fd)
        raise ControlLost("a table of limits that is not understood")
    return fd, mmap.mmap(fd, layout.total_bytes), layout
