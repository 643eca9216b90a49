"""One part of a bundle: an uncompressed tar of which every byte is known beforehand.

    manifest.json · signature.json? · model.sig? · part.json · pieces/000000000 · pieces/… · end

The reader accepts nothing but what the writer would write: it makes the header that must stand
there and compares. So there is no room for links, devices, extensions or other names.
"""

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serve.bundle.form import (
    MAX_MANIFEST_BYTES,
    BadManifest,
    Form,
    Piece,
    canonical,
    id_of,
    parse,
)
from serve.bundle.spread import BLOCK_BYTES, END_BYTES, member_bytes
from serve.errors import BadFile

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
OPENSSF = "model.sig"
PART = "part.json"
_MAX_BYTES = {
    MANIFEST: MAX_MANIFEST_BYTES, SIGNATURE: BLOCK_BYTES, OPENSSF: 2**20,
    PART: BLOCK_BYTES,
}  # fmt: skip


class Torn(ValueError):
    """A part does not hold what it must; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before the pieces. `signatures`: the members that sign the manifest, by name.
    `start`: where the pieces begin."""

    path: Path
    id: str
    manifest: bytes
    form: Form
    signatures: Mapping[str, bytes]
    number: int
    start: int

    @property
    def of(self) -> int:
        return len(self.form.parts)


def header(name: str, size: int) -> bytes:
    """The one header that a member of this name and size has."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def piece_name(number: int) -> str:
    """What the member with this piece is called."""
    return f"pieces/{number:09d}"


def part_record(bundle_id: str, number: int, of: int) -> bytes:
    """The member that says which part this is."""
    return canonical({"bundle": bundle_id, "number": number, "of": of})


def padding(size: int) -> bytes:
    """What fills the last block of a member."""
    return bytes(-size % BLOCK_BYTES)


def member(name: str, content: bytes) -> bytes:
    """A whole member."""
    return header(name, len(content)) + content + padding(len(content))


@contextmanager
def opened(path: Path, known: Mapping[str, Form]) -> Iterator["Part"]:
    """The part at `path`, its head read and checked. `known`: manifests parsed already, by id.

    BadFile if it is none, or if it cannot be read.
    """
    with ExitStack() as closing:
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise Torn("is no file")
            file = closing.enter_context(path.open("rb"))
            part = Part(file, _read_head(file, path, known))
        except (Torn, BadManifest) as error:
            raise BadFile(str(path), str(error)) from error
        except OSError as error:
            raise BadFile(str(path), f"cannot be read: {error.strerror or error}") from error
        yield part


class Part:
    """A part that is open. The pieces can be read in any order."""

    def __init__(self, file: BinaryIO, head: Head) -> None:
        self._file, self.head = file, head
        first = sum(head.form.parts[: head.number - 1])
        end = first + head.form.parts[head.number - 1]
        self.pieces = tuple(p for p in head.form.pieces() if first <= p.number < end)
        self._offsets, at = {}, head.start
        for piece in self.pieces:
            self._offsets[piece.number] = at
            at += member_bytes(piece.size)
        self._end = at

    def read(self, piece: Piece) -> bytes:
        """The piece's bytes, verified; Torn."""
        try:
            return self._read(piece)
        except OSError as error:  # a bad sector, a stick that was pulled out
            problem = f"cannot be read at piece {piece.number}: {error.strerror or error}"
            raise Torn(problem) from error

    def _read(self, piece: Piece) -> bytes:
        self._file.seek(self._offsets[piece.number])
        found = self._file.read(BLOCK_BYTES)
        if len(found) < BLOCK_BYTES:
            raise Torn(f"is cut before piece {piece.number}")
        if found != header(piece_name(piece.number), piece.size):
            raise Torn(f"has something else where piece {piece.number} belongs: {_named(found)}")
        return self._body(piece)

    def _body(self, piece: Piece) -> bytes:
        content = self._file.read(piece.size)
        filling = self._file.read(len(padding(piece.size)))
        if len(content) + len(filling) < member_bytes(piece.size) - BLOCK_BYTES:
            raise Torn(f"is cut in piece {piece.number}")
        if hashlib.sha256(content).hexdigest() != piece.sha256 or any(filling):
            raise Torn(f"piece {piece.number} is damaged")
        return content

    def check_length(self) -> None:
        """Torn if something follows the part's end: then it is nothing that export wrote."""
        if (size := self._size()) > self.total_bytes:
            raise Torn(f"goes on behind its end: {size - self.total_bytes} bytes too many")

    def check_end(self) -> None:
        """Torn unless the part is all there."""
        if (size := self._size()) < self.total_bytes:
            raise Torn(f"is cut: {size} bytes of {self.total_bytes}")
        self._file.seek(self._end)
        if any(self._file.read(END_BYTES)):
            raise Torn("has something in its last blocks")

    @property
    def total_bytes(self) -> int:
        """How long the whole part is."""
        return self._end + END_BYTES

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size


def _read_head(file: BinaryIO, path: Path, known: Mapping[str, Form]) -> Head:
    members: dict[str, bytes] = {}
    while PART not in members:
        name, content = _read_small(file, wanted=None if members else MANIFEST)
        order = list(_MAX_BYTES)
        if members and order.index(name) <= order.index(next(reversed(members))):
            raise Torn(f"{name} stands at the wrong place, or twice")
        members[name] = content
    manifest, part = members.pop(MANIFEST), members.pop(PART)
    bundle_id = id_of(manifest)
    form = known.get(bundle_id) or parse(manifest)
    number = _number(part, bundle_id, len(form.parts))
    return Head(path, bundle_id, manifest, form, members, number, file.tell())


def _number(part: bytes, bundle_id: str, of: int) -> int:
    try:
        number = json.loads(part)["number"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise Torn(f"{PART} cannot be read") from error
    if type(number) is not int or not 1 <= number <= of:
        raise Torn(f"{PART} names a part that there is not: {str(number)[:40]}")
    if part != part_record(bundle_id, number, of):
        raise Torn(f"{PART} is of another bundle")
    return number


def _read_small(file: BinaryIO, wanted: str | None) -> tuple[str, bytes]:
    """One of the members before the pieces."""
    found = file.read(BLOCK_BYTES)
    try:
        told = tarfile.TarInfo.frombuf(found, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        short = len(found) < BLOCK_BYTES and wanted is None
        raise Torn("is cut in its first members" if short else "is no bundle") from error
    name, size = told.name, told.size
    if name != (wanted or name) or name not in _MAX_BYTES or found != header(name, max(size, 0)):
        raise Torn(f"is no bundle: {_named(found)} is not what must stand there")
    if size > _MAX_BYTES[name]:
        raise Torn(f"{name} is too large: {size} bytes")
    content = file.read(size)
    filling = file.read(len(padding(size)))
    if len(content) < size or len(filling) < len(padding(size)):
        raise Torn(f"is cut in {name}")
    if any(filling):
        raise Torn(f"{name} is followed by something")
    return name, content


def _named(found: bytes) -> str:
    """A header's name for people, whatever it is."""
    return repr(found[:100].split(b"\0")[0].decode("ascii", "backslashreplace"))
