"""Which bytes of a file a request means (RFC 9110: ranges and preconditions). Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `begin` up to, without, `end`; `status` is 200, 206, 304 or 416."""

    status: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin


def span(size: int, etag: str, method: str, headers: Mapping[str, str]) -> Span:
    """What to answer about a file of `size` bytes named `etag` (without quotes).

    One range is granted. Several at once, another unit or nonsense are answered by the whole
    file, as the standard allows; so is a range whose If-Range names another content.
    """
    tags = headers.get("if-none-match")
    if tags is not None and (tags.strip() == "*" or f'"{etag}"' in _TAG.findall(tags)):
        return Span(304, 0, 0)
    whole = Span(200, 0, size)
    wanted = headers.get("range")
    if wanted is None or method != "GET":
        return whole
    if headers.get("if-range", f'"{etag}"').strip() != f'"{etag}"':
        return whole
    match = _ONE_RANGE.fullmatch(wanted.strip())
    return _granted(size, match[1], match[2]) or whole if match else whole


def _granted(size: int, first: str, last: str) -> Span | None:
    if first:
        begin, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < begin:
            return None
    elif last:
        begin, end = max(size - int(last), 0), size
    else:
        return None
    return Span(206, begin, end) if begin < end else Span(416, 0, 0)
