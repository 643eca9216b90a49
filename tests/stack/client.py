"""Clients that note exactly what they were told, byte by byte, until the connection breaks."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHAT = "/v1/chat/completions"
_LONGEST_S = 60.0
_RAW_S = 0.2
_BROKEN = (OSError, asyncio.IncompleteReadError, TimeoutError)
_DONE = b"data: [DONE]\n\n"


@dataclass
class Seen:
    """One request, as its client saw it. `status` 0: nothing came. `is_ended`: the whole answer;
    `has_left`: we went away by ourselves."""

    user: str
    status: int = 0
    id: str = ""
    headers: dict[str, str] | None = None
    content: bytes = b""
    is_ended: bool = False
    has_left: bool = False

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Input and output, as the answer says."""
        found = re.findall(rb'"usage": ?(\{.*?\})[,}]', self.content.replace(b"\n", b""))
        if not found:
            return None
        text = self.content[self.content.rfind(b'"usage":') + 8 :].lstrip()
        usage, _ = json.JSONDecoder().raw_decode(text.decode())
        return usage["prompt_tokens"], usage["completion_tokens"]

    @property
    def events(self) -> int:
        """Whole events of a stream that have text in them."""
        return self.content.count(b'"delta"')


class Client:
    """One keep-alive connection at a time."""

    def __init__(self, port: int, key: str = "") -> None:
        self._port, self._key = port, key
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(
        self,
        body: Mapping[str, Any] | bytes,
        path: str = CHAT,
        user: str = "",
        leave_after_s: float | None = None,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Seen:
        """Send a request and read the answer as far as it comes. `leave_after_s`: only so long."""
        seen = Seen(user or (body.get("user", "") if isinstance(body, Mapping) else ""))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            async with asyncio.timeout(leave_after_s or _LONGEST_S):
                await self.connect()
                assert self._writer is not None
                self._writer.write(self._head(method, path, len(content), headers or {}) + content)
                await self._read(seen)
        except _BROKEN as error:
            seen.has_left = leave_after_s is not None and isinstance(error, TimeoutError)
            self.close()
        return seen

    async def send_raw(self, data: bytes) -> Seen:
        """Bytes that are perhaps no request, on a connection of their own."""
        self.close()
        seen = Seen("")
        try:
            async with asyncio.timeout(_RAW_S):
                await self.connect()
                assert self._writer is not None
                self._writer.write(data)
                await self._read(seen)
        except (*_BROKEN, ValueError, IndexError):
            pass
        self.close()
        return seen

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    async def connect(self) -> None:
        """If it is not connected already."""
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._port, limit=2**22
            )

    def _head(self, method: str, path: str, length: int, headers: Mapping[str, str]) -> bytes:
        lines = {"host": f"127.0.0.1:{self._port}", "content-type": "application/json"} | dict(
            headers
        )
        if self._key:
            lines.setdefault("authorization", f"Bearer {self._key}")
        rows = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return f"{method} {path} HTTP/1.1\r\n{rows}content-length: {length}\r\n\r\n".encode()

    async def _read(self, seen: Seen) -> None:
        assert self._reader is not None
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines if line)
        seen.headers = headers = {name.lower(): value for name, _, value in pairs}
        seen.id, seen.status = headers.get("x-request-id", ""), int(first.split()[1])
        if "content-length" in headers:
            size = int(headers["content-length"])
            while len(seen.content) < size:
                seen.content += await self._some(size - len(seen.content))
        else:
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                seen.content += (await self._reader.readexactly(size + 2))[:-2]
                seen.is_ended = seen.content.endswith(_DONE)
            await self._reader.readexactly(2)
        seen.is_ended = seen.is_ended or b"event-stream" not in headers["content-type"].encode()
        if headers.get("connection") == "close":
            self.close()

    async def _some(self, most: int) -> bytes:
        assert self._reader is not None
        data = await self._reader.read(most)
        if not data:
            raise asyncio.IncompleteReadError(b"", most)
        return data


async def is_up(port: int) -> bool:
    """Whether anybody takes connections."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.transport.abort()
    return True
