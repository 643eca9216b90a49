"""Answers written straight into a client's connection, past ASGI's messages.

uvicorn's `send` builds a message, a coroutine and a write for each piece, and wants somebody who
awaits it. What an engine says needs none of that: its bytes come in one callback and leave in it.
Measured: docs/gateway-performance.md.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serve.gateway.protocol import StrictProtocol

EXTENSION = "inhouse.direct"
_FORGOTTEN: Any = {"method": "POST", "http_version": "1.1"}
_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class Listener(Protocol):
    """Who wants to know of a client that it has left, reads too slowly, reads on."""

    def left(self) -> None: ...

    def hold(self) -> None: ...

    def go_on(self) -> None: ...


class Direct:
    """An ASGI `send` for one request, which can be written to as well."""

    __slots__ = ("_cycle", "_head", "_is_chunked", "_protocol", "_transport", "is_started")

    def __init__(self, protocol: "DirectProtocol", cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._transport = protocol.transport
        self._head = b""
        self._is_chunked = False
        self.is_started = False

    async def __call__(self, message: Any) -> None:
        await self._cycle.send(message)
        if self._transport.is_closing():
            await asyncio.sleep(0)  # so that who waits for the client's leaving hears of it

    def whole_body(self, most_bytes: int) -> bytes | None:
        """The request's body, if all of it is here and not too much; otherwise ask `receive`."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or len(cycle.body) > most_bytes:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        self._protocol.flow.resume_reading()
        return body

    def listen(self, listener: Listener | None) -> bool:
        """Tell `listener` from now on (None: nobody); False if the client has left already."""
        self._protocol.listener = listener
        return not self._transport.is_closing()

    def start(self, status: int, headers: list[tuple[bytes, bytes]], length: bytes | None) -> None:
        """The head of the answer; it leaves with the first bytes, or with `flush`."""
        cycle = self._cycle
        cycle.response_started = self.is_started = True
        cycle.waiting_for_100_continue = False
        lines = [_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in self._protocol.server_state.default_headers:
            lines.append(b"%b: %b\r\n" % (name, value))
        for name, value in headers:
            lines.append(b"%b: %b\r\n" % (name, value))
        if length is not None:
            lines.append(b"content-length: %b\r\n" % length)
        elif cycle.scope["http_version"] == "1.1":
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        else:  # the end of the connection is that of the answer
            cycle.keep_alive = False
        lines.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        self._head = b"".join(lines)
        self._protocol.forget_request(cycle)

    def flush(self) -> None:
        """Send the head now."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def write(self, data: bytes) -> None:
        """Some bytes, not none. Never waits: a listener is told when it is too much."""
        if self._is_chunked:
            data = b"%b%x\r\n%b\r\n" % (self._head, len(data), data)
            self._head = b""
        elif self._head:
            data = self._head + data
            self._head = b""
        self._transport.write(data)

    def end(self, data: bytes) -> None:
        """The last bytes, if any."""
        if self._is_chunked:
            if data:
                data = b"%b%x\r\n%b\r\n0\r\n\r\n" % (self._head, len(data), data)
            else:
                data = self._head + b"0\r\n\r\n"
        else:
            data = self._head + data
        cycle, self._protocol.listener = self._cycle, None
        if data:
            self._transport.write(data)
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._transport.close()
        cycle.on_response()

    def break_off(self) -> None:
        """End the connection, so that nobody takes what it has for the whole answer."""
        self._protocol.listener = None
        self._cycle.disconnected = True
        self._transport.close()

    async def close(self) -> None:
        """Nothing is left to be done."""
        self._protocol.listener = None


class DirectProtocol(StrictProtocol):
    """uvicorn's protocol, which offers each request a `Direct` as the extension `EXTENSION`."""

    listener: Listener | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # What the kernel does not take at once is too much already: it has taken megabytes.
        # (Not 0: under TLS even an empty buffer would be too full then.)
        transport.set_write_buffer_limits(high=1, low=0)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.listener is not None:
            self.listener.left()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.listener is not None:
            self.listener.hold()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.listener is not None:
            self.listener.go_on()

    def forget_request(self, cycle: RequestResponseCycle) -> None:
        """Its answer has begun: nobody looks at its head any more, and answers may take long."""
        cycle.scope = _FORGOTTEN
        if self.cycle is cycle:
            self.scope, self.headers = _FORGOTTEN, []

    def on_response_complete(self) -> None:
        """As uvicorn does, but for the timer: who is idle for too long is found by `sweep`."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif not self._is_in_head and not self._is_in_body:
            self._due_s = self.loop.time() + self.timeout_keep_alive

    def on_head(self, head: dict[bytes, bytes], version: str) -> None:
        super().on_head(head, version)
        scope: Any = self.scope  # an extension's value may be anything, whatever uvicorn says
        scope["extensions"] = {EXTENSION: Direct(self, self.cycle)}
