"""What files and batches put on the disk: encrypted under a key that only memory holds.

AES-256-GCM, in frames, so that nothing need be held whole. Each file has a key of its own, made
from the supervisor's, a random salt and its name; each frame a random nonce of 96 bits (of fewer
than 2^20 under one key: two are alike with a chance below 2^-57). A frame is bound to its number,
and the last one of what is complete says so: nothing can be moved, swapped, or cut off unseen.

Nothing is forced onto the disk: what a power failure loses could not be read after it anyway.
"""

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from serve.disk import disk_errors
from serve.errors import NoSuchObject

if TYPE_CHECKING:
    from serve.gateway.sealing import Cipher

KEY_BYTES = 32
FRAME_BYTES = 64 * 1024  # of plain text; what is written in pieces is cut so by its writer

_SEALED, _LOG = b"inhouse spool 1 sealed\n", b"inhouse spool 1 stream\n"
_SALT_BYTES, _NONCE_BYTES, _TAG_BYTES, _LENGTH_BYTES = 16, 12, 16, 4
_LONGEST_FRAME = 64 * 2**20
_NAME = re.compile(r"(file|batch)[-_][0-9a-f]{32}(\.state|\.log)?")
_PART = re.compile(r"\.[0-9a-f]{16}\.part")
_LONGEST_WRITE_S = 600.0
_CANCEL = re.compile(r"batch_[0-9a-f]{32}\.cancel")


class Spool:
    """A folder of encrypted files. One may be written by several processes at once, as long as
    each name has one writer."""

    def __init__(self, folder: Path, key: bytes) -> None:
        from serve.gateway.sealing import Cipher  # most gateways have no spool

        self.folder = folder
        self._key, self._cipher_of = key, Cipher
        with disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)

    def seal(self, name: str, frames: Iterable[bytes]) -> None:
        """Write `name` whole, or not at all; what had this name is replaced. DiskFull."""
        part = self.folder / f".{secrets.token_hex(8)}.part"
        with disk_errors(part):
            try:
                with _create(part) as file:
                    cipher = self._begin(file, name, _SEALED)
                    number, last = 0, None
                    for frame in frames:
                        if last is not None:
                            file.write(_closed(cipher, last, number, is_last=False))
                            number += 1
                        last = frame
                    file.write(_closed(cipher, last or b"", number, is_last=True))
                part.rename(self._path(name))
            finally:
                part.unlink(missing_ok=True)

    def frames(self, name: str) -> Generator[bytes]:
        """What `seal` was given. NoSuchObject if it is not here, or not as it was written."""
        with self._open(name) as file:
            cipher = self._cipher(file, name, _SEALED)
            size = os.fstat(file.fileno()).st_size
            number, is_last = 0, False
            while not is_last:
                box = _next_box(file)
                is_last = box is None or file.tell() >= size
                yield _opened(cipher, box, number, is_last, name)
                number += 1

    def head(self, name: str) -> bytes:
        """The first frame. NoSuchObject."""
        with contextlib.closing(self.frames(name)) as frames:
            return next(frames)

    def log(self, name: str) -> "Log":
        """A file that grows, with what it has already; a torn end of it is cut off."""
        return Log(self, name)

    def remove(self, *names: str) -> None:
        for name in names:
            self._path(name).unlink(missing_ok=True)

    def mark(self, name: str) -> None:
        """Leave a sign that has no content."""
        with disk_errors(self.folder):
            (self.folder / name).touch(0o600)

    def is_marked(self, name: str) -> bool:
        return (self.folder / name).exists()

    def names(self, prefix: str) -> list[str]:
        """Of objects, not of what belongs to one."""
        found = (entry.name for entry in os.scandir(self.folder))
        return sorted(name for name in found if name.startswith(prefix) and "." not in name)

    def purge(self) -> int:
        """Delete all that this key does not open; how many. Only for who holds LOCK."""
        count = 0
        for entry in list(os.scandir(self.folder)):
            if not (_PART.fullmatch(entry.name) or self._is_ours(entry.name)):
                Path(entry.path).unlink(missing_ok=True)
                count += 1
        self.sweep()
        return count

    def sweep(self) -> None:
        """Delete what somebody began to write long ago, and never ended."""
        for entry in list(os.scandir(self.folder)):
            with contextlib.suppress(FileNotFoundError):
                age_s = time.time() - entry.stat().st_mtime
                if _PART.fullmatch(entry.name) and age_s > _LONGEST_WRITE_S:
                    Path(entry.path).unlink()

    def _is_ours(self, name: str) -> bool:
        if name == LOCK:
            return True
        if _CANCEL.fullmatch(name):
            return self._is_ours(name.removesuffix(".cancel"))
        if not _NAME.fullmatch(name):
            return False
        try:
            if name.endswith(".log"):
                self.log(name).close()
            else:
                self.head(name)
        except NoSuchObject:
            return False
        return True

    def _path(self, name: str) -> Path:
        """NoSuchObject for what can be no name of ours: clients' words never become paths."""
        if not (_NAME.fullmatch(name) or _CANCEL.fullmatch(name)):
            raise _missing(name)
        return self.folder / name

    def _open(self, name: str, mode: str = "rb") -> BinaryIO:
        path = self._path(name)
        try:
            file: BinaryIO = path.open(mode)  # type: ignore[assignment]
        except OSError:
            raise _missing(name) from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise _missing(name)
        return file

    def _begin(self, file: BinaryIO, name: str, kind: bytes) -> "Cipher":
        salt = secrets.token_bytes(_SALT_BYTES)
        file.write(kind + salt)
        return self._make_cipher(salt, name, kind)

    def _cipher(self, file: BinaryIO, name: str, kind: bytes) -> "Cipher":
        start = file.read(len(kind) + _SALT_BYTES)
        if len(start) != len(kind) + _SALT_BYTES or not start.startswith(kind):
            raise _missing(name)
        return self._make_cipher(start[len(kind) :], name, kind)

    def _make_cipher(self, salt: bytes, name: str, kind: bytes) -> "Cipher":
        return self._cipher_of(self._key, salt, kind + name.encode())


