"""`multipart/form-data`, as clients send files (RFC 7578). Pure."""

import re
from dataclasses import dataclass

from serve.errors import BadRequest

_BOUNDARY = re.compile(rb'boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_PARAMETER = re.compile(rb';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)
_MOST_PARTS = 32


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form. `filename` None: a plain value."""

    name: str
    filename: str | None
    content: bytes


def read_form(content_type: bytes, body: bytes) -> list[Part]:
    """The fields of a form, in order; BadRequest if the body is none."""
    found = _BOUNDARY.search(content_type)
    if found is None or not content_type.strip().lower().startswith(b"multipart/form-data"):
        raise BadRequest("The body must be multipart/form-data with a boundary.")
    delimiter = b"\r\n--" + (found[1] or found[2])
    if body.startswith(delimiter[2:]):
        body = b"\r\n" + body  # nothing stands before the first part
    pieces = body.split(delimiter, _MOST_PARTS + 1)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise BadRequest("The form has no end, or too many parts.")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    padding, line_end, rest = piece.partition(b"\r\n")
    head, end, content = (b"\r\n" + rest).partition(b"\r\n\r\n")
    if padding.strip() or not line_end or not end:
        raise BadRequest("A part of the form has no head.")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            known = {key.lower(): _plain(text) for key, text in _PARAMETER.findall(value)}
            if b"name" in known:
                return Part(known[b"name"], known.get(b"filename"), content)
    raise BadRequest("A part of the form has no name.")


def _plain(text: bytes) -> str:
    return re.sub(rb"\\(.)", rb"\1", text).decode("utf-8", "replace")
