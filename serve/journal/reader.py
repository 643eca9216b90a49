"""Where the supervisor reads: what all gateways have written, also those that are gone."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serve.disk import disk_errors, is_locked, sync
from serve.journal.files import FLIGHTS, PLACES, SEGMENT
from serve.journal.frames import LARGEST_BYTES, SEGMENT_HEAD, Piece, parse

# So that many records are read at once, and even the largest is in one window.
_WINDOW_BYTES = 8 * LARGEST_BYTES


@dataclass(frozen=True, slots=True)
class Writer:
    """A gateway process that has left files here. `name`: what they begin with.

    `is_gone`: it writes no more; all that it ever wrote is in its `segments`, the oldest first.
    """

    name: str
    is_gone: bool
    segments: tuple[str, ...]


class Journals:
    """The folder of all journals. Who writes them is not disturbed by who reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def writers(self) -> tuple[Writer, ...]:
        """All that have files here, the oldest first."""
        found = {file.name.split(".")[0] for file in self._files("*")}
        return tuple(map(self._writer, sorted(found, key=_age)))

    def read(self, writer: Writer, segment: str, offset: int, most: int) -> Piece:
        """The records from `offset` on (0: from the first), at most as many as `most`.

        A file in a form that this version does not know is read as empty, and never closed.
        """
        with disk_errors(self._folder), (self._folder / segment).open("rb") as file:
            if file.read(len(SEGMENT_HEAD)) != SEGMENT_HEAD:
                return Piece((), 0)
            size = os.fstat(file.fileno()).st_size
            at, lost = max(offset, len(SEGMENT_HEAD)), 0
            while True:
                window = os.pread(file.fileno(), _WINDOW_BYTES, at)
                is_last = at + len(window) >= size
                piece = parse(window, at, most, writer.is_gone, is_last)
                lost += piece.lost_bytes
                if piece.records or piece.is_closed or is_last or piece.end == at:
                    return Piece(piece.records, piece.end, piece.is_closed, lost)
                at = piece.end

    def delivered(self, writer: Writer) -> Sequence[int]:
        """How many events of answers it has passed on, by place in its flight table."""
        try:
            content = (self._folder / f"{writer.name}{FLIGHTS}").read_bytes()
        except FileNotFoundError:
            content = b""
        return memoryview(content.ljust(PLACES * 4, b"\0")).cast("I")

    def remove_segments(self, names: Sequence[str]) -> None:
        """Delete what was read and is kept elsewhere, for good."""
        self._remove([self._folder / name for name in names])

    def remove_writer(self, writer: Writer) -> None:
        """Delete all that a gone one has left."""
        self._remove(self._files(writer.name))

    def _writer(self, name: str) -> Writer:
        # First this and then the files: who is gone by now makes no more of them.
        is_gone = not is_locked(self._folder / f"{name}{FLIGHTS}")
        segments = [file.name for file in self._files(name) if file.name.endswith(SEGMENT)]
        return Writer(name, is_gone, tuple(sorted(segments)))

    def _files(self, process: str) -> list[Path]:
        return [
            file
            for file in self._folder.glob(f"{process}.*")
            if file.name.removesuffix(".part").endswith((SEGMENT, FLIGHTS))
            # Half made: perhaps by a process that is not locked yet.
            and not file.name.endswith(f"{FLIGHTS}.part")
        ]

    def _remove(self, files: Sequence[Path]) -> None:
        with disk_errors(self._folder):
            for file in files:
                file.unlink(missing_ok=True)
            if files:
                sync(self._folder)


def _age(process: str) -> tuple[int, str]:
    started = process.rpartition("-")[2]
    return int(started) if started.isdigit() else 0, process
