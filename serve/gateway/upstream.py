"""One HTTP/1.1 connection to an engine, and the answer that is coming in on it.

Our own protocol and not an HTTP client library, because it decides what a gateway costs: in
front of the same upstream it carried three times the requests per CPU-second of one with
aiohttp. Parsing is httptools' (llhttp).
"""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Protocol

import httptools

# What one read may bring. Of a stream little: what its client does not take waits in our memory,
# and ten thousand slow clients must fit into it.
_WHOLE = memoryview(bytearray(64 * 1024))
_STREAM = _WHOLE[: 16 * 1024]
_SLOW_STREAM = _WHOLE[: 2 * 1024]

# Hop by hop, or set by our own server.
_DROPPED = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-authenticate")
    + (b"proxy-authorization", b"server", b"date", b"x-request-id")
)
_LOOKED_AT = frozenset((b"content-type", b"content-length", b"transfer-encoding"))
_MOST_NAMES = 256
_MOST_OPENINGS = 4096


OnChunk = Callable[[bytes, bytes], None]


class Home(Protocol):
    """Where idle connections are kept: the pool."""

    def keep(self, connection: "Connection") -> bool:
        """Take one back; False if there are enough."""
        ...

    def forget(self, connection: "Connection") -> None:
        """It is lost."""
        ...


class _Names(dict[bytes, bytes | None]):
    """Name of a header, as engines write it → in lower case, if clients get it; b"" if they do not;
    None for those that are looked at. Only names that are often seen are kept."""

    def __missing__(self, name: bytes) -> bytes | None:
        known = name.lower()
        kept = None if known in _LOOKED_AT else b"" if known in _DROPPED else known
        if len(self) < _MOST_NAMES:
            self[name] = kept
        return kept


_names = _Names()


def _nobody() -> None:
    pass


class _Openings(dict[int, bytes]):
    """Length of a chunk as a whole → the line that it begins with, as nearly all servers write it:
    what begins with that, is as long and ends with CRLF is one chunk and nothing else. If there is
    no chunk of that length: what none begins with."""

    def __missing__(self, length: int) -> bytes:
        opening = b"none"
        for digits in range(1, 8):
            size = length - digits - 4
            line = b"%x\r\n" % max(size, 0)
            if size > 0 and len(line) == digits + 2:
                opening = line
        if len(self) < _MOST_OPENINGS:
            self[length] = opening
        return opening


_openings = _Openings()


