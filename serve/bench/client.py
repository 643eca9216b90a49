"""One timed streaming request, with as little of our own work between the bytes as can be.

The hot path of the load generator: asyncio's streams, httptools for HTTP, one small look at each
SSE event. All times are of one monotonic clock (`time.perf_counter`), in seconds.
"""

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools

from serve.bench.workload import Prompt

_READ_BYTES = 256 * 1024
_SHOWN_CHARACTERS = 300  # of a refusal's body


@dataclass(frozen=True, slots=True)
class Target:
    """A server: `url` up to and without `/v1`; `socket`: dial this unix socket instead.

    `salt`: vLLM's `cache_salt`; two salts share no prefix cache. None: not sent (others refuse it).
    `is_verified` False: whoever its certificate is made out to, it is known to be the right one.
    """

    url: str
    model: str
    socket: str | None = None
    api_key: str | None = None
    salt: str | None = None
    is_verified: bool = True


@dataclass(frozen=True, slots=True)
class Timing:
    """What one request took, from just before its connection was opened.

    `chunks_s`: when each chunk with content came. `ttft_s`: the first of them (None: none came);
    a chunk that only names the role does not count. `usage` tokens are the server's own figures.
    """

    started_s: float
    ended_s: float
    chunks_s: tuple[float, ...]
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    text: str = ""
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        return self.chunks_s[0] - self.started_s if self.chunks_s else None

    @property
    def tpot_s(self) -> float | None:
        """(last chunk − first chunk) / (output tokens − 1); None below two tokens."""
        if len(self.chunks_s) < 2 or self.output_tokens < 2:
            return None
        return (self.chunks_s[-1] - self.chunks_s[0]) / (self.output_tokens - 1)


async def request(target: Target, prompt: Prompt) -> Timing:
    """Send one chat completion with streaming and read it to its end.

    Never raises for what a server may do: `Timing.error` says it. Output has exactly
    `prompt.max_tokens` tokens where the server knows `ignore_eos` (vLLM).
    """
    answer = _Answer(time.perf_counter())
    try:
        reader, writer = await _connect(target)
    except OSError as error:
        return answer.timing(f"no connection: {error}")
    try:
        writer.write(_head_and_body(target, prompt))
        parser = httptools.HttpResponseParser(answer)
        while not answer.is_complete:
            data = await reader.read(_READ_BYTES)
            if not data:
                return answer.timing("the connection ended before the answer did")
            answer.now_s = time.perf_counter()
            parser.feed_data(data)
    except (OSError, httptools.HttpParserError) as error:
        return answer.timing(f"cut: {error}")
    finally:
        writer.close()
    return answer.timing(None)


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.socket is not None:
        return await asyncio.open_unix_connection(target.socket)
    parts = urlsplit(target.url)
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    context = ssl.create_default_context() if is_tls else None
    if context is not None and not target.is_verified:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return await asyncio.open_connection(parts.hostname, port, ssl=context)


def _head_and_body(target: Target, prompt: Prompt) -> bytes:
    wish: dict[str, Any] = {
        "model": target.model,
        "messages": [{"role": "user", "content": prompt.text}],
        "max_tokens": prompt.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if target.salt is not None:
        wish["cache_salt"] = target.salt
    body = json.dumps(wish).encode()
    parts = urlsplit(target.url)
    lines = [
        f"POST {parts.path.rstrip('/')}/v1/chat/completions HTTP/1.1",
        f"Host: {parts.netloc or 'localhost'}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if target.api_key is not None:
        lines.append(f"Authorization: Bearer {target.api_key}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(slots=True)
class _Answer:
    """httptools' callbacks: gathers events as their bytes come."""

    started_s: float
    now_s: float = 0.0
    is_complete: bool = False
    text: list[str] = field(default_factory=list)
    chunks_s: list[float] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    rest: bytes = b""
    refusal: str | None = None

    def on_status(self, reason: bytes) -> None:
        self.refusal = None if reason == b"OK" else reason.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        if self.refusal is not None:
            self.rest += body
            return
        *lines, self.rest = (self.rest + body).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._take(line[5:].strip())

    def on_message_complete(self) -> None:
        self.is_complete = True

    def _take(self, data: bytes) -> None:
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            self.problem = json.dumps(event["error"])
        for choice in event.get("choices", ()):
            delta = choice.get("delta", {})
            piece = delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content")
            if piece:
                self.chunks_s.append(self.now_s)
                self.text.append(piece)
        self.usage = event.get("usage") or self.usage

    def timing(self, error: str | None) -> Timing:
        if self.refusal is not None:
            said = self.rest.decode(errors="replace")[:_SHOWN_CHARACTERS]
            self.problem = f"{self.refusal}: {said}"
        details = self.usage.get("prompt_tokens_details") or {}
        return Timing(
            started_s=self.started_s,
            ended_s=time.perf_counter(),
            chunks_s=tuple(self.chunks_s),
            prompt_tokens=self.usage.get("prompt_tokens", 0),
            output_tokens=self.usage.get("completion_tokens", 0),
            cached_tokens=details.get("cached_tokens"),
            text="".join(self.text),
            error=error or self.problem,
        )
