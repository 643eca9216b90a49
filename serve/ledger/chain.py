"""The chain of audit records: each one's code covers all of it and the one before. Pure.

Without the key nobody can make a code, so an edit, a removal, an insertion or another order breaks
the chain where it was made. What cannot be seen from within, that the end was cut off, is seen by
the head: a signed count that is kept elsewhere.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from serve.errors import AuditBroken
from serve.ledger.records import Deed, Head, Record, Verdict

BEGINNING = ""  # what stands for the code of the record before the first
TRIM = "audit.trim"  # a record that says which ones were removed from the front
CUT = "audit.cut"  # a record that says that the end was missing when it was written
_LONGEST = {"actor": 200, "address": 64, "action": 64, "object": 300, "result": 64, "request": 128}


def link(key: bytes, previous: Head, deeds: Iterable[Deed]) -> Iterator[Record]:
    """The deeds as the records that follow `previous`."""
    seq, mac = previous.seq, previous.mac
    for deed in deeds:
        seq += 1
        texts = {name: _cleaned(getattr(deed, name), most) for name, most in _LONGEST.items()}
        facts = json.loads(json.dumps(dict(deed.facts), allow_nan=False))
        record = Record(seq, float(deed.at), facts=facts, mac="", **texts)
        mac = code(key, mac, record)
        yield replace(record, mac=mac)


def code(key: bytes, previous: str, record: Record) -> str:
    """The code of a record behind the one whose code is `previous`: HMAC-SHA256, hex."""
    content = [
        previous, record.seq, record.at, record.actor, record.address, record.action,
        record.object, record.result, record.request, record.facts,
    ]  # fmt: skip
    return _code(key, "record", content)


def verify(key: bytes, records: Iterable[Record], head: Head | None = None) -> Verdict:
    """AuditBroken unless every record is as it was written, in its place, and none is missing.

    `records`: all that there are, by number. `head` None: where the end was is not known.
    """
    first: Record | None = None
    last, at_head = Head(0, BEGINNING), BEGINNING
    removed: dict[int, str] = {}  # number → code of the last record that went with a trim
    for record in records:
        if first is None:
            first = record
        else:
            _demand(record.seq > last.seq, record.seq, "it is out of its place")
            _demand(record.seq == last.seq + 1, last.seq + 1, "it is missing")
            _demand(_is_sound(key, last.mac, record), record.seq, "it is not what was written")
        _demand(record.action != CUT, record.seq, "here the end had been cut off before")
        removed |= _removed_by(record)
        if head is not None and record.seq == head.seq:
            at_head = record.mac
        last = Head(record.seq, record.mac)
    if first is not None:
        _check_start(key, first, removed)
    if head is not None and head.seq:
        _demand(last.seq >= head.seq, last.seq + 1, "it is missing: the end was cut off")
        is_gone = first is not None and head.seq < first.seq  # with a trim, which is sound
        _demand(is_gone or at_head == head.mac, head.seq, "it is not what was written last")
    return Verdict(first.seq if first else 0, last.seq, last.mac)


def sign_head(key: bytes, head: Head) -> bytes:
    """The head as a line that `read_head` knows again."""
    signed = {"seq": head.seq, "mac": head.mac, "code": _code(key, "head", [head.seq, head.mac])}
    return json.dumps(signed).encode() + b"\n"


def read_head(key: bytes, line: bytes) -> Head:
    """What `sign_head` wrote; AuditBroken if it is not that."""
    try:
        signed = json.loads(line)
        head = Head(int(signed["seq"]), str(signed["mac"]))
        is_sound = hmac.compare_digest(_code(key, "head", [head.seq, head.mac]), signed["code"])
    except (ValueError, TypeError, KeyError):
        raise AuditBroken(0, "the head file is damaged") from None
    _demand(is_sound, head.seq, "the head file is not what was written")
    return head


def _check_start(key: bytes, first: Record, removed: dict[int, str]) -> None:
    """The first is the first ever, or follows the last one that a trim says it has removed."""
    before = first.seq - 1
    start = removed.get(before) if before else BEGINNING
    if start is None:
        raise AuditBroken(before, "it is missing, and no record says that it was removed")
    _demand(_is_sound(key, start, first), first.seq, "it is not what was written")


def _removed_by(record: Record) -> dict[int, str]:
    match record.action, record.facts:
        case (action, {"to": int(to), "mac": str(mac)}) if action == TRIM:
            return {to: mac}
    return {}


def _is_sound(key: bytes, previous: str, record: Record) -> bool:
    try:
        return hmac.compare_digest(code(key, previous, record), record.mac)
    except (TypeError, ValueError):  # somebody has put in what JSON or HMAC cannot hold
        return False


def _code(key: bytes, purpose: str, content: list[Any]) -> str:
    encoded = json.dumps([purpose, *content], sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, encoded.encode(), hashlib.sha256).hex()


def _demand(is_so: bool, at: int, problem: str) -> None:
    if not is_so:
        raise AuditBroken(at, problem)


def _cleaned(text: str, most: int) -> str:
    """As every database can hold it."""
    return text.encode(errors="replace").decode().replace("\0", "?")[:most]
