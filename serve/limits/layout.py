"""The file of a table: a header, the rows, and what every slot has reserved in each row.

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
TAKEN = struct.Struct("6q")  # Counts.request_tat … used_at
LEVELS = struct.Struct("9q")  # Counts.id … waiting_tokens
RESERVED = struct.Struct("3q")  # Counts.in_flight, reserved_tokens, reserved_nanos
WAITING = struct.Struct("2q")  # Counts.waiting, waiting_tokens
HELD = struct.Struct("5q")  # of a slot: in flight, tokens, nanos, waiting, waiting tokens
USED = struct.Struct("6q")  # Counts.day … month_nanos
BACK = struct.Struct("2q")  # Counts.request_back, token_back

OF_TAKEN = 8 * Counts._fields.index("request_tat")
OF_RESERVED = 8 * Counts._fields.index("in_flight")
OF_WAITING = 8 * Counts._fields.index("waiting")
OF_USED = 8 * Counts._fields.index("day")
OF_BACK = 8 * Counts._fields.index("request_back")

_HEADER = struct.Struct("8sqqq")  # magic, version, rows, slots
_HEADER_BYTES = 4096
_MAGIC, _VERSION = b"inhouse\0", 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are."""

    rows: int
    slots: int

    @property
    def total_bytes(self) -> int:
        return self.held(self.slots, 0)

    def row(self, index: int) -> int:
        """Offset of a row."""
        return _HEADER_BYTES + index * ROW_BYTES

    def held(self, slot: int, index: int) -> int:
        """Offset of what a slot holds in a row."""
        return self.row(self.rows) + (slot * self.rows + index) * HELD.size


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
