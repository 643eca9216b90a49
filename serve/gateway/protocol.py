"""uvicorn's HTTP protocol, stricter: what two servers could read in two ways is refused, and who
dawdles is sent away.

A proxy in front of us that reads a request's end elsewhere than we do hands the rest of it to
somebody else as the beginning of theirs. So nothing ambiguous is repaired here: it is answered with
400, and the connection is closed.
"""

import asyncio
import logging
import math
import re
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_HEAD_BYTES = 64 * 1024
_MOST_HEADERS = 100
_LEAST_RATE = 1024  # bytes of a body per second, on the whole
_SWEEP_S = 1.0
# Of these, a second one could be the one that a proxy goes by.
_ONCE = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization"))
# A name, an address or nothing, with a port; no part of a URL that somebody might put together.
_HOST = re.compile(rb"[A-Za-z0-9._~%\[\]:-]*")


_logger = logging.getLogger("uvicorn.error.protocol")
_logger.setLevel(logging.ERROR)


class Ambiguous(Exception):
    """Raised in a callback of the parser, which makes a bad request of it."""


class StrictProtocol(HttpToolsProtocol):
    """`head_timeout_s`, `body_timeout_s`: set on a subclass; see the settings `server.*`.

    Times are checked by `sweep`, so that a request costs no timer of its own.
    """

    # uvicorn's attributes too: a dict of so many takes 2 KB of each connection.
    __slots__ = (
        "_due_s", "_head_bytes", "_is_in_body", "_is_in_head", "access_log", "access_logger",
        "app", "app_state", "asgi_version", "client", "config", "connections", "cycle",
        "expect_100_continue", "flow", "headers", "limit_concurrency", "logger", "loop", "parser",
        "pipeline", "root_path", "scheme", "scope", "server", "server_state", "tasks",
        "timeout_keep_alive", "timeout_keep_alive_task", "transport", "url", "ws_protocol_class",
    )  # fmt: skip
    head_timeout_s = 10.0
    body_timeout_s = 60.0

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._due_s = math.inf  # when the head must be here, or more of the body
        self._head_bytes = 0
        self._is_in_head = self._is_in_body = False
        # Nobody fills a disk by knocking: of bad requests there is no line each, of bugs there is.
        self.logger = _logger

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._due_s = self.loop.time() + self.head_timeout_s

    def connection_lost(self, exc: Exception | None) -> None:
        self._due_s = math.inf
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_body:
            now_s = self.loop.time()
            # A body may pause, but whoever sends a byte a minute does not get on.
            self._due_s = min(self._due_s + len(data) / _LEAST_RATE, now_s + self.body_timeout_s)
        super().data_received(data)
        if self._is_in_head:
            self._count_head(len(data))  # a header that does not end has not been counted yet

    def is_late(self, now_s: float) -> bool:
        """Whether the client owes us bytes of a request, and has for too long."""
        return now_s > self._due_s

    # the parser's callbacks; an exception becomes a parser error in the caller

    def on_message_begin(self) -> None:
        # What uvicorn does, but for the scope: who needs it makes it.
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._head_bytes, self._is_in_head = 0, True
        self._due_s = self.loop.time() + self.head_timeout_s

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # a trailer, which comes too late to say who is there or what this is
        # What uvicorn does, without the call: nothing is done more often.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MOST_HEAD_BYTES or len(self.headers) > _MOST_HEADERS:
            raise Ambiguous

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        version = self.parser.get_http_version()
        head = self._checked(version)
        self._is_in_body = True
        self._due_s = self.loop.time() + self.body_timeout_s
        self.on_head(head, version)

    def on_head(self, head: dict[bytes, bytes], version: str) -> None:
        """A request begins. `head`: the last value of each header; "1.1" or "1.0"."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        HttpToolsProtocol.on_headers_complete(self)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._due_s = math.inf
        self.on_request_complete()

    def on_request_complete(self) -> None:
        """Its body is complete."""
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse, unless an answer is on its way already: then only break off."""
        cycle = self.cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            self.transport.abort()
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def _count_head(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > 2 * _MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Request head too large.")

    def _checked(self, version: str) -> dict[bytes, bytes]:
        """The headers, if they can be read in one way only."""
        headers = self.headers
        head = dict(headers)
        if len(head) != len(headers):
            _refuse_doubles(headers)
        host = head.get(b"host")
        if host is None:
            if version != "1.0":
                raise Ambiguous
        elif _HOST.fullmatch(host.strip(b" \t")) is None:
            raise Ambiguous
        length = head.get(b"content-length")
        if length is not None and not length.strip(b" \t").isdigit():
            raise Ambiguous
        coding = head.get(b"transfer-encoding")
        if coding is not None and (
            coding.strip(b" \t").lower() != b"chunked" or length is not None or version != "1.1"
        ):
            raise Ambiguous
        if version not in ("1.1", "1.0"):
            raise Ambiguous
        parser = self.parser
        if parser.should_upgrade() and parser.get_method() not in (b"GET", b"HEAD"):
            raise Ambiguous  # the parser would take the body for another protocol's
        return head


def _refuse_doubles(headers: list[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers if name in _ONCE]
    if len(names) != len(set(names)):
        raise Ambiguous


async def sweep(connections: Iterable[Any]) -> None:
    """Until cancelled, close the `connections` (those of the server's state) that are late."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_S)
        now_s = loop.time()
        for connection in [each for each in connections if each.is_late(now_s)]:
            connection.transport.abort()
