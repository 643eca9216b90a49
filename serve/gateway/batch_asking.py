"""One line of a batch on its way to an engine, as if its client had sent it."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from itertools import count

from starlette.types import Message

from serve.errors import (
    EngineGone,
    KeyExpired,
    ModelNotReady,
    QueueFull,
    QueueTimeout,
    RateLimited,
    RequestError,
    ShuttingDown,
    Unauthorized,
)
from serve.gateway import batch_lines as lines
from serve.gateway.batch_book import Line, Order
from serve.gateway.door import Caller
from serve.gateway.exchange import Request
from serve.gateway.served import Served
from serve.quota import Tenant

Carry = Callable[[Request], Awaitable[None]]

# It will go, in a while; when we shut down, with another gateway.
_LATER = (RateLimited, QueueFull, QueueTimeout, ModelNotReady, ShuttingDown)
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 60.0
_TRIES = 3  # where an engine went away, or fell over
_FALLEN = (500, 502, 503, 504)


class Asking:
    """Sends lines on. Limits, books and the queue are those of all requests."""

    def __init__(self, served: Served, carry: Carry) -> None:
        self._served = served
        self._carry = carry
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    async def ask(self, order: Order, number: int, ask: lines.Ask) -> Line:
        """The line's answer, whatever it is. Where there is no room now, it comes again."""
        tries = 0
        while True:
            id = f"b{self._prefix}-{next(self._numbers):x}"
            call = _Call(bytes(ask.body))
            try:
                caller = self._caller(order)
                await self._carry(call.request(ask.url, id.encode(), caller))
                _end_if_cancelled()
                if not call.is_whole:
                    raise EngineGone("", is_started=True)
            except _LATER as error:
                await asyncio.sleep(min(max(error.retry_after_s, _PAUSE_S), _LONGEST_PAUSE_S))
                continue
            except EngineGone as error:
                tries += 1
                if tries >= _TRIES:
                    return lines.refused(number, ask, id, error)
            except RequestError as error:
                return lines.refused(number, ask, id, error)
            else:
                tries += 1
                if call.status not in _FALLEN or tries >= _TRIES:
                    return lines.answered(number, ask, id, call.status, call.body())
            await asyncio.sleep(tries)

    def _caller(self, order: Order) -> Caller:
        """Who ordered the batch, as they are now: a key that is gone asks for nothing more."""
        roster = self._served.roster
        if not order.key and roster.is_open:
            return Caller(None, Tenant(order.tenant), "")
        key = next((key for key in roster.keys if key.id == order.key), None)
        if key is None:
            raise Unauthorized(has_key=True)
        if key.expires_at is not None and time.time() >= key.expires_at:
            raise KeyExpired(key.expires_at)
        named = (tenant for tenant in roster.tenants if tenant.name == key.tenant)
        return Caller(key, next(named, Tenant(key.tenant)), "")


def _end_if_cancelled() -> None:
    """A relay that is cancelled tells its client so, and thinks that this was all."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class _Call:
    """Plays the client of one request: sends the body, keeps the answer."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._is_sent = False
        self._parts: list[bytes] = []
        self._ended = asyncio.Event()
        self.status = 0

    @property
    def is_whole(self) -> bool:
        return self._ended.is_set()

    def body(self) -> bytes:
        return b"".join(self._parts)

    def request(self, path: str, id: bytes, caller: Caller) -> Request:
        headers = {
            b"content-type": b"application/json",
            b"content-length": b"%d" % len(self._body),
        }
        return Request(path, headers, id, self._receive, self._send, caller, priority="batch")

    async def _receive(self) -> Message:
        if not self._is_sent:
            self._is_sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._ended.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._ended.set()