class Connection(asyncio.BufferedProtocol):
    """One connection and the answer that is coming in on it.

    Whoever sends a request names a function that is called when there is news (a head, bytes, the
    end, the loss of the connection), and reads the state then. Who passes a stream on names another
    one for chunks that come whole and alone, as events do: they go past the parser, which stands
    between two chunks before and after. (It is known to when it has ended as many as it has begun,
    and has got nothing since, not even the beginning of a size: that does not end with CRLF.)
    """

    __slots__ = (
        "_begun", "_buffer", "_chunks", "_ended", "_given_chunks", "_is_chunked", "_is_kept",
        "_is_paused", "_news", "_on_chunk", "_parser", "_pool", "_seen", "_transport", "address",
        "content_type", "has_bytes", "headers", "is_busy", "is_complete", "is_headed", "is_lost",
        "is_reused", "length", "on_body", "on_chunk_complete", "on_chunk_header", "status",
    )  # fmt: skip

    def __init__(self, pool: Home, address: str) -> None:
        self._pool = pool
        self.address = address
        self._chunks: list[bytes] = []
        # The parser's callbacks for what comes most often: none of them is Python.
        self.on_body = self._chunks.append
        self._begun, self._ended, self._seen = count(), count(), 0  # chunks
        self.on_chunk_header, self.on_chunk_complete = self._begun.__next__, self._ended.__next__
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._on_chunk: OnChunk | None = None  # while the parser stands between two chunks
        self._given_chunks: OnChunk | None = None  # who gets them then
        self._news = _nobody
        self._buffer = _WHOLE
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_type = b""
        self.length: bytes | None = None  # content-length
        self.has_bytes = self.is_headed = self.is_complete = self._is_chunked = False
        self._is_paused = self._is_kept = False
        self.is_lost = self.is_busy = self.is_reused = False

    # what the relay does

    def ask(self, head: bytes, body: bytes, news: Callable[[], None]) -> None:
        """Send a request; what is known of the answer before is forgotten."""
        self.headers, self.content_type, self.length = [], b"", None
        self.has_bytes = self.is_headed = self.is_complete = self._is_chunked = False
        self._chunks.clear()
        self._buffer = _WHOLE
        self.is_busy = True
        self._news = news
        self._transport.writelines((head, body) if body else (head,))

    def give_chunks(self, on_chunk: OnChunk) -> None:
        """From now on, call `on_chunk` for a chunk that comes whole and alone, with its content and
        as it came; there is no news of it."""
        self._given_chunks = on_chunk
        self._seen = next(self._begun)
        next(self._ended)

    def take(self) -> bytes:
        """The bytes of the body that have come in since the last call."""
        chunks = self._chunks
        if len(chunks) == 1:
            return chunks.pop()
        data = b"".join(chunks)
        chunks.clear()
        return data

    def has_body(self) -> bool:
        """Whether there are bytes to `take`, or never will be."""
        return bool(self._chunks) or self.is_complete

    def pause(self) -> None:
        """Stop reading, until `resume`; whoever is slow once gets less at a time from then on."""
        if self._buffer is _STREAM:
            self._buffer = _SLOW_STREAM
        if not self._is_paused and not self.is_lost:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused and not self.is_lost:
            self._is_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once; an engine drops its work for a request whose connection is closed."""
        self._news = _nobody
        self._on_chunk = self._given_chunks = None
        self._transport.abort()

    def release(self) -> None:
        """Give the connection back after a complete answer."""
        self._news = _nobody
        self._on_chunk = self._given_chunks = None
        self.is_busy = False
        if self._is_paused:
            self.resume()
        if self.is_lost or not self._is_kept or not self._pool.keep(self):
            self._transport.abort()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        # One for all connections: it is read from before anything else can be read into it.
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        on_chunk = self._on_chunk
        if on_chunk is not None:
            data = self._buffer[:nbytes].tobytes()
            line = _openings[nbytes]
            if data.startswith(line) and data.endswith(b"\r\n"):
                return on_chunk(data[len(line) : -2], data)
        self.has_bytes = True
        read = self._buffer[:nbytes]
        try:
            self._parser.feed_data(read)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._on_chunk = self._given_chunks = None
            self._transport.abort()
        if not self.is_busy:
            self._transport.abort()  # nobody asked for anything
        if self._given_chunks is not None:
            self._on_chunk = self._given_chunks if self._is_between(read) else None
        self._news()

    def _is_between(self, read: memoryview) -> bool:
        """Whether the parser, which has just got `read`, stands between two chunks."""
        if self.is_complete:
            return False
        begun, ended = next(self._begun), next(self._ended)  # which counts up both
        if begun <= self._seen + 1:  # none has begun since: there may be no chunks at all
            self._seen = begun
            return False
        self._seen = -2  # there are
        return begun == ended and read[-2:].tobytes() == b"\r\n"

    def eof_received(self) -> bool:
        # Without a length and without chunks, the end of the connection is that of the answer.
        if self.is_headed and self.length is None and not self._is_chunked:
            self.is_complete = True
            self._is_kept = False
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._pool.forget(self)
        self._news()

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        kept = _names[name]
        if kept:
            self.headers.append((kept, value))
        elif kept is None:
            self._look_at(name.lower(), value)

    def _look_at(self, name: bytes, value: bytes) -> None:
        if name == b"content-type":
            self.content_type = value
            self.headers.append((name, value))
        elif name == b"content-length":
            self.length = value
        else:
            self._is_chunked = value.lower().endswith(b"chunked")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self.is_headed = True
            if self.content_type.startswith(b"text/event-stream"):
                self._buffer = _STREAM

    def on_message_complete(self) -> None:
        if self.status < 200:  # "continue", "early hints": the answer is still to come
            self.headers, self.length, self.content_type = [], None, b""
            return
        self.is_complete = True
        self._is_kept = self._parser.should_keep_alive()  # llhttp knows it only here
