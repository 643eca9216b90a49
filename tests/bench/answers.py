"""A scripted server: each connection gets the same pieces, one write each."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(content: str) -> bytes:
    return event(choices=[{"delta": {"content": content}}])


def chunked(*pieces: bytes) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    framed = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]
    return [head, *framed, b"0\r\n\r\n"]


ROLE = delta("")
USAGE = event(
    choices=[],
    usage={
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 8},
    },
)
GOOD = chunked(ROLE, delta("a"), delta("b"), delta("c"), USAGE, b"data: [DONE]\n\n")


@asynccontextmanager
async def answering(socket: Path, pieces: Sequence[bytes]) -> AsyncIterator[list[bytes]]:
    """Serve `pieces` on a unix socket; the list that is yielded gathers request bodies."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        asked.append(head + await reader.readexactly(length))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, socket):
        yield asked
