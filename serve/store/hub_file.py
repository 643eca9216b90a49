"""A file as a Hub lists it, and the hashes by which its bytes are known."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serve.errors import HashMismatch

_PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the Hub lists it.

    `promised` is the hash that its bytes must have: the sha256 of big files (LFS, Xet), git's
    sha1 of the others. It is checked hex and names the blob.
    """

    path: str
    size: int
    promised: str

    @property
    def has_sha256(self) -> bool:
        return len(self.promised) == 64


class Hashes:
    """The sha256 of content that comes in pieces, and git's blob id where that is promised."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._git = None if file.has_sha256 else hashlib.sha1(usedforsecurity=False)
        if self._git is not None:
            self._git.update(b"blob %d\0" % file.size)

    def update(self, piece: bytes) -> None:
        self._sha256.update(piece)
        if self._git is not None:
            self._git.update(piece)

    def reading(self, content: BinaryIO) -> Iterator[int]:
        """Take what is left of an open file, piece by piece; yields their sizes."""
        while piece := content.read(_PIECE_BYTES):
            self.update(piece)
            yield len(piece)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def is_right(self) -> bool:
        return self._of_promised_kind == self._file.promised

    def mismatch(self, size: int) -> HashMismatch:
        """The error that tells what `size` bytes of content are instead."""
        file = self._file
        if size != file.size:
            return HashMismatch(file.path, f"{file.size} bytes", f"{size} bytes")
        return HashMismatch(file.path, file.promised, self._of_promised_kind)

    @property
    def _of_promised_kind(self) -> str:
        return (self._git or self._sha256).hexdigest()


def verified(file: HubFile, path: Path, advance: Callable[[int], None]) -> str | None:
    """The sha256 of the file at `path` if it has the promised content; what was advanced is taken
    back if not."""
    if not path.is_file() or path.stat().st_size != file.size:
        return None
    hashes = Hashes(file)
    with path.open("rb", buffering=0) as content:
        for n_bytes in hashes.reading(content):
            advance(n_bytes)
    if hashes.is_right:
        return hashes.sha256
    advance(-file.size)
    return None
