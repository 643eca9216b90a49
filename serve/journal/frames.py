"""How records lie in a segment, byte by byte. Pure.

A segment is a head, then frames, then zeros. A frame is a mark, the payload's length, a checksum
over both, and the payload. A frame of no length closes the segment: nothing comes after it.
"""

import struct
import zlib
from dataclasses import dataclass

import msgspec

from serve.journal.records import Record

# Names the form of all that follows; another form gets another number.
SEGMENT_HEAD = b"inhouse journal 1\n".ljust(32, b"\0")
LARGEST_BYTES = 64 * 2**10  # of one record; ours have a few hundred
_MARK = b"\xf5ihr"  # its first byte is in no UTF-8 text
_FRAME_HEAD = struct.Struct("<4sII")
HEAD_BYTES = _FRAME_HEAD.size

encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Record)
_pack, _crc = _FRAME_HEAD.pack, zlib.crc32
_SEED = 0x5EED0000  # with it, a mark before zeros is not the frame of no length


def framed(payload: bytes) -> bytes:
    """Mark, length, checksum, payload. ValueError if that is longer than a record may be."""
    length = len(payload)
    if length > LARGEST_BYTES:
        raise ValueError(f"{length} bytes")
    return _pack(_MARK, length, _crc(payload, _SEED + length)) + payload


CLOSING = framed(b"")


@dataclass(frozen=True, slots=True)
class Piece:
    """Records one after another, and where what follows them begins.

    `is_closed`: no record follows. `lost_bytes`: how much was skipped because it was no record.
    """

    records: tuple[Record, ...]
    end: int
    is_closed: bool = False
    lost_bytes: int = 0


def frame(record: Record) -> bytes:
    """The record, framed. Raises OverflowError, UnicodeEncodeError or ValueError for one that
    cannot be written: see `tamed`."""
    return framed(encode(record))


def tamed(record: Record) -> Record:
    """The same record with its longest texts cut and its largest numbers made smaller.

    So that whatever a client or an engine has put into it, it is on the books.
    """
    tame = {name: _tame(getattr(record, name)) for name in record.__struct_fields__}
    return msgspec.structs.replace(record, **tame)


def parse(window: bytes, at: int, most: int, is_final: bool, is_last: bool) -> Piece:
    """The records in `window`, a part of a segment that begins at its byte `at`; `most` at most.

    `is_last`: the segment ends where the window does. `is_final`: whoever wrote it writes no more,
    so that what is no record now never becomes one, and is skipped; else it may be half written,
    and is where the next window begins.
    """
    records: list[Record] = []
    # Behind this, what looks like no record may be one that goes on in the next window.
    known = len(window) - (0 if is_last else HEAD_BYTES + LARGEST_BYTES)
    place, lost = 0, 0
    while len(records) < most:
        length = _length_at(window, place)
        if length is None:
            if not is_final or place >= known:
                break
            following = _next_frame(window, place) or known
            lost += len(window[place:following].strip(b"\0"))
            place = following
            continue
        if length == 0:
            return Piece(tuple(records), at + place, True, lost)
        begin, place = place + HEAD_BYTES, place + HEAD_BYTES + length
        record = _decoded(window[begin:place])
        if record is None:
            lost += length
        else:
            records.append(record)
    is_over = is_final and is_last and place >= len(window)
    return Piece(tuple(records), at + place, is_over, lost)


def _length_at(window: bytes, place: int) -> int | None:
    """Of the whole frame that begins there; None if none does."""
    if place + HEAD_BYTES > len(window):
        return None
    mark, length, checksum = _FRAME_HEAD.unpack_from(window, place)
    if mark != _MARK or place + HEAD_BYTES + length > len(window):
        return None
    payload = window[place + HEAD_BYTES : place + HEAD_BYTES + length]
    return length if _crc(payload, _SEED + length) == checksum else None


def _next_frame(window: bytes, place: int) -> int | None:
    """Where the next whole one begins, behind what is none."""
    while (place := window.find(_MARK, place + 1)) != -1:
        if _length_at(window, place) is not None:
            return place
    return None


def _decoded(payload: bytes) -> Record | None:
    try:
        record: Record = _decoder.decode(payload)
    except msgspec.DecodeError:  # whole, but not of a kind that we know
        return None
    return record


_LARGEST_TEXT = 300
_LARGEST_NUMBER = 2**63 - 1


def _tame(value: object) -> object:
    if isinstance(value, str):
        return value[:_LARGEST_TEXT].encode(errors="replace").decode()
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_LARGEST_NUMBER, min(value, _LARGEST_NUMBER))
    return value
