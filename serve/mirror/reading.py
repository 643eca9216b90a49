"""Requests off the wire, with bounds on how long and how large they may be."""

import socket
import time
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus

import httptools

from serve.mirror.reply import Request

_MOST_HEAD_BYTES = 32 * 1024
_MOST_BODY_BYTES = 256 * 1024
_CHUNK_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Patience:
    """How long clients are waited for, in seconds.

    `head_s`: from a request's first byte to its last. `idle_s`: for the next request; longer than
    clients keep idle connections, so that theirs are not cut. `stall_s`: until one that has
    stopped reading takes as much as a third of the socket's buffer.
    """

    head_s: float = 10.0
    idle_s: float = 30.0
    stall_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Received:
    """A request, and whether its sender will send another over the same connection."""

    request: Request
    is_last: bool


class Refused(Exception):
    """What was sent is not a request that we read; the connection is of no more use."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Reader:
    """The requests of one connection, one after another. Blocking, in the connection's thread."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock, self._patience = sock, patience
        self._ready: deque[Received] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._is_inside = self._is_in_head = False
        self._head_bytes = 0
        self._begin()

    def next(self) -> Received | None:
        """The next request; None when the other side has left or says nothing for too long.

        Raises Refused, and OSError when the connection breaks.
        """
        idle_until = time.monotonic() + self._patience.idle_s
        whole_by = time.monotonic() + self._patience.head_s
        while not self._ready:
            if not self._is_inside:
                whole_by = time.monotonic() + self._patience.head_s
            piece = self._receive(whole_by if self._is_inside else idle_until)
            if not piece:
                return None
            self._feed(piece)
        return self._ready.popleft()

    def _receive(self, until: float) -> bytes:
        """What came; nothing when the time is up."""
        self._sock.settimeout(max(until - time.monotonic(), 0.001))
        try:
            return self._sock.recv(_CHUNK_BYTES)
        except TimeoutError:
            if self._is_inside:
                raise Refused(HTTPStatus.REQUEST_TIMEOUT) from None
            return b""

    def _feed(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._ready:
                raise Refused(HTTPStatus.BAD_REQUEST) from None
        if len(self._body) > _MOST_BODY_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if self._is_in_head:
            self._head_bytes += len(piece)
            if self._head_bytes > _MOST_HEAD_BYTES:
                raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _begin(self) -> None:
        self._url, self._body = b"", b""
        self._headers: dict[str, str] = {}

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._begin()
        self._is_inside = self._is_in_head = True
        self._head_bytes = 0

    def on_url(self, part: bytes) -> None:
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        self._is_in_head = False

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        url = httptools.parse_url(self._url)
        query = (url.query or b"").decode("latin-1")
        method = self._parser.get_method().decode("latin-1")
        request = Request(method, url.path or b"/", query, self._headers, self._body)
        self._ready.append(Received(request, not self._parser.should_keep_alive()))
        self._is_inside = False
