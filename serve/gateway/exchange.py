"""One request that has been let in, as every route gets it."""

import re
from dataclasses import dataclass

from starlette.types import Receive, Send

from serve.gateway.door import Caller
from serve.quota import Priority

_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# What an engine is told of a request's head. Never keys, cookies or the client's host.
_FORWARDED = (b"content-type", b"accept", b"anthropic-version", b"anthropic-beta")


@dataclass(slots=True)
class Request:
    """Where a request goes, who asks, and the ways to and from its client.

    `send` may be a `Direct`, which can be written to without ASGI's messages; who replaces it (to
    tell an answer in other words) gets messages. `priority` None: what the key may ask for.
    """

    path: str
    headers: dict[bytes, bytes]  # names in lower case
    id: bytes
    receive: Receive
    send: Send
    caller: Caller
    method: str = "POST"
    query: bytes = b""
    priority: Priority | None = None
    told: bytes | None = None

    @property
    def shown_id(self) -> bytes:
        """The id that the client gets: its own, if it has sent one that is harmless. Engines and
        books know the request by `id`, which nobody can choose."""
        own = self.headers.get(b"x-request-id")
        return own if own is not None and _ID.fullmatch(own) else self.id


def told_of(headers: dict[bytes, bytes]) -> bytes:
    """The lines of a request's head that its engine gets."""
    told = [(name, headers[name]) for name in _FORWARDED if name in headers]
    return b"".join([b"%b: %b\r\n" % row for row in told])


async def answer(
    request: Request, status: int, content: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """Answer a request as a whole. `headers`: those besides its length and id."""
    head = [
        *headers,
        (b"content-length", b"%d" % len(content)),
        (b"x-request-id", request.shown_id),
    ]
    await request.send({"type": "http.response.start", "status": status, "headers": head})
    await request.send({"type": "http.response.body", "body": content})
