"""Content that arrives in pieces, in any order, over any number of runs: kept until it is whole.

imports/<id>/<sha256>           grows where its pieces belong, with holes
imports/<id>/<sha256>.pieces    the numbers of those that are on the disk for good
"""

import os
from collections.abc import Iterable
from pathlib import Path

from serve.disk import disk_errors, remove_tree, require_room, sync

_RECORD_BYTES = 10  # nine digits and a line end: what was cut off in the middle is no record


class Staging:
    """The folder of one import. Its caller holds the import's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: frozenset[str] = frozenset()
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def require_room(self, needed_bytes: int) -> None:
        """DiskFull unless as many bytes fit."""
        require_room(self._folder, needed_bytes)

    def path(self, sha256: str) -> Path:
        """Where the content with this hash is, or grows."""
        return self._folder / sha256

    def pieces(self, sha256: str) -> set[int]:
        """Which pieces of the content are here, numbered from 0."""
        journal = self._journal(sha256)
        if not self.path(sha256).is_file() or not journal.is_file():
            return set()
        text = journal.read_bytes()
        whole = len(text) - len(text) % _RECORD_BYTES
        records = (text[at : at + _RECORD_BYTES] for at in range(0, whole, _RECORD_BYTES))
        return {int(record) for record in records if record[:-1].isdigit()}

    def put(self, sha256: str, piece: int, offset: int, content: bytes) -> None:
        """Keep one verified piece, for good: first its bytes are on the disk, then its number."""
        journal = self._journal(sha256)
        with disk_errors(self.path(sha256), len(content)):
            _write_at(self.path(sha256), offset, content)
            kept = journal.stat().st_size if journal.is_file() else 0
            _write_at(journal, kept - kept % _RECORD_BYTES, b"%09d\n" % piece)

    def touch(self, sha256: str) -> None:
        """Content without any bytes."""
        with disk_errors(self._folder):
            self.path(sha256).touch()

    def discard(self, sha256: str) -> None:
        """Forget the content; its files go, and none that is linked elsewhere is written to."""
        with disk_errors(self._folder):
            self._journal(sha256).unlink(missing_ok=True)
            self.path(sha256).unlink(missing_ok=True)

    def hold(self, contents: Iterable[str]) -> None:
        """Let `release` spare these: others need them still."""
        self._held = frozenset(contents)

    def is_held(self, sha256: str) -> bool:
        """Whether others need the content still."""
        return sha256 in self._held

    def release(self, sha256: str) -> None:
        """The content has found its place and is not needed here any more."""
        if sha256 not in self._held:
            self.discard(sha256)

    def close(self) -> None:
        """Everything has found its place: the folder goes."""
        with disk_errors(self._folder):
            remove_tree(self._folder)
            sync(self._folder.parent)

    def tidy(self) -> None:
        """An empty folder goes."""
        with disk_errors(self._folder):
            if self._folder.is_dir() and not any(self._folder.iterdir()):
                self._folder.rmdir()

    def _journal(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.pieces"


def _write_at(path: Path, offset: int, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(content)
        while left:
            written = os.pwrite(fd, left, offset)
            left, offset = left[written:], offset + written
        os.fdatasync(fd)
    finally:
        os.close(fd)