class Log:
    """A file that one process appends to, frame by frame; each is there whole or not at all."""

    def __init__(self, spool: Spool, name: str) -> None:
        self._name = name
        self._number = 0  # of frames
        path = spool._path(name)
        with disk_errors(path):
            if not path.exists():
                with _create(path) as file:
                    spool._begin(file, name, _LOG)
            self._file = spool._open(name, "r+b")
        try:
            self._cipher = spool._cipher(self._file, name, _LOG)
            self._start = end = self._file.tell()
            for _ in self.frames():
                self._number += 1
                end = self._file.tell()
        except NoSuchObject:
            self._file.close()
            raise
        self._file.truncate(end)

    def frames(self) -> Iterator[bytes]:
        """All of it so far. NoSuchObject if the first frame is there and cannot be read."""
        self._file.seek(self._start)
        number = 0
        while (box := _next_box(self._file)) is not None:
            try:
                yield _opened(self._cipher, box, number, False, self._name)
            except NoSuchObject:
                if number == 0:
                    raise
                return
            number += 1

    def append(self, frame: bytes) -> None:
        """DiskFull; then the log is as it was."""
        box = _closed(self._cipher, frame, self._number, is_last=False)
        with disk_errors(Path(self._file.name)):
            end = self._file.seek(0, os.SEEK_END)
            try:
                self._file.write(box)
                self._file.flush()
            except OSError:
                self._file.truncate(end)
                raise
        self._number += 1

    def close(self) -> None:
        self._file.close()


LOCK = "spool.lock"  # whoever holds it runs the batches and keeps house


def new_id(kind: str) -> str:
    """`file-…` or `batch_…`; nobody can guess another one's."""
    return kind + ("-" if kind == "file" else "_") + secrets.token_hex(16)


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _missing(name: str) -> NoSuchObject:
    return NoSuchObject("batch" if name.startswith("batch") else "file", name)


def _bound(number: int, is_last: bool) -> bytes:
    return number.to_bytes(8) + bytes([is_last])


def _closed(cipher: "Cipher", frame: bytes, number: int, is_last: bool) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    box = nonce + cipher.seal(nonce, frame, _bound(number, is_last))
    return len(box).to_bytes(_LENGTH_BYTES) + box


def _next_box(file: BinaryIO) -> bytes | None:
    """None at the end, and where no whole one follows."""
    length = int.from_bytes(start := file.read(_LENGTH_BYTES))
    if len(start) < _LENGTH_BYTES or not _NONCE_BYTES + _TAG_BYTES <= length <= _LONGEST_FRAME:
        return None
    box = file.read(length)
    return box if len(box) == length else None


def _opened(cipher: "Cipher", box: bytes | None, number: int, is_last: bool, name: str) -> bytes:
    if box is None:
        raise _missing(name)
    nonce, text = box[:_NONCE_BYTES], box[_NONCE_BYTES:]
    opened = cipher.open(nonce, text, _bound(number, is_last))
    if opened is None:
        raise _missing(name)
    return opened
