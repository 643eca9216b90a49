"""Changes in a JSON object that leave every other byte as it is. Pure."""

import re
from collections.abc import Mapping

import msgspec

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_name_of = msgspec.json.Decoder(str).decode
# A character of ASCII in a key may be written as \u0065. Searched for in two steps, since the first
# costs next to nothing.
_ESCAPED = b"\\u00"
_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")


def rewritten(body: bytes, changes: Mapping[str, bytes], present: Mapping[str, bytes]) -> bytes:
    """A JSON object with other values for some keys of its top level.

    `body` is valid JSON. `changes`: key (plain ASCII) → JSON of the new value. `present`: key →
    JSON of the value that counts now, for those of the keys that a decoder has found in the
    object. No other byte changes where each key is there once. Where one is written twice, the top
    level is written anew around its values' own bytes: who reads the first of equal keys, or the
    last, finds ours.
    """
    added = b""
    for key, value in changes.items():
        if key not in present:
            added += b'"%b":%b,' % (key.encode(), value)
            continue
        place = _place(body, key, present[key])
        if place is None:
            raw = {key: msgspec.Raw(value) for key, value in changes.items()}
            return msgspec.json.encode(_members(body) | raw)
        body = b"".join((body[: place[0]], value, memoryview(body)[place[1] :]))
    if not added:
        return body
    start = body.index(b"{") + 1
    if body[start : start + 1] != b'"' and body[start:].lstrip()[:1] == b"}":
        added = added[:-1]
    return b"".join((body[:start], added, memoryview(body)[start:]))


def _place(body: bytes, key: str, value: bytes) -> tuple[int, int] | None:
    """Where the value of a key of the top level begins and ends; None if there are several."""
    name = b'"%b"' % key.encode()
    first = body.find(name)
    is_plain = _ESCAPED not in body or not _ESCAPED_ASCII.search(body)
    if first >= 0 and is_plain and body.find(name, first + 1) < 0:
        ends = [first + len(name)]
    else:
        ends = _keys(body, key)
    if len(ends) != 1:
        return None
    colon = _COLON.match(body, ends[0])
    if colon is None or not body.startswith(value, colon.end()):
        return None
    return colon.end(), colon.end() + len(value)


def _keys(body: bytes, key: str) -> list[int]:
    """Where the keys of the top level end that mean `key`, however they are written."""
    ends, depth = [], 0
    for token in _TOKENS.finditer(body):
        kind = token[0][:1]
        if kind == b'"':
            # A value can be the same word, but only a key is followed by a colon.
            if depth == 1 and _COLON.match(body, token.end()) and _name_of(token[0]) == key:
                ends.append(token.end())
        else:
            depth += 1 if kind in b"{[" else -1
    return ends
