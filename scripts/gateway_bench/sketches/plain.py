"""The same relay without ASGI: one protocol for clients, one for the upstream. How far Python goes.

plain.py PORT
"""

import asyncio
import os
import sys
from typing import Any

import httptools
import uvloop
from relay import Own, Upstream, admit  # type: ignore[import-not-found]

_pool: Any = None


class Client(asyncio.Protocol):
    """One request at a time; the answer's bytes are passed on as the upstream's events come."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._path = ""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        body, headers = self._body, self._headers
        self._body, self._headers = b"", []
        if not admit(headers, body):
            self._transport.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
            return
        if _pool._idle:
            self._ask(_pool._idle.pop(), body)
        else:
            asyncio.get_running_loop().create_task(self._dial(body))

    async def _dial(self, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Passing, "127.0.0.1", _pool._port)
        self._ask(made, body)

    def _ask(self, upstream: "Passing", body: bytes) -> None:
        upstream.client, upstream.is_headed = self._transport, False
        upstream.ask(self._path, body)


class Passing(Upstream):  # type: ignore[misc]
    """Writes what has come as soon as it is parsed, with a head before the first of it."""

    client: Any
    is_headed: bool

    def on_news(self) -> None:
        if not self.status:
            return
        pieces = []
        is_sized = any(name == b"content-length" for name, _ in self.headers)
        if not self.is_headed:
            self.is_headed = True
            pieces.append(b"HTTP/1.1 %d OK\r\n" % self.status)
            pieces += [b"%b: %b\r\n" % header for header in self.headers]
            pieces.append(b"\r\n" if is_sized else b"transfer-encoding: chunked\r\n\r\n")
        if data := self.read():
            pieces += [data] if is_sized else [b"%x\r\n" % len(data), data, b"\r\n"]
        if self.is_complete and not is_sized:
            pieces.append(b"0\r\n\r\n")
        self.client.writelines(pieces)
        if self.is_complete:
            _pool.give_back(self)


async def serve(port: int) -> None:
    global _pool
    _pool = Own(int(os.environ["RELAY_PORT"]))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Client, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
