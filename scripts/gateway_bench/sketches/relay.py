"""A relay that does as little as a gateway can: hashes the key, reads the model, passes bytes on.

An ASGI application, `relay:app`, for any server. RELAY_CLIENT says by what it asks the upstream:
aiohttp, httpx, or own; RELAY_PORT, at which port.
"""

import asyncio
import hashlib
import os
import re
from typing import Any

import aiohttp  # type: ignore[import-not-found]
import httptools
import httpx

KEYS = {hashlib.sha256(b"Bearer none").digest()}
MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
DROPPED = (b"transfer-encoding", b"connection", b"keep-alive", b"server", b"date")
_client: Any = None


def admit(headers: Any, body: bytes) -> bool:
    key = next((value for name, value in headers if name == b"authorization"), b"")
    return hashlib.sha256(key).digest() in KEYS and MODEL.search(body) is not None


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    event = await receive()
    body = event["body"]
    while event.get("more_body"):
        event = await receive()
        body += event["body"]
    if not admit(scope["headers"], body):
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    global _client
    if _client is None:
        _client = CLIENTS[os.environ["RELAY_CLIENT"]](int(os.environ["RELAY_PORT"]))
    await _client.relay(scope["path"], body, send)


class Aiohttp:
    def __init__(self, port: int) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        self._url = f"http://127.0.0.1:{port}"

    async def relay(self, path: str, body: bytes, send: Any) -> None:
        headers = {"content-type": "application/json"}
        async with self._session.post(self._url + path, data=body, headers=headers) as answer:
            head = [(n.lower(), v) for n, v in answer.raw_headers if n.lower() not in DROPPED]
            await send({"type": "http.response.start", "status": answer.status, "headers": head})
            async for part in answer.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


class Httpx:
    def __init__(self, port: int) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=None, trust_env=False
        )

    async def relay(self, path: str, body: bytes, send: Any) -> None:
        headers = {"content-type": "application/json"}
        async with self._client.stream("POST", path, content=body, headers=headers) as answer:
            head = [(n.lower(), v) for n, v in answer.headers.raw if n.lower() not in DROPPED]
            start = {"type": "http.response.start", "status": answer.status_code, "headers": head}
            await send(start)
            async for part in answer.aiter_raw():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


class Own:
    """A pool of connections with a protocol of our own over httptools."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Upstream] = []

    async def take(self) -> "Upstream":
        if self._idle:
            return self._idle.pop()
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Upstream, "127.0.0.1", self._port)
        return made

    def give_back(self, upstream: "Upstream") -> None:
        self._idle.append(upstream)

    async def relay(self, path: str, body: bytes, send: Any) -> None:
        upstream = await self.take()
        upstream.ask(path, body)
        while not upstream.status:
            await upstream.news()
        head = upstream.headers
        await send({"type": "http.response.start", "status": upstream.status, "headers": head})
        while not upstream.is_complete:
            if data := upstream.read():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            else:
                await upstream.news()
        await send({"type": "http.response.body", "body": upstream.read()})
        self.give_back(upstream)


class Upstream(asyncio.Protocol):
    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, path: str, body: bytes) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status, self.is_complete = 0, False
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []
        head = b"POST %b HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
        head = head % path.encode() + b"content-length: %d\r\n\r\n" % len(body)
        self.transport.writelines((head, body))

    async def news(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def read(self) -> bytes:
        data = b"".join(self.parts)
        self.parts.clear()
        return data

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        self.on_news()

    def on_news(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def on_header(self, name: bytes, value: bytes) -> None:
        if (name := name.lower()) not in DROPPED:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = True


CLIENTS = {"aiohttp": Aiohttp, "httpx": Httpx, "own": Own}
