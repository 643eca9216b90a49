"""The files of a journal: mapped into memory, their room on the disk taken before they are used.

All that one process writes begins with its name: slot, process id, when it started. Room is taken
ahead because a page for which there is none would end the process when it is written.
"""

import fcntl
import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path

from serve.disk import disk_errors
from serve.journal.frames import SEGMENT_HEAD

SEGMENT, FLIGHTS = ".journal", ".flights"
PLACES = 2**16  # in the flight table, four bytes each; the first is nobody's
_PLACE_BYTES = 4
_ZEROS = bytes(256 * 2**10)


def process_name(slot: int) -> str:
    """What the files of this process begin with; no other process ever has the same."""
    return f"{slot:02d}-{os.getpid()}-{time.time_ns()}"


@dataclass(frozen=True, slots=True)
class Mapped:
    """A file in memory. `fd`: the same file, for the disk."""

    path: Path
    memory: mmap.mmap
    fd: int

    def harden(self) -> None:
        """Everything written so far is on the disk when this returns; leaves Python to others."""
        os.fdatasync(self.fd)  # Linux counts what was written through memory as well

    def close(self) -> None:
        """Give the memory back; a lock on the file ends."""
        self.memory.close()
        os.close(self.fd)


def make_segment(folder: Path, process: str, number: int, size_bytes: int) -> Mapped:
    """An empty segment. DiskFull or NotWritable."""
    path = folder / f"{process}.{number:06d}{SEGMENT}"
    return _make(path, size_bytes, SEGMENT_HEAD, is_locked=False)


def make_flights(folder: Path, process: str) -> Mapped:
    """The flight table, locked for as long as this process lives: so others know that it does."""
    return _make(folder / f"{process}{FLIGHTS}", PLACES * _PLACE_BYTES, b"", is_locked=True)


def _make(path: Path, size_bytes: int, head: bytes, is_locked: bool) -> Mapped:
    part = path.with_name(path.name + ".part")
    with disk_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
            _write_zeros(fd, size_bytes)
            os.pwrite(fd, head, 0)
            if is_locked:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            memory = mmap.mmap(fd, size_bytes)
            part.rename(path)  # whole, or not there
            _harden_folder(path.parent, fd)
        except BaseException:
            os.close(fd)
            part.unlink(missing_ok=True)
            raise
    return Mapped(path, memory, fd)


def _write_zeros(fd: int, size_bytes: int) -> None:
    """Else the file system would note for each page, when it is written first, that it is in use:
    that takes a commit of its own journal, for which the event loop and the disk would wait."""
    for at in range(0, size_bytes, len(_ZEROS)):
        os.pwrite(fd, _ZEROS[: size_bytes - at], at)


def _harden_folder(folder: Path, fd: int) -> None:
    """The file and its name outlive the machine, before anything is written into it."""
    os.fsync(fd)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
