"""Pooled HTTP/1.1 connections to engines, over their unix sockets.

Our own protocol and not an HTTP client library, because it decides what a gateway costs: in
front of the same upstream it carried three times the requests per CPU-second of one with
aiohttp. Parsing is httptools' (llhttp).
"""

import asyncio
from collections import defaultdict

import httptools

_HIGH_BYTES = 256 * 1024  # of an answer that its reader has not taken: stop reading the engine
_MAX_IDLE = 256  # connections kept per engine
_FULL_RETRIES_S = (0.01, 0.05, 0.2, 1.0)  # the engine's backlog is full: it lives, come again

# Hop by hop, or set by our own server.
_DROPPED = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade")
    + (b"proxy-authenticate", b"proxy-authorization", b"server", b"date", b"x-request-id")
)


class Connection(asyncio.Protocol):
    """One connection and the answer that is coming in on it.

    Whoever sent a request reads the state, and awaits `changed()` where it does not suffice.
    """

    __slots__ = (
        "_chunks", "_is_kept", "_is_paused", "_loop", "_parser", "_pool", "_size", "_transport",
        "_waiter", "content_type", "has_bytes", "headers", "is_busy", "is_complete", "is_headed",
        "is_lost", "is_reused", "socket", "status",
    )  # fmt: skip

    def __init__(self, pool: "Pool", socket: str) -> None:
        self._pool = pool
        self.socket = socket
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._waiter: asyncio.Future[None] | None = None
        self.is_lost = self.is_busy = self.is_reused = False
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_type = b""
        self.has_bytes = self.is_headed = self.is_complete = False
        self._is_kept = self._is_paused = False
        self._chunks: list[bytes] = []
        self._size = 0

    # what the relay does

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request; what is known of the answer before is forgotten."""
        self._reset()
        self.is_busy = True
        self._transport.writelines((head, body) if body else (head,))

    async def changed(self) -> None:
        """Until there is news: a head, bytes, the end, or the loss of the connection."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """The bytes of the body that have come in since the last call."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        if self._is_paused and not self.is_lost:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def abort(self) -> None:
        """Close at once; an engine drops its work for a request whose connection is closed."""
        self._transport.abort()

    def release(self) -> None:
        """Give the connection back after a complete answer."""
        self.is_busy = False
        if self.is_lost or not self._is_kept or not self._pool.keep(self):
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.has_bytes = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.abort()
        if not self.is_busy:
            self._transport.abort()  # nobody asked for anything
        if self._size > _HIGH_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._pool.forget(self)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self.content_type = value
        if name not in _DROPPED:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.is_headed = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        self.is_complete = True
        self._is_kept = self._parser.should_keep_alive()  # llhttp knows it only here


class Pool:
    """The connections to all engines that are idle, by socket path."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[Connection]] = defaultdict(list)

    async def get(self, socket: str, is_fresh: bool = False) -> Connection | None:
        """An idle connection (never with `is_fresh`), or a new one; None if nobody listens."""
        idle = self._idle[socket]
        if idle and not is_fresh:
            connection = idle.pop()
            connection.is_reused = True
            return connection
        loop = asyncio.get_running_loop()
        for retry_s in (*_FULL_RETRIES_S, None):
            try:
                _, made = await loop.create_unix_connection(
                    lambda: Connection(self, socket), socket
                )
                return made
            except BlockingIOError:
                if retry_s is None:
                    return None
                await asyncio.sleep(retry_s)
            except OSError:
                return None
        return None

    def keep(self, connection: Connection) -> bool:
        """Take a connection back; False if there are enough."""
        idle = self._idle[connection.socket]
        if len(idle) >= _MAX_IDLE:
            return False
        idle.append(connection)
        return True

    def forget(self, connection: Connection) -> None:
        idle = self._idle[connection.socket]
        if connection in idle:
            idle.remove(connection)
        if not idle:
            del self._idle[connection.socket]

    async def fetch(self, socket: str, path: str, timeout_s: float) -> bytes | None:
        """The body of a GET that was answered with 200 in time; None otherwise."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self.get(socket, is_fresh=True)
                if connection is None:
                    return None
                connection.send(f"GET {path} HTTP/1.1\r\nhost: engine\r\n\r\n".encode(), b"")
                body = b""
                while not connection.is_complete and not connection.is_lost:
                    await connection.changed()
                    body += connection.take()
        except TimeoutError:
            return None
        finally:
            if connection is not None:
                connection.abort()
        return body if connection.is_complete and connection.status == 200 else None
