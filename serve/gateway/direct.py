"""Requests for engines, past ASGI: taken from a client's connection, and answered straight into it.

ASGI builds a scope, a task and two events for each request, and a message, a coroutine and a write
for each piece of its answer. What goes to an engine needs none of that: it is begun in the callback
that brings the end of its body, and what the engine says leaves in the callback that it comes in.
Measured: docs/gateway-performance.md.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

from uvicorn.server import ServerState

from serve.errors import BodyTooLarge, InhouseError
from serve.gateway.exchange import Request
from serve.gateway.known import KnownHead
from serve.gateway.routes import Route

EXTENSION = "inhouse.direct"
_COLON = b": "
_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class Listener(Protocol):
    """Who wants to know of a client that it has left, reads too slowly, reads on; and that the time
    to drain is over: it is one of the server's tasks, although it need not be one."""

    def left(self) -> None: ...

    def hold(self) -> None: ...

    def go_on(self) -> None: ...

    def cancel(self, msg: object = None) -> None: ...


class Front(Protocol):
    """Who decides over requests: the gateway."""

    @property
    def most_body_bytes(self) -> int: ...

    def enter(
        self, direct: "Direct", route: Route, headers: dict[bytes, bytes], peer: str
    ) -> Request | None:
        """The head of a request is here; None if it has been refused."""
        ...

    def carry(self, request: Request, route: Route, body: bytes) -> None:
        """All of it is here."""
        ...

    def take(self, direct: "Direct", known: KnownHead, body: bytes, peer: str) -> None:
        """A request with a head that is known: all of it is here."""
        ...

    def refuse_directly(self, request: Request, route: Route, error: InhouseError) -> None:
        """Answer with an error."""
        ...


class Client(Protocol):
    """The connection of a request's client."""

    transport: asyncio.Transport
    server_state: ServerState
    front: Front
    peer: str  # its address

    def set_listener(self, listener: Listener | None) -> None: ...

    def on_response_complete(self) -> None: ...


class _Nobody:
    """Who would wait for the events of a request, if it were ASGI's."""

    def set(self) -> None:
        """Nobody does."""


class Direct:
    """One request and the way to its client. For uvicorn's protocol it is a
    RequestResponseCycle; for a `Request` it is the `send`, although it takes no messages."""

    __slots__ = (
        "_body", "_head", "_headers", "_is_old", "_protocol", "_request", "_route", "_transport",
        "disconnected", "expects", "is_chunked", "is_started", "is_turn", "keep_alive",
        "more_body", "response_complete",
    )  # fmt: skip
    message_event = _Nobody()

    def __init__(
        self,
        protocol: Client,
        route: Route,
        headers: dict[bytes, bytes],
        is_old: bool = False,
        is_kept: bool = True,
    ) -> None:
        self._protocol, self._transport = protocol, protocol.transport
        self._route, self._headers = route, headers
        self._request: Request | None = None
        self._body: bytes | bytearray | None = b""  # None when it has been handed on
        self._head = b""
        self._is_old = is_old  # HTTP/1.0
        self.is_chunked = False
        self.expects = False  # to be told to go on
        self.keep_alive = is_kept
        self.more_body = True
        self.disconnected = self.response_complete = self.is_started = False
        self.is_turn = False  # those before it on the connection are answered

    async def __call__(self, message: Any) -> None:
        raise NotImplementedError("takes no messages")

    @property
    def response_started(self) -> bool:
        """As uvicorn calls it."""
        return self.is_started

    def feed(self, body: bytes) -> None:
        """More of the body."""
        if not self._body:
            self._body = body if self._body is not None else None
        elif isinstance(self._body, bytearray):
            self._body += body
        else:
            self._body = bytearray(self._body) + body

    def advance(self) -> None:
        """Do what can be done with what has come of the request."""
        if self._body is None or self.response_complete or self._transport.is_closing():
            return
        try:
            self._advance(self._protocol.front)
        except Exception:  # a bug of ours: the connection would be left open
            self.break_off()
            raise

    def take(self, known: KnownHead, body: bytes) -> None:
        """Do all at once: the whole request is here, and it is its turn."""
        self.more_body, self._body = False, None
        try:
            self._protocol.front.take(self, known, body, self._protocol.peer)
        except Exception:
            self.break_off()
            raise

    def _advance(self, front: Front) -> None:
        request, route = self._request, self._route
        if request is None:
            peer = self._protocol.peer
            request = self._request = front.enter(self, route, self._headers, peer)
            self._headers = {}
            if request is None:
                return
        body = self._body or b""
        if len(body) > front.most_body_bytes:
            self._request = self._body = None
            front.refuse_directly(request, route, BodyTooLarge(front.most_body_bytes))
        elif not self.more_body:
            self._request = self._body = None
            front.carry(request, route, bytes(body))
        elif self.expects:
            self.expects = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    @property
    def head(self) -> tuple[dict[bytes, bytes], Route]:
        """What the parser has found, as long as nothing was done with it."""
        return self._headers, self._route

    def listen(self, listener: Listener | None) -> bool:
        """Tell `listener` from now on (None: nobody); False if the client has left already."""
        self._protocol.set_listener(listener)
        return not self._transport.is_closing()

    def start(self, status: int, headers: list[tuple[bytes, bytes]], length: bytes | None) -> None:
        """The head of the answer; it leaves with the first bytes, or with `flush`."""
        self.is_started = True
        head = headers + self._protocol.server_state.default_headers
        if length is not None:
            head.append((b"content-length", length))
        elif not self._is_old:
            self.is_chunked = True
            head.append((b"transfer-encoding", b"chunked"))
        else:  # the end of the connection is that of the answer
            self.keep_alive = False
        if not self.keep_alive:
            head.append((b"connection", b"close"))
        line = _LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self._head = b"%b%b\r\n\r\n" % (line, b"\r\n".join(map(_COLON.join, head)))

    def flush(self) -> None:
        """Send the head now."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def write(self, data: bytes) -> None:
        """Some bytes, not none. Never waits: a listener is told when it is too much."""
        if self.is_chunked:
            data = b"%b%x\r\n%b\r\n" % (self._head, len(data), data)
            self._head = b""
        elif self._head:
            data = self._head + data
            self._head = b""
        self._transport.write(data)

    @property
    def pass_on(self) -> Callable[[bytes], None]:
        """Writes bytes that are chunks already: for when `is_chunked`, and after a `write`."""
        return self._transport.write

    def end(self, data: bytes) -> None:
        """The last bytes, if any."""
        if self.is_chunked:
            if data:
                data = b"%b%x\r\n%b\r\n0\r\n\r\n" % (self._head, len(data), data)
            else:
                data = self._head + b"0\r\n\r\n"
        else:
            data = self._head + data
        self._head = b""
        if data:
            self._transport.write(data)
        self.response_complete = True
        if not self.keep_alive:
            self._transport.close()
        self._protocol.on_response_complete()

    def break_off(self) -> None:
        """End the connection, so that nobody takes what it has for the whole answer."""
        self.disconnected = True
        self._transport.close()

    async def close(self) -> None:
        """Nothing is left to be done."""
