"""Ollama's API, for the many local tools that speak only that: a thin translation.

What asks a model becomes a request of OpenAI's API and goes the way of all others, with its
limits, its books and its queue; the answer is told in Ollama's words.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
from starlette.types import Message

from serve.errors import BadRequest, Forbidden, MethodNotAllowed, RouteNotFound
from serve.gateway import ollama_asked as asked
from serve.gateway import ollama_models as models
from serve.gateway import ollama_told as told
from serve.gateway.door import may_use
from serve.gateway.exchange import Request, answer
from serve.gateway.reply import say
from serve.gateway.served import Served
from serve.gateway.sse import Events
from serve.quota import Key

# Of Ollama's API, as far as we speak it: clients ask for it to know what they may send.
VERSION = "0.12.0"
PATHS = (
    "/api/chat", "/api/generate", "/api/embed", "/api/embeddings",
    "/api/tags", "/api/ps", "/api/show", "/api/version",
)  # fmt: skip
# What changes the models of a server: here its operator does that.
REFUSED = (
    "/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs",
)  # fmt: skip
_NOT_HERE = (
    "Models are chosen by the operator of this server (inhouse pull, inhouse load), "
    "not over this API."
)
# What tools look for, in these very words.
_GREETING = b"Ollama is running"
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_JSON, _LINES = (b"content-type", b"application/json"), (b"content-type", b"application/x-ndjson")
_OF_THE_BODY = frozenset((b"content-type", b"content-length", b"content-encoding"))

Carry = Callable[[Request], Awaitable[None]]
Tell = Callable[[dict[str, Any]], dict[str, Any]]


class Ollama:
    """One per gateway process. `read(request)`: its body, None if the client left meanwhile."""

    def __init__(self, served: Served, read: Callable[[Request], Awaitable[bytes | None]]) -> None:
        self._served = served
        self._read = read

    async def __call__(self, request: Request, carry: Carry) -> None:
        """Answer one request; `carry` takes requests of OpenAI's API to the engines. A RequestError
        only while nothing has been sent to the client."""
        path, method, key = request.path, request.method, request.caller.key
        if path.startswith(REFUSED):
            raise BadRequest(_NOT_HERE)
        if path == "/":
            return await answer(request, 200, _GREETING, [_TEXT])
        if path not in PATHS:
            raise RouteNotFound(method, path)
        if method not in (("GET", "HEAD") if path in _LOOKS else ("POST",)):
            raise MethodNotAllowed(method, path)
        if path in _LOOKS:
            return await say(request, _LOOKS[path](self._served, key))
        body = await self._read(request)
        if body is None:
            return
        if path == "/api/show":
            wish = asked.read_wish(body, asked.ShowWish)
            name = wish.model or wish.name or ""
            return await say(request, models.show(name, self._served, key))
        if path in ("/api/embed", "/api/embeddings"):
            return await self._embed(request, asked.read_wish(body, asked.EmbedWish), carry)
        if path == "/api/chat":
            await self._generate(request, asked.read_wish(body, asked.ChatWish), carry)
        else:
            await self._generate(request, asked.read_wish(body, asked.GenerateWish), carry)

    async def _embed(self, request: Request, wish: asked.EmbedWish, carry: Carry) -> None:
        body = asked.embed_body(wish, models.plain(wish.model, self._served))
        is_old = request.path == "/api/embeddings"
        turn = _Turn(request, lambda answer: told.embedded(answer, wish.model, is_old))
        await carry(_onward(request, "/v1/embeddings", body, turn))

    async def _generate(
        self, request: Request, wish: asked.ChatWish | asked.GenerateWish, carry: Carry
    ) -> None:
        model = models.plain(wish.model, self._served)
        if isinstance(wish, asked.ChatWish):
            is_chat, is_idle, path = True, not wish.messages, "/v1/chat/completions"
        else:
            is_chat, is_idle = False, not wish.prompt
            path = "/v1/completions" if asked.is_plain(wish) else "/v1/chat/completions"
        if is_idle:  # asks for no answer, only that the model be there, or need not
            found, key = self._served.find(model), request.caller.key
            if not may_use(key, found.name, *found.aliases):
                raise Forbidden("model", found.name)
            reason = "unload" if wish.keep_alive in (0, "0") else "load"
            return await say(request, told.loaded(wish.model, is_chat, reason))
        body = (
            asked.chat_body(wish, model)
            if isinstance(wish, asked.ChatWish)
            else asked.generate_body(wish, model)
        )
        telling = told.Telling(wish.model, is_chat)
        await carry(_onward(request, path, body, _Turn(request, telling.whole, telling)))


_LOOKS: dict[str, Callable[[Served, Key | None], dict[str, Any]]] = {
    "/api/tags": models.tags,
    "/api/ps": models.running,
    "/api/version": lambda served, key: {"version": VERSION},
}


class _Turn:
    """An ASGI `send` that turns OpenAI's answer into Ollama's on its way to the client.

    `tell`: for an answer in one piece; `telling`: for one that streams.
    """

    def __init__(self, request: Request, tell: Tell, telling: told.Telling | None = None) -> None:
        self._request = request
        self._tell = tell
        self._telling = telling
        self._events = Events()
        self._is_stream = False
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message["status"], list(message["headers"]))
        elif message["type"] == "http.response.body":
            body, is_last = message.get("body", b""), not message.get("more_body", False)
            if self._is_stream and self._telling is not None:
                await self._pass_on(self._telling, body, is_last)
            else:
                self._parts.append(body)
                if is_last:
                    await self._finish()

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        kind = dict(headers).get(b"content-type", b"")
        self._status = status
        self._headers = [row for row in headers if row[0] not in _OF_THE_BODY]
        if self._telling is not None and kind.startswith(b"text/event-stream"):
            self._is_stream = True
            await self._send_head([_LINES])

    async def _pass_on(self, telling: told.Telling, body: bytes, is_last: bool) -> None:
        records = [record for data in self._events.feed(body) for record in telling.event(data)]
        if is_last:
            records += telling.close()
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)
        if lines or is_last:
            await self._send_body(lines, is_last)

    async def _finish(self) -> None:
        answer = told.read_record(b"".join(self._parts))
        if self._status == 200 and answer is not None:
            record = self._tell(answer)
        else:
            record = told.error_record(answer, self._status)
        content = msgspec.json.encode(record)
        await self._send_head([_JSON, (b"content-length", b"%d" % len(content))])
        await self._send_body(content, True)

    async def _send_head(self, more: list[tuple[bytes, bytes]]) -> None:
        start = {"type": "http.response.start", "status": self._status}
        await self._request.send(start | {"headers": more + self._headers})

    async def _send_body(self, body: bytes, is_last: bool) -> None:
        message = {"type": "http.response.body", "body": body, "more_body": not is_last}
        await self._request.send(message)


def _onward(request: Request, path: str, body: dict[str, Any], send: _Turn) -> Request:
    """The same request in OpenAI's words."""
    content = msgspec.json.encode(body)
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if is_read:
            return await request.receive()
        is_read = True
        return {"type": "http.request", "body": content, "more_body": False}

    headers = request.headers | {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(content),
    }
    return replace(request, path=path, headers=headers, receive=receive, send=send)
