"""Heads of requests that a connection has sent before: told again by their bytes, not parsed again.

A client sends the same head with each request, but for the length of the body. Once the parser has
found one to be good, the same bytes are good again, and mean the same.
"""

import re
from weakref import WeakValueDictionary

from serve.gateway.door import Caller
from serve.gateway.exchange import told_of
from serve.gateway.routes import Route
from serve.roster import Roster

# No more than what everybody reads in the same way; what the parser makes of it is compared too.
_PLAIN = re.compile(
    rb"POST [!-~]+ HTTP/1\.1\r\n(?:[!#-'*+.0-9A-Z^-z|~-]+:[ \t]?[!-~](?:[ -~]*[!-~])?\r\n)+\r\n"
)
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]?([0-9]+)\r\n", re.IGNORECASE)
_MOST_BYTES = 2048
_MOST_DIGITS = 10
# With one of these, a head is more than what it says.
_NEVER = frozenset((b"expect", b"transfer-encoding", b"upgrade"))
_KEPT = b"keep-alive"

Headers = dict[bytes, bytes]


class KnownHead:
    """One of a request for an engine, from one address. `headers`: without the body's length.
    `told`: what the engine gets of it. `caller`: who was let in with it, under `roster`, until
    `until_s` (unix seconds)."""

    __slots__ = (
        "__weakref__", "_opening", "_opening_bytes", "_rest", "_rest_bytes", "caller", "headers",
        "roster", "route", "told", "until_s",
    )  # fmt: skip

    def __init__(self, route: Route, headers: Headers, opening: bytes, rest: bytes) -> None:
        self.route, self.headers = route, headers
        self.told = told_of(headers)
        self.caller: Caller | None = None
        self.roster: Roster | None = None
        self.until_s = 0.0
        self._opening, self._opening_bytes = opening, len(opening)
        self._rest, self._rest_bytes = rest, len(rest)

    def opens(self, data: bytes) -> bool:
        """Whether a request begins like this one."""
        return data.startswith(self._opening)

    def body_in(self, data: bytes) -> bytes | None:
        """The body, if this is exactly one request with this head; None if it may be another."""
        if not data.startswith(self._opening):
            return None
        start = self._opening_bytes
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._rest, end):
            return None
        body_at = end + self._rest_bytes
        return data[body_at:] if len(data) - body_at == int(digits) else None


class KnownHeads:
    """Those of all connections of this process, each as long as one of them knows it."""

    def __init__(self) -> None:
        self._heads: WeakValueDictionary[tuple[bytes, bytes, str], KnownHead] = (
            WeakValueDictionary()
        )

    def learn(self, data: bytes, headers: Headers, route: Route, peer: str) -> KnownHead | None:
        """The head with which `data` begins; None if it is not of the plainest kind. `headers`:
        what the parser has made of it. Only for a head after which connections stay open."""
        end = data.find(b"\r\n\r\n", 0, _MOST_BYTES) + 4
        raw = data[:end]
        length = _LENGTH.search(raw)
        if end < 4 or length is None or len(length[1]) > _MOST_DIGITS:
            return None
        if _PLAIN.fullmatch(raw) is None or not _NEVER.isdisjoint(headers):
            return None
        if headers.get(b"connection", _KEPT).lower() != _KEPT:
            return None
        if _read(raw) != (route.name.encode(), headers):
            return None
        opening, rest = raw[: length.start(1)], raw[length.end(1) :]
        known = self._heads.get((opening, rest, peer))
        if known is None or known.route is not route:
            shared = {name: value for name, value in headers.items() if name != b"content-length"}
            known = KnownHead(route, shared, opening, rest)
            self._heads[opening, rest, peer] = known
        return known


def _read(raw: bytes) -> tuple[bytes, Headers]:
    """A plain head's target and headers."""
    line, *rows = raw[:-4].split(b"\r\n")
    pairs = (row.partition(b":") for row in rows)
    return line.split(b" ")[1], {name.lower(): value.strip(b" \t") for name, _, value in pairs}
